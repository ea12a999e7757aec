"""Terms of other packages, by the example of the documentation; modules, of detectors that have some."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model import Detector
from installed_plugin import documented_plugin, install_plugin

from dials_diffuse.algorithms.scaling import terms
from dials_diffuse.algorithms.scaling.apply import apply_models, term_values
from dials_diffuse.algorithms.scaling.scale import scale
from dials_diffuse.command_line import diffuse_merge, diffuse_scale
from dials_diffuse.dataset import Dataset
from dials_diffuse.parameters import parameters
from dials_diffuse.provenance import ProcessRecord

GROUP = terms.PLUGIN_GROUP
#: Nothing but counting statistics.
PLAIN = ("outlier.reject=False", "error_model.a=1", "error_model.b=0", "nproc=1")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Puts a package with scaling terms on the path; called without a code, that of the documentation."""

    def install(code=None, entry=None):
        if code is None:
            code, entry = documented_plugin(GROUP)
        folder = install_plugin(tmp_path / "plugin", GROUP, code, entry)
        monkeypatch.syspath_prepend(folder)
        terms.scaling_terms.cache_clear()
        return folder

    def uninstall():
        terms.scaling_terms.cache_clear()
        for name in ("decay", "mine"):
            sys.modules.pop(name, None)

    install.uninstall = uninstall
    yield install
    uninstall()


def true_decay(sweep: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """B in A^2: 5 A^2 on average over the first sweep."""
    return np.where(sweep == 0, 1 + 8 * phi / 90, 3 + 4 * (phi / 90) ** 2)


def draw(dataset, expected: np.ndarray) -> None:
    """Counts anew, from the expected signal."""
    expected = expected + np.array(dataset.observations["background.sum.value"])
    dataset.observations["counts"] = flex.double(np.random.default_rng(3).poisson(expected).astype(float))


def decaying(samples: int = 60, n_frames: int = 90):
    """Observations in which high resolution decays; B of each of them, and b."""
    dataset, truth = observation_data.make_dataset(1, samples=samples, n_frames=n_frames)
    table = dataset.observations
    q = dataset.grid.q(np.array(list(table["miller_index"])))
    decay = true_decay(np.array(table["id"]), np.array(table["xyzobs.px.value"].parts()[2]))
    draw(dataset, np.array(table["response"]) * truth.b * truth.intensity * np.exp(-decay * q**2 / 2))
    dataset.history = [ProcessRecord.now("dials.diffuse_correct")]
    return dataset, decay, truth.b


def test_documented_decay_is_recovered_and_kept(tmp_path, monkeypatch, plugin):
    plugin()
    monkeypatch.chdir(tmp_path)
    dataset, decay, b = decaying()
    report = scale(dataset, parameters("scale", "scaling.terms=scale,decay", *PLAIN))
    assert report["cycles"][-1]["chi_squared"] == pytest.approx(1, abs=0.02)
    assert report["cycles"][-1]["fit"] and len(report["cycles"]) < 20

    found = term_values(dataset)
    q = dataset.grid.q(np.array(list(dataset.observations["miller_index"])))
    high = q > 0.1
    shift = -2 * np.log(found["decay"][high]) / q[high] ** 2 - decay[high]
    sweep = np.array(dataset.observations["id"])[high]
    assert shift.mean() == pytest.approx(-5, abs=0.3)  # the convention: none in the reference sweep
    assert np.sqrt(np.mean((shift + 5) ** 2)) < 0.3
    assert shift[sweep == 1].mean() - shift[sweep == 0].mean() == pytest.approx(0, abs=0.3)
    assert np.sqrt(np.mean((found["scale"] / b - 1) ** 2)) < 0.015

    for i, entry in enumerate(report["sweeps"]):
        phi, value, error = (np.array(entry["terms"]["decay"][name]) for name in ("phi", "value", "error"))
        deviation = (value + 5 - true_decay(np.array(i), phi)) / error
        assert 0.2 < np.sqrt(np.mean(deviation**2)) < 1.6

    dataset.write("scaled.expt", "scaled.refl")
    before = np.array(dataset.observations["inverse_scale_factor"])
    again = Dataset.from_files("scaled.expt", "scaled.refl")
    for old, new in zip(dataset.experiments, again.experiments):
        assert new.scaling_model.to_dict() == old.scaling_model.to_dict()
    apply_models(again)
    np.testing.assert_allclose(np.array(again.observations["inverse_scale_factor"]), before, rtol=1e-6)


def test_data_ask_for_the_decay(tmp_path, monkeypatch, plugin):
    plugin()
    monkeypatch.chdir(tmp_path)
    dataset, *_ = decaying(samples=24)
    dataset.write("corrected.expt", "corrected.refl")
    diffuse_scale.run(["corrected.expt", "corrected.refl", "nproc=1"])
    again = Dataset.from_files("scaled.expt", "scaled.refl")
    assert list(again.experiments[0].scaling_model.components)[:2] == ["scale", "decay"]
    assert "Decay" in (tmp_path / "dials.diffuse_scale.html").read_text()


def test_without_the_package(tmp_path, monkeypatch, plugin, capsys):
    """Our programs, and DIALS's, say what is missing."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as context:
        folder = plugin()
        context.syspath_prepend(folder)
        dataset, *_ = decaying(samples=12, n_frames=4)
        scale(dataset, parameters("scale", "scaling.terms=scale,decay", *PLAIN))
        dataset.write("scaled.expt", "scaled.refl")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    plugin.uninstall()
    message = r"There is no scaling term decay \(there are scale, .*\): install its package"
    with pytest.raises(SystemExit, match=f"scaled.expt cannot be used here. {message}"):
        diffuse_merge.run(["scaled.expt", "scaled.refl"])
    with pytest.raises(SystemExit, match=message):
        diffuse_scale.run(["scaled.expt", "scaled.refl", "scaling.terms=decay"])
    code = "import dials_diffuse; from dials.command_line.show import run; run(['scaled.expt'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "There is no scaling term decay" in done.stdout + done.stderr


TERM = """
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent1D
from dials_diffuse.algorithms.scaling.term import Term
class Mine(Term, SmoothScaleComponent1D):
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Mine = 3", "is not a Term"),
        (TERM + "    role = 'inner'", "has no `name` of letters"),
        (TERM + "    name, role = 'a b', 'inner'", "has no `name` of letters"),
        (TERM + "    name = 'mine'", "`role` is not outer, inner or offset"),
        (TERM + "    name, role = 'absorption', 'outer'", "there is a scaling term absorption already"),
        ("raise RuntimeError('no such library')", "cannot be loaded"),
    ],
    ids=["no term", "no name", "wrong name", "no role", "known name", "not loaded"],
)
def test_a_broken_plugin_stops_the_program(plugin, code, message):
    plugin(code, "mine = mine:Mine")
    with pytest.raises(Sorry, match=message):
        terms.scaling_terms()
    assert terms.term_class("scale") is terms.ScaleTerm  # what is built in needs none


