"""Bragg masks as plug-ins."""

from __future__ import annotations

import numpy as np
import pytest
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList
from installed_plugin import documented_plugin, install_plugin, run_with_plugin
from small_session import copy_session, make_session

from dials_diffuse.algorithms.masking.mask_file import read_mask
from dials_diffuse.algorithms.masking.strategies import BUILT_IN, bragg_mask_scope

GROUP = "dials_diffuse.bragg_mask"
FILES = ("refined_1.expt", "bragg_mask.mode=predicted_boxes")


@pytest.fixture
def folder(make_once, tmp_path, monkeypatch):
    copy_session(make_once("small-session", make_session), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plugin(folder):
    return install_plugin(folder / "plugin", GROUP, *documented_plugin(GROUP))


def test_the_plugin_of_the_documentation_masks_its_boxes(folder, plugin):
    """Image 3: what is masked beyond the pixel mask are boxes round the predictions that are on it, and no more."""
    done = run_with_plugin(plugin, "mask", *FILES, "predicted_boxes.half_width=4", "half_depth=0", "bragg_frame=3")
    assert done.returncode == 0, done.stderr
    (experiment,) = ExperimentList.from_file("refined_1.expt", check_format=False)
    (pixels,), (bragg,) = (read_mask(name, experiment.detector) for name in ("pixels.mask", "bragg.mask"))
    expected = pixels.copy()
    for x, y, z in flex.reflection_table.from_predictions(experiment)["xyzcal.px"]:
        if int(z) == 2:
            expected[max(int(y) - 4, 0) : int(y) + 5, max(int(x) - 4, 0) : int(x) + 5] = False
    assert (bragg == expected).all()
    assert 0.01 < 1 - bragg.sum() / pixels.sum() < 0.5


def test_the_plugin_of_the_documentation_is_used_by_extraction(folder, plugin):
    """Beside the programs' own, its parameters are in the help; wider boxes leave fewer pixels."""
    pixels = []
    for half_width in (0, 10):
        options = (f"bragg_mask.predicted_boxes.half_width={half_width}", "d_min=1.5", "nproc=1")
        done = run_with_plugin(plugin, "extract", *FILES, *options)
        assert done.returncode == 0, done.stderr
        pixels.append(sum(flex.reflection_table.from_file("extracted.refl")["num_pixels.valid"]))
    assert pixels[1] < 0.9 * pixels[0]
    shown = run_with_plugin(plugin, "extract", "-c", "-e2", "-a1").stdout
    assert "none *ellipsoid shoebox file predicted_boxes" in shown
    assert "half_depth = 1" in shown and "predicted_boxes: Boxes of one size" in " ".join(
        shown.replace('"', "").split()
    )


MASK = "from dials_diffuse.algorithms.masking.bragg import BraggMask\nclass Mask(BraggMask):\n    "


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no such library')", "no such library"),
        ("Mask = 3", "is not a BraggMask"),
        (MASK + "pass", "has no `name`"),
        (MASK + "name = 'shoebox'", "there is a Bragg mask shoebox already"),
        (MASK + "name = 'mine'\n    phil_scope = 'a = 1'", "is not a PHIL scope"),
    ],
)
def test_a_broken_plugin_stops_the_program_in_one_sentence(folder, code, message):
    plugin = install_plugin(folder / "plugin", GROUP, code, "mine = broken:Mask")
    done = run_with_plugin(plugin, "mask", "refined_1.expt", "refined_1.refl")
    assert done.returncode != 0
    assert "Sorry: " in done.stderr and message in done.stderr and "mine" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "pixels.mask").exists()


def test_a_static_mask_of_the_wrong_shape_is_refused(folder):
    code = MASK + "name = 'mine'\n    needs_reflections = False\n    static = (True,)"
    code = code.replace("(True,)", "(__import__('numpy').ones((3, 4), bool),)")
    plugin = install_plugin(folder / "plugin", GROUP, code, "mine = broken:Mask")
    done = run_with_plugin(plugin, "mask", "refined_1.expt", "bragg_mask.mode=mine")
    assert "Sorry: The static part of the Bragg mask mine is not one bool a pixel" in done.stderr


def test_scope_of_the_built_in_strategies():
    (scope,) = bragg_mask_scope().objects
    assert scope.extract().mode == "ellipsoid"
    with_parameters = {child.name for child in scope.objects if child.is_scope}
    assert with_parameters == {strategy.name for strategy in BUILT_IN if strategy.phil_scope.objects}
    assert np.isfinite(scope.extract().ellipsoid.n_sigma)
