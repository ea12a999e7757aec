from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import observation_data
import pytest

from dials_diffuse.algorithms.scaling.bad_frames import find_bad_frames, in_ranges
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions
from dials_diffuse.phil_scope.outliers import phil_scope

PARAMS = phil_scope.extract().bad_frames


def find(observations, grid, experiments):
    return find_bad_frames(VoxelPartitions.of(observations), grid, experiments, PARAMS)


def make(level: float, pixels: float, fault=lambda observations: 1.0, seed: int = 1, first_image: int = 1):
    """Scaled observations of which the signal is changed by a factor, their grid and experiments."""
    dataset, truth = observation_data.make_dataset(level, pixels=pixels, seed=seed)
    for experiment in dataset.experiments:
        scan = experiment.scan
        scan.set_image_range((first_image, first_image + scan.get_num_images() - 1))
    found = GroupedObservations.from_dataset(dataset)
    found = found.scaled(truth.b[found.rows], np.zeros(len(found.rows)), ErrorModel())
    found.position[:, 2] += first_image - 1
    signal, background = found.response * truth.intensity[found.rows], found.noise
    counts = np.random.default_rng(seed + 50).poisson(signal * fault(found) + background)
    return replace(found, signal=counts - background), dataset.grid, dataset.experiments


def frames(observations, sweep, first, last):
    """Observations on the images first to last of a sweep."""
    z = observations.position[:, 2]
    return (observations.experiment == sweep) & (z >= first - 1) & (z < last)


def shadow(observations):
    """Half the signal on the left third of the detector, on images 41 to 46 of sweep 0."""
    return np.where(frames(observations, 0, 41, 46) & (observations.position[:, 0] < 20), 0.5, 1)


@pytest.mark.parametrize("level, pixels", [(1, 40), (0.05, 40), (0.05, 5)])
def test_no_false_alarms(level, pixels):
    for seed in (1, 2, 3):
        assert find(*make(level, pixels, seed=seed)) == []


@pytest.mark.parametrize("level, slack", [(1, 1), (0.05, 2)])
def test_shadow(level, slack, caplog):
    observations, grid, experiments = make(level, 40, shadow)
    with caplog.at_level(logging.WARNING, "dials.diffuse"):
        (found,) = find(observations, grid, experiments)
    assert found.experiment == 0 and found.reason == "low"
    assert abs(found.first - 41) <= slack and abs(found.last - 46) <= slack
    assert found.ratio == pytest.approx(0.5, abs=0.12)
    assert found.where.startswith("panel 0, x 0-")
    assert found.exclude_images == f"0:{found.first}:{found.last}"
    assert f"exclude_images={found.exclude_images}" in caplog.text
    chosen = in_ranges(observations, [found])
    assert chosen[frames(observations, 0, 42, 45)].all() and not chosen[observations.experiment == 1].any()


@pytest.mark.parametrize("level", [1, 0.05])
def test_dip_between_the_knots(level):
    """The whole detector at 70 % for two of 90 frames; the images are numbered from 31."""
    found = find(*make(level, 40, lambda o: np.where(frames(o, 1, 91, 92), 0.7, 1), first_image=31))
    (found,) = found
    assert found.experiment == 1 and found.reason == "low" and found.where == "whole detector"
    assert 91 <= found.first <= found.last <= 92
    assert found.ratio == pytest.approx(0.7, abs=0.06)


def test_two_faults():
    def fault(o):
        return shadow(o) * np.where(frames(o, 1, 11, 14), 1.4, 1)

    low, high = find(*make(1, 40, fault))
    assert (low.experiment, low.reason) == (0, "low")
    assert (high.experiment, high.first, high.last, high.reason) == (1, 11, 14, "high")


def test_scatter():
    """Frames right on the average, but not in any observation."""

    def fault(o):
        factor = np.random.default_rng(3).gamma(4, 0.25, len(o.rows))
        return np.where(frames(o, 0, 21, 24), factor, 1)

    (found,) = find(*make(1, 40, fault))
    assert found.reason == "scatter" and found.chi_squared > 2
    assert (found.first, found.last) == (21, 24)


def test_small_misfits_everywhere_are_no_fault_of_frames():
    """Scales that are 3 % wrong from frame to frame, at many photons: significant, but nothing stands out."""

    def fault(o):
        return np.random.default_rng(4).normal(1, 0.03, 200)[(o.position[:, 2] + 90 * o.experiment).astype(int)]

    assert find(*make(10, 40, fault)) == []


def test_ten_frames_that_all_fit_badly():
    """As a model that lacks a term leaves them: not the fault of any frame."""

    def fault(o):
        return np.random.default_rng(3).gamma(2, 0.5, len(o.rows))

    observations, grid, experiments = make(1, 40, fault)
    few = observations.select(frames(observations, 0, 1, 10))
    experiments[0].scan, experiments[1].scan = experiments[0].scan[0:10], experiments[1].scan[0:10]
    assert find(few, grid, experiments) == []


def test_stills():
    """One of 60 stills scatters: its number is told."""
    dataset, truth = observation_data.make_stills(1, stills=60)
    found = GroupedObservations.from_dataset(dataset)
    found = found.scaled(truth.b[found.rows], np.zeros(len(found.rows)), ErrorModel())
    assert find(found, dataset.grid, dataset.experiments) == []
    factor = np.where(found.experiment == 17, np.random.default_rng(1).uniform(0, 2, len(found.rows)), 1)
    (bad,) = find(replace(found, signal=found.signal * factor), dataset.grid, dataset.experiments)
    assert (bad.experiment, bad.first, bad.last) == (17, 1, 1)


def test_partitions_make_no_difference(monkeypatch):
    def fault(o):
        return shadow(o) * np.where(frames(o, 1, 11, 14), 1.4, 1)

    made = make(1, 40, fault)
    one = find(*made)
    monkeypatch.setattr("dials_diffuse.algorithms.scaling.partitions.IN_MEMORY", 300)
    many = find(*made)
    assert len(one) == len(many) == 2
    for a, b in zip(one, many):
        for name, value in vars(a).items():
            assert getattr(b, name) == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


def test_no_observations():
    observations, grid, experiments = make(1, 40)
    nothing = VoxelPartitions.of(observations.select(np.arange(len(observations)) < 5)).viewed(_nothing)
    assert find_bad_frames(nothing, grid, experiments, PARAMS) == []


def _nothing(partition, observations):
    return observations.select(np.zeros(len(observations), dtype=bool))
