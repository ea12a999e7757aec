"""dials.diffuse_correct as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from correction_data import flat_detector, make_dataset, make_experiment, write_images
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.command_line.diffuse_correct import run

COLUMNS = (
    "response",
    "background.sum.value",
    "background.sum.variance",
    "intensity.sum.value",
    "intensity.sum.variance",
)


@pytest.fixture
def extracted(tmp_path, monkeypatch):
    """Two sweeps on one flat detector, in the current folder."""
    monkeypatch.chdir(tmp_path)
    dataset = make_dataset([make_experiment(i, flat_detector()) for i in range(2)], n=500)
    dataset.observations["counts"] = flex.double(range(len(dataset.observations)))
    dataset.write("extracted.expt", "extracted.refl")
    return tmp_path


def test_corrected_files_json_and_log(extracted):
    rng = np.random.default_rng(6)
    (extracted / "images").mkdir()
    images = [rng.poisson(1.0, (150, 200)) for _ in range(3)]
    write_images(extracted / "images", images, exposure=0.1).as_json("bkg.expt")
    run(["extracted.expt", "extracted.refl", "background=bkg.expt", "background_model.half_width=20"])

    table = flex.reflection_table.from_file("corrected.refl")
    assert len(table) == 1000 and all(column in table for column in COLUMNS)
    exposure = flumpy.to_numpy(table["exposure"])
    assert np.allclose(flumpy.to_numpy(table["background.sum.value"]), exposure / 0.1, rtol=0.2)
    content = json.loads(Path("corrected.expt").read_text())["dials_diffuse"]
    assert [record["program"] for record in content["history"]] == ["dials.diffuse_correct"]
    assert set(content["history"][0]["inputs"]) == {"extracted.expt", "extracted.refl", "bkg.expt"}
    assert len(ExperimentList.from_file("corrected.expt", check_format=False)) == 2
    summary = json.loads(Path("corrected.json").read_text())
    for values in summary["corrections"].values():
        assert 0 < values["minimum"] <= values["mean"] <= values["maximum"]
    log = Path("dials.diffuse_correct.log").read_text()
    assert "solid_angle" in log and "bkg.expt" in log and "Written: corrected.expt" in log


def test_reflections_of_other_experiments(extracted):
    other = make_dataset([make_experiment(7, flat_detector())], n=10)
    other.write("other.expt", "other.refl")
    with pytest.raises(SystemExit, match="other.refl"):
        run(["extracted.expt", "other.refl"])
    assert not Path("corrected.refl").exists()


def test_not_an_extracted_file(extracted):
    write_images(extracted, [np.ones((150, 200))], exposure=0.1).as_json("imported.expt")
    with pytest.raises(SystemExit):
        run(["imported.expt", "extracted.refl"])


def make_plugin(folder, module, entry):
    """A distribution as pip leaves it on sys.path."""
    folder.mkdir()
    (folder / "detector_foil.py").write_text(module)
    info = folder / "detector_foil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: detector-foil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dials_diffuse.correction]\n{entry}\n")
    return folder


def run_with_plugin(folder, *args):
    """The program in a Python of its own, with the plug-in's folder on its path."""
    command = "from dials_diffuse.command_line.diffuse_correct import run; run()"
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", command, "extracted.expt", "extracted.refl", *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )


def test_the_plugin_of_the_documentation_works(extracted):
    """The code and the entry point are those printed in docs/extending.md."""
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    module = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    entry = re.search(r'entry-points."dials_diffuse.correction"]\n(.*)\n', text).group(1).replace('"', "")
    folder = make_plugin(extracted / "plugin", module, entry)
    result = run_with_plugin(folder, "correction.detector_foil.thickness=0.1")
    assert result.returncode == 0, result.stderr
    factor = json.loads(Path("corrected.json").read_text())["corrections"]["detector_foil"]
    # 0.1 mm of aluminium at 0.7 Angstrom (17.7 keV), NIST: between 7.955 (15 keV) and 3.441 cm^2/g (20 keV)
    assert np.exp(-7.955 * 2.699 * 0.011) < factor["minimum"] < factor["maximum"] < np.exp(-2.5 * 2.699 * 0.01)
    assert "detector_foil" in result.stdout
    with_foil = flumpy.to_numpy(flex.reflection_table.from_file("corrected.refl")["response"])
    run(["extracted.expt", "extracted.refl"])
    without = flumpy.to_numpy(flex.reflection_table.from_file("corrected.refl")["response"])
    assert np.mean(with_foil / without) == pytest.approx(factor["mean"], rel=1e-6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise RuntimeError('no such library')", "no such library"),
        ("Foil = 3", "not a CorrectionModel"),
        (
            "import numpy as np\nfrom iotbx.phil import parse\n"
            "from dials_diffuse.algorithms.correction.model import CorrectionModel\n"
            "class Foil(CorrectionModel):\n"
            "    name = 'foil'\n    phil_scope = parse('use = True\\n  .type = bool')\n"
            "    def factor(self, geometry):\n        return np.full(len(geometry.xyz), np.nan)\n",
            "correction foil is zero, negative or infinite",
        ),
    ],
)
def test_a_plugin_that_fails_is_named(extracted, module, message):
    folder = make_plugin(extracted / "plugin", module, "foil = detector_foil:Foil")
    result = run_with_plugin(folder)
    assert result.returncode != 0
    assert message in result.stderr and "foil" in result.stderr and "Traceback" not in result.stderr
    assert not Path("corrected.refl").exists()