def test_names(plugin):
    """b is in every model; a name that there is not stops the program."""
    dataset, *_ = decaying(samples=12, n_frames=4)
    report = scale(dataset, parameters("scale", "scaling.terms=offset,offset", *PLAIN))
    assert report["terms"]["chosen"] == ["scale", "offset"]
    with pytest.raises(Sorry, match="There is no scaling term decay"):
        scale(dataset, parameters("scale", "scaling.terms=decay", *PLAIN))


def two_panels(experiment) -> None:
    """The left and the right half of the detector as panels."""
    panel = experiment.detector[0]
    halves = Detector()
    for i in range(2):
        half = halves.add_panel(panel)
        origin = np.array(panel.get_origin()) + 30 * i * panel.get_pixel_size()[0] * np.array(panel.get_fast_axis())
        half.set_frame(panel.get_fast_axis(), panel.get_slow_axis(), tuple(origin))
        half.set_image_size((30, 60))
    experiment.detector = halves


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ((), [1.1, 0.9]),
        (("tile_size=30,20",), [1.1, 0.95, 1.0, 0.92, 1.04, 0.99]),
    ],
    ids=["panels", "tiles"],
)
def test_modules(options, factors):
    """Panels, or tiles of one panel: fast first, then slow."""
    dataset, truth = observation_data.make_dataset(4, samples=40)
    table = dataset.observations
    x, y, z = (np.array(part) for part in table["xyzobs.px.value"].parts())
    tile = (x >= 30).astype(int)
    if options:
        tile = (y // 20).astype(int) * 2 + tile
    else:
        for experiment in dataset.experiments:
            two_panels(experiment)
        table["panel"] = flex.size_t(tile)
        table["xyzobs.px.value"] = flex.vec3_double(*map(flex.double, (x - 30 * tile, y, z)))
    factors = np.array(factors)
    draw(dataset, np.array(table["response"]) * truth.b * truth.intensity * factors[tile])
    report = scale(dataset, parameters("scale", "scaling.terms=scale,modules", *PLAIN, *options))
    tiles = report["detector"]["tiles"]
    value, error = (np.array([tile[name] for tile in tiles]) for name in ("value", "error"))
    assert value.mean() == pytest.approx(1, abs=2e-3)  # over points of the detector, a few more here than there
    difference = value / value.mean() - factors / factors.mean()
    assert np.abs(difference).max() < 0.005
    assert np.abs(difference / error).max() < 4
    (first, second) = dataset.experiments
    assert list(first.scaling_model.components["modules"].parameters) == pytest.approx(value.tolist())
    assert list(second.scaling_model.components["modules"].parameters) == pytest.approx(value.tolist())
    np.testing.assert_allclose(term_values(dataset)["modules"], value[tile], rtol=1e-9)
