"""A third sweep put on the scale of the map that two others made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import observation_data
import pytest
from cctbx import uctbx
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from scalers import column, scale_counting

from dials_diffuse.algorithms.merging.merge import merge
from dials_diffuse.dataset import Dataset
from dials_diffuse.map_file import write_map
from dials_diffuse.parameters import parameters

pytestmark = pytest.mark.xdist_group("reference")  # what its tests share is made once


def sweeps_of(dataset, truth, numbers):
    """A data set of some of the sweeps, and b of its observations."""
    ids = column(dataset, "id")
    chosen = np.isin(ids, numbers)
    table = dataset.observations.select(flex.bool(chosen))
    for key in list(table.experiment_identifiers().keys()):
        del table.experiment_identifiers()[key]
    table["id"] = flex.int(np.searchsorted(numbers, ids[chosen]).astype(np.int32))
    experiments = ExperimentList([dataset.experiments[i] for i in numbers])
    for i, experiment in enumerate(experiments):
        table.experiment_identifiers()[i] = experiment.identifier
    return Dataset(experiments, table, dataset.grid), truth.b[chosen]


@pytest.fixture(scope="module")
def three_sweeps(tmp_path_factory):
    """Scaled together, and the map of the first two; the third 40 times as bright as it was."""
    dataset, truth = observation_data.make_dataset(1, sweeps=3, n_frames=60, samples=40, c=0.3)
    pair, b = sweeps_of(dataset, truth, [0, 1])
    scale_counting(pair, "scale,offset", "smoothness.offset=0.05")
    filename = tmp_path_factory.mktemp("reference") / "merged.nxs"
    merged = merge(pair, parameters("merge"))
    write_map(filename, merged.grid, merged.index, merged.map_columns(), wavelengths=merged.wavelengths)
    scale_counting(dataset, "scale,offset", "smoothness.offset=0.05")
    third, b = sweeps_of(dataset, truth, [2])
    return dataset, third, b, filename


def test_third_sweep_gets_the_scale_that_it_has_among_the_others(three_sweeps):
    dataset, third, b, filename = three_sweeps
    together = column(dataset, "inverse_scale_factor")[column(dataset, "id") == 2]
    offset = (column(dataset, "offset.sum.value") / column(dataset, "response"))[column(dataset, "id") == 2]
    report = scale_counting(third, "scale,offset", "smoothness.offset=0.05", f"reference={filename}")
    alone = column(third, "inverse_scale_factor")
    assert np.mean(alone / together) == pytest.approx(1, abs=0.04)  # b and c are told apart to a few percent only
    assert np.std(alone / together) < 0.04
    assert np.mean(alone / b) == pytest.approx(1, abs=0.05)
    assert report["cycles"][-1]["chi_squared"] == pytest.approx(1, abs=0.05)
    intensity = observation_data.Truth(b, b, 1.0)(np.array(list(third.observations["miller_index"]))).mean()
    found = column(third, "offset.sum.value") / column(third, "response")
    assert np.sqrt(np.mean((found - offset) ** 2)) < 0.1 * intensity  # the reference fixes c, too
    assert np.mean(found) == pytest.approx(np.mean(offset), abs=0.05 * intensity)


def test_without_offset_the_scale_is_the_same_to_less_than_a_percent(tmp_path):
    dataset, truth = observation_data.make_dataset(1, sweeps=3, n_frames=40, samples=40)
    pair, _ = sweeps_of(dataset, truth, [0, 1])
    scale_counting(pair, "scale")
    merged = merge(pair, parameters("merge"))
    write_map(tmp_path / "merged.nxs", merged.grid, merged.index, merged.map_columns(), wavelengths=merged.wavelengths)
    scale_counting(dataset, "scale")
    third, b = sweeps_of(dataset, truth, [2])
    scale_counting(third, "scale", f"reference={tmp_path / 'merged.nxs'}")
    ratio = column(third, "inverse_scale_factor") / column(dataset, "inverse_scale_factor")[column(dataset, "id") == 2]
    assert ratio.mean() == pytest.approx(1, abs=0.006)
    assert ratio.std() < 0.006


def test_brightness_is_relative_to_the_map(three_sweeps):
    _, third, _, filename = three_sweeps
    bright = Dataset(third.experiments, third.observations.copy(), third.grid)
    scale_counting(bright, "scale", f"reference={filename}")
    before = column(bright, "inverse_scale_factor")
    bright.observations["response"] = third.observations["response"] / 40
    scale_counting(bright, "scale", f"reference={filename}")
    np.testing.assert_allclose(column(bright, "inverse_scale_factor"), 40 * before, rtol=2e-3)


def test_map_of_other_voxels(three_sweeps):
    _, third, _, filename = three_sweeps
    other = Dataset(third.experiments, third.observations, replace(third.grid, ndiv=(4, 4, 4)))
    with pytest.raises(Sorry, match="ndiv=2,2,2"):
        scale_counting(other, "scale", f"reference={filename}")


def test_map_of_another_crystal(three_sweeps):
    _, third, _, filename = three_sweeps
    cell = uctbx.unit_cell((21, 21, 28, 90, 90, 90))
    other = Dataset(third.experiments, third.observations, replace(third.grid, unit_cell=cell))
    with pytest.raises(Sorry, match="has the unit cell"):
        scale_counting(other, "scale", f"reference={filename}")


def test_map_without_common_voxels(three_sweeps, tmp_path):
    """A map of the few voxels that the sweep has not seen."""
    dataset, third, _, _ = three_sweeps
    seen = dataset.grid.index2key(dataset.grid.map_to_asu(np.array(list(third.observations["miller_index"]))))
    pair = Dataset(dataset.experiments, dataset.observations.copy(), dataset.grid)
    merged = merge(pair, parameters("merge"))
    unseen = ~np.isin(dataset.grid.index2key(merged.index), seen)
    assert unseen.any()
    columns = {name: values[unseen] for name, values in merged.map_columns().items()}
    write_map(tmp_path / "other.nxs", merged.grid, merged.index[unseen], columns, wavelengths=merged.wavelengths)
    with pytest.raises(Sorry, match="no voxel in common"):
        scale_counting(third, "scale", f"reference={tmp_path / 'other.nxs'}")
