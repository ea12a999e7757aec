"""Integrals of peaks from photons of simulated images: the simulator knows nothing of Lorentz factors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from absolute_session import absolute_session  # noqa: F401  a fixture
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from scitbx import matrix

from dials_diffuse.algorithms.absolute.bragg_intensities import bragg_intensities
from dials_diffuse.algorithms.absolute.bragg_outliers import group_medians
from dials_diffuse.algorithms.masking.mask_file import read_mask, write_mask
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.dataset import Dataset
from dials_diffuse.parameters import parameters

pytestmark = pytest.mark.xdist_group("bragg_intensities")  # what its tests share is made once


@pytest.fixture
def data(absolute_session):  # noqa: F811
    """Scaled data, integrated experiments and reflections."""
    return (
        Dataset.from_files(absolute_session / "scaled.expt", absolute_session / "scaled.refl"),
        ExperimentList.from_file(str(absolute_session / "integrated.expt"), False),
        flex.reflection_table.from_file(str(absolute_session / "integrated.refl")),
    )


@pytest.fixture(scope="module")
def truth(absolute_session):  # noqa: F811
    return Truth.from_file(absolute_session / "truth.json")


def find(data):
    return bragg_intensities(*data, parameters("correct").correction)


def ratio(found, truth, grid):
    """Found over true sums of reflections to 2 A."""
    model = truth._bragg
    true = {tuple(h): j for h, j in zip(model.hkl.tolist(), model.intensity)}
    strong = grid.q(found.index * np.array(grid.ndiv)) < 0.5
    return found.integral[strong].sum() / sum(true[tuple(h)] for h in found.index[strong].tolist())


def test_integrals_are_those_of_the_simulation(data, truth):
    found = find(data)
    assert len(found.index) > 1500
    assert ratio(found, truth, data[0].grid) == pytest.approx(1, abs=0.02)
    strong = found.multiplicity > 1
    true = {tuple(h): j for h, j in zip(truth._bragg.hkl.tolist(), truth._bragg.intensity)}
    wanted = np.array([true[tuple(h)] for h in found.index.tolist()])
    assert np.corrcoef(found.integral[strong], wanted[strong])[0, 1] > 0.999
    table = found.as_reflections(data[0].grid, 1 / truth.scales["diffuse"])
    squares = np.array(table["intensity.scale.value"])
    calculated = wanted / truth.scales["diffuse"] * truth.cell.volume()
    assert np.sum(squares[strong]) == pytest.approx(np.sum(calculated[strong]), rel=0.02)
    np.testing.assert_allclose(table["d"], 1 / data[0].grid.q(found.index * np.array(data[0].grid.ndiv)))


def test_another_setting_of_the_same_crystal(data, truth):
    """a, b, c permuted, with other identifiers: told by the images and the setting matrix."""
    dataset, experiments, reflections = data
    expected = find(data)
    for experiment in experiments:
        experiment.identifier = "another"
        permuted = matrix.sqr(experiment.crystal.get_A()) * matrix.sqr((0, 0, 1, 1, 0, 0, 0, 1, 0))
        experiment.crystal.set_A(permuted.elems)
    h, k, l = (part.iround() for part in reflections["miller_index"].as_vec3_double().parts())
    reflections["miller_index"] = flex.miller_index(k, l, h)
    found = find((dataset, experiments, reflections))
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_allclose(found.integral, expected.integral)


def test_crystal_in_another_orientation(data):
    dataset, experiments, reflections = data
    turn = matrix.col((0, 1, 0)).axis_and_angle_as_r3_rotation_matrix(3, deg=True)
    experiments[0].crystal.set_A((turn * matrix.sqr(experiments[0].crystal.get_A())).elems)
    with pytest.raises(Sorry, match="oriented otherwise"):
        find((dataset, experiments, reflections))


def test_outliers(data, truth):
    """Photons of something else in one of 20 reflections."""
    dataset, experiments, reflections = data
    clean = find(data)
    counts = np.array(reflections["intensity.sum.value"])
    counts[np.random.RandomState(0).uniform(size=len(counts)) < 0.05] += 1000 * counts.mean()
    reflections["intensity.sum.value"] = flex.double(counts)
    found = find((dataset, experiments, reflections))
    assert ratio(found, truth, dataset.grid) == pytest.approx(ratio(clean, truth, dataset.grid), abs=0.01)


def test_pixels_that_the_diffuse_data_mask(data, absolute_session, tmp_path):  # noqa: F811
    """Reflections with such pixels in their boxes are left out, and no others."""
    dataset, experiments, reflections = data
    experiment = dataset.experiments[0]
    (good,) = read_mask(absolute_session / "extracted.mask", experiment.detector)
    good = good.copy()
    good[:, 100:120] = False
    write_mask((good,), tmp_path / "more.mask")
    lookup = experiment.imageset.external_lookup
    assert Path(lookup.mask.filename).name == "extracted.mask"
    before = find(data).multiplicity.sum()
    x0, x1 = (np.array(part) for part in reflections["bbox"].parts()[:2])
    lookup.mask.filename = str(tmp_path / "more.mask")
    gone = np.sum((x1 > 100) & (x0 < 120))
    assert gone > 200
    assert before - find(data).multiplicity.sum() == pytest.approx(gone, rel=0.1)  # some were gone before


def test_profiles_where_peaks_are_weak(data, truth):
    """A background that is a little wrong spoils sums of weak peaks: fits take their place there, and not elsewhere."""
    dataset, experiments, reflections = data
    good = np.array(reflections["intensity.sum.value"])
    reflections["intensity.prf.value"] = flex.double(good)
    reflections["intensity.prf.variance"] = reflections["intensity.sum.variance"]
    reflections.set_flags(flex.bool(len(good), True), reflections.flags.integrated_prf)
    expected = find((dataset, experiments, reflections))
    d = 1 / np.linalg.norm(np.array(reflections["s1"]) - np.array(experiments[0].beam.get_s0()), axis=1)
    reflections["intensity.sum.value"] = flex.double(np.where(d < 1.6, good + 300, good))
    reflections["intensity.prf.value"] = flex.double(np.where(d > 3, 3 * good, good))
    found = find((dataset, experiments, reflections))
    assert ratio(found, truth, dataset.grid) == pytest.approx(ratio(expected, truth, dataset.grid), abs=0.02)
    far = dataset.grid.q(expected.index * np.array(dataset.grid.ndiv)) > 0.63
    far_found = dataset.grid.q(found.index * np.array(dataset.grid.ndiv)) > 0.63
    assert found.integral[far_found].mean() == pytest.approx(expected.integral[far].mean(), rel=0.1)


def test_nothing_of_use(data):
    dataset, experiments, reflections = data
    reflections["partiality"] = flex.double(len(reflections), 0.5)
    with pytest.raises(Sorry, match="No Bragg reflection was integrated in whole"):
        find((dataset, experiments, reflections))
    del reflections["partiality"]
    with pytest.raises(Sorry, match="no column partiality"):
        find((dataset, experiments, reflections))


def test_stills(data):
    dataset, experiments, reflections = data
    for experiment in dataset.experiments:
        experiment.scan.set_oscillation((0, 0))
    with pytest.raises(Sorry, match="stills"):
        find((dataset, experiments, reflections))


def test_medians():
    group = np.array([2, 0, 0, 2, 0, 2, 2])
    values = np.array([5.0, 3, 9, 1, 4, 2, 8])
    np.testing.assert_array_equal(group_medians(group, values, 4), [4, np.nan, 2, np.nan])
