from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import observation_data
import pytest

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions, repeated
from dials_diffuse.algorithms.scaling.residuals import residual_report


@pytest.fixture(scope="module")
def data():
    dataset, truth = observation_data.make_dataset(1, pixels=100)
    found = GroupedObservations.from_dataset(dataset)
    return found.scaled(truth.b[found.rows], np.zeros(len(found)), ErrorModel()), dataset


def report(observations: GroupedObservations, dataset) -> dict:
    partitions = VoxelPartitions.of(observations).viewed(repeated)
    return json.loads(json.dumps(residual_report(partitions, dataset.grid, dataset.experiments)))


def test_right_model_and_errors(data):
    """Deviates have the mean 0 and chi-squared 1, everywhere; nothing is lost."""
    observations, dataset = data
    found = report(observations, dataset)
    n = len(observations.repeated())
    (panel,) = found["detector"]["panels"]
    for values in (panel, found["q"]):
        assert np.sum(values["observations"]) == n
    assert sum(np.sum(sweep["observations"]) for sweep in found["phi"]) == n
    for values in (panel, *found["phi"], found["q"]):
        many = np.array(values["observations"]) > 300
        assert np.abs(np.array(values["mean"], dtype=float)[many]).max() < 0.3
        np.testing.assert_allclose(np.array(values["chi_squared"], dtype=float)[many], 1, atol=0.4)
    assert np.all(np.diff(found["q"]["q"]) > 0)


def test_faults_are_where_they_are(data):
    """A square of the detector that sees 20 % less, and frames that see 20 % more."""
    observations, dataset = data
    x, y, z = observations.position.T
    square, frames = (x >= 15) & (x < 24) & (y >= 36) & (y < 45), (observations.experiment == 1) & (z >= 45) & (z < 54)
    factor = np.where(square, 0.8, 1) * np.where(frames, 1.2, 1)
    found = report(replace(observations, signal=observations.signal * factor), dataset)
    (panel,) = found["detector"]["panels"]
    fast, slow = (np.array(panel[axis][:-1]) for axis in ("fast", "slow"))
    mean = np.array(panel["mean"], dtype=float)
    assert np.nanmax(mean[np.ix_((slow >= 36) & (slow < 43), (fast >= 15) & (fast < 22))]) < -0.8
    assert np.nanmean(mean[slow < 33]) > -0.1 and np.nanmean(mean[slow > 45]) > -0.1
    first, second = (np.array(sweep["mean"], dtype=float) for sweep in found["phi"])
    assert second[20:24].min() > 1 and np.abs(first).max() < 0.5
    assert np.argmax(found["phi"][1]["chi_squared"]) in range(20, 24)


def test_partitions_make_no_difference(data, monkeypatch):
    monkeypatch.setattr("dials_diffuse.algorithms.scaling.partitions.IN_MEMORY", 10**9)
    one = report(*data)
    monkeypatch.setattr("dials_diffuse.algorithms.scaling.partitions.IN_MEMORY", 300)
    assert report(*data) == one


def test_no_voxel_twice(data):
    observations, dataset = data
    first = np.zeros(len(observations), dtype=bool)
    first[observations.first[:-1]] = True
    assert report(observations.select(first), dataset) == {}


def test_stills_do_not_rotate():
    dataset, truth = observation_data.make_stills(1, stills=20)
    found = GroupedObservations.from_dataset(dataset)
    found = report(found.scaled(truth.b[found.rows], np.zeros(len(found)), ErrorModel()), dataset)
    assert found["phi"] == []
    assert np.sum(found["detector"]["panels"][0]["observations"]) == np.sum(found["q"]["observations"]) > 1000
