from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import observation_data
import pytest
from scipy.stats import nbinom, norm, poisson

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.outliers import REASON, REASONS, find_outliers, outlier_maps
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions
from dials_diffuse.algorithms.scaling.tails import equivalent_deviate, root_deviate
from dials_diffuse.phil_scope.outliers import phil_scope

PARAMS = phil_scope.extract().outlier


class Data:
    """Observations with their true scales, and what was expected of each; ``put`` changes the counts."""

    def __init__(self, level: float, pixels: float, seed: int = 1, **options):
        self.dataset, self.truth = observation_data.make_dataset(level, pixels=pixels, seed=seed, **options)
        unscaled = GroupedObservations.from_dataset(self.dataset)
        rows = unscaled.rows
        self.observations = unscaled.scaled(self.truth.b[rows], np.zeros(len(rows)), ErrorModel())
        self.background = np.array(self.dataset.observations["background.sum.value"])[rows]
        self.expected = self.observations.response * self.truth.intensity[rows] + self.background
        self.counts = self.observations.signal + self.background
        self.rng = np.random.default_rng(seed + 1000)

    @property
    def n(self) -> int:
        return len(self.counts)

    def put(self, counts: np.ndarray) -> GroupedObservations:
        return replace(self.observations, signal=counts - self.background)

    def find(self, counts: np.ndarray) -> np.ndarray:
        """The codes of outliers, shape (n,)."""
        return self.search(counts)[0]

    def search(self, counts: np.ndarray) -> tuple[np.ndarray, dict[str, int], VoxelPartitions]:
        """The codes of outliers, shape (n,), how many they are by reason, and the observations."""
        partitions = VoxelPartitions.of(self.put(counts))
        found = find_outliers(partitions, self.dataset.grid, PARAMS)
        assert found.observations == self.n
        return np.concatenate([each.get(REASON) for each in partitions.partitions]), found.counts, partitions

    def quality(self, counts: np.ndarray, kept: np.ndarray, least: int = 4) -> tuple[float, float]:
        """Chi-squared of the map against the truth, of voxels seen ``least`` times, and its mean over the true one."""
        chosen = self.put(counts).select(kept)
        merged, true = merge_voxels(chosen, self.dataset.grid.q(chosen.voxels)), self.truth(chosen.voxels)
        often = chosen.multiplicity >= least
        response = chosen.sum(chosen.response)
        chi_squared = np.mean((merged.intensity - true)[often] ** 2 / merged.variance[often])
        return chi_squared, (response @ merged.intensity) / (response @ true)


def spoil(data: Data, kind: str, part: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Counts of which a part, also returned, are outliers."""
    bad = data.rng.random(data.n) < part
    mu, sigma = data.expected, np.sqrt(data.expected)
    sign = data.rng.choice([-1, 1], data.n)
    changed = {
        "x3": data.rng.poisson(3 * mu),
        "x0.3": data.rng.poisson(0.3 * mu),
        "8 sigma": np.maximum(np.round(data.counts + 8 * sign * sigma), 0),
        "factor 3 or 0.3": data.rng.poisson(np.where(sign > 0, 3, 0.3) * mu),
        "zinger": data.counts + np.round(10 ** data.rng.uniform(3, 5, data.n)),
    }[kind]
    return np.where(bad, changed, data.counts), bad


def test_deviates_have_the_exact_probabilities():
    for mean in (0.05, 0.5, 7.0, 300.0):
        n = np.arange(0.0, 2 * mean + 12)
        mu = np.full(len(n), mean)
        found = equivalent_deviate(n, mu, mu, np.zeros(len(n)))
        more, fewer = poisson.sf(n - 1, mean), poisson.cdf(n, mean)
        wanted = np.where(more < fewer, np.maximum(norm.isf(more), 0), np.minimum(norm.ppf(fewer), 0))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        extra = (0.4 * mean) ** 2
        size = mean**2 / extra
        found = equivalent_deviate(n, mu, mu, np.full(len(n), extra))
        more, fewer = (f(k, size, size / (size + mean)) for f, k in ((nbinom.sf, n - 1), (nbinom.cdf, n)))
        wanted = np.where(more < fewer, np.maximum(norm.isf(more), 0), np.minimum(norm.ppf(fewer), 0))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    # The scale of an overdispersed count is its unit: 4 times the photons with 16 times the variance are as odd.
    n, mu = np.array([3.0, 20.0]), np.array([10.0, 10.0])
    one, zero = equivalent_deviate(n, mu, mu, 0 * mu), 0 * mu
    np.testing.assert_allclose(equivalent_deviate(4 * n, 4 * mu, 16 * mu, zero), one)


def test_square_roots_are_near():
    n, mean = np.arange(0.0, 120), np.full(120, 40.0)
    exact = equivalent_deviate(n, mean, mean, np.zeros(120))
    near = np.abs(exact) < 5
    np.testing.assert_allclose(root_deviate(n, mean, mean)[near], exact[near], rtol=0.1, atol=0.15)


@pytest.mark.parametrize("level, pixels", [(1, 40), (0.05, 40), (0.05, 14), (0.05, 2)])
def test_clean_data_stay(level, pixels):
    """At 29, 1.4, 0.5 and 0.07 photons an observation: hardly any is rejected, and the mean stays."""
    rejected, shift, n = 0, [], 0
    for seed in (1, 2):
        data = Data(level, pixels, seed)
        kept = data.find(data.counts) == 0
        rejected, n = rejected + np.sum(~kept), n + data.n
        shift.append(data.quality(data.counts, kept)[1] - data.quality(data.counts, np.ones(data.n, dtype=bool))[1])
    assert rejected < 1e-5 * n + 1
    assert np.abs(np.mean(shift)) < 1e-4


@pytest.mark.parametrize("kind", ["x3", "x0.3", "8 sigma", "factor 3 or 0.3", "zinger"])
def test_map_is_not_worse_for_outliers(kind):
    """5 %; at 290 photons an observation all of them are clear."""
    data = Data(1, 400)
    counts, bad = spoil(data, kind)
    kept = data.find(counts) == 0
    without, mean_without = data.quality(counts, ~bad)
    chi_squared, mean = data.quality(counts, kept)
    assert data.quality(counts, np.ones(data.n, dtype=bool))[0] > 4
    assert chi_squared < without + 0.03
    assert mean == pytest.approx(mean_without, abs=0.002)
    assert np.mean(kept[bad]) < 0.02
    assert np.mean(~kept[~bad]) < 1e-4


def test_weak_outliers():
    """At 29 photons an observation a third of the signal is only 4 sigma away: what they do is contained."""
    data = Data(1, 40)
    counts, bad = spoil(data, "factor 3 or 0.3")
    kept = data.find(counts) == 0
    chi_squared, mean = data.quality(counts, kept)
    without, mean_without = data.quality(counts, ~bad)
    assert data.quality(counts, np.ones(data.n, dtype=bool))[0] > without + 3
    assert chi_squared < without + 0.15
    assert mean == pytest.approx(mean_without, abs=0.003)
    deviation = np.abs(counts - data.expected) / np.sqrt(data.expected)
    assert np.mean(deviation[bad & kept] < 5) > 0.95


def test_zingers_at_low_counts():
    data = Data(0.05, 14)
    counts, bad = spoil(data, "zinger")
    reason, found, _ = data.search(counts)
    assert reason[bad].all()
    assert found["high"] + found["voxel"] == bad.sum()
    chi_squared, mean = data.quality(counts, reason == 0)
    without, mean_without = data.quality(counts, ~bad)
    assert chi_squared < without + 0.03
    assert mean == pytest.approx(mean_without, abs=0.002)


def test_wrong_one_of_a_pair_is_found():
    data = Data(1, 200, sweeps=1, n_frames=6)
    first = data.observations.first[:-1][data.observations.multiplicity == 2]
    assert len(first) > 100
    wrong = first + data.rng.integers(0, 2, len(first))
    few = wrong[::20]
    counts = data.counts.copy()
    counts[few] = 6 * data.expected[few]
    reason = data.find(counts)
    assert np.mean(reason[few] == REASONS.index("high")) > 0.9
    assert np.sum(reason > 0) <= len(few)


def test_errors_stated_too_small_make_no_outliers():
    """Twice the scatter that counting has: nobody is worse than the others."""
    data = Data(1, 200)
    counts = np.maximum(data.counts + data.rng.normal(0, np.sqrt(3 * data.expected)), 0)
    assert np.mean(data.find(counts) > 0) < 5e-4
    data.observations.error_model = ErrorModel(a=2.0)
    assert np.mean(data.find(counts) > 0) < 1e-5


def test_halos_are_signal_and_unpredicted_peaks_are_not():
    """Bragg points have halos of all strengths, up to 30 times what is about them; 25 other voxels are Bragg peaks."""
    data = Data(1, 100)
    voxels = data.observations.voxels
    halo = np.where((voxels % 2 == 0).all(axis=1), 1 + 3 * data.rng.lognormal(0, 0.8, len(voxels)), 1)
    often = np.flatnonzero((halo == 1) & (data.observations.multiplicity > 3))
    peaks = data.rng.choice(often, 25, replace=False)
    factor = halo.copy()
    factor[peaks] = 20
    factor = data.observations.spread(factor)
    counts = data.rng.poisson((data.expected - data.background) * factor + data.background).astype(float)
    reason, found, _ = data.search(counts)
    of_voxel = data.observations.sum((reason != 0).astype(float)) / data.observations.multiplicity
    assert (of_voxel[peaks] == 1).mean() > 0.9
    assert np.mean(of_voxel[halo > 1]) < 1e-3
    others = np.delete(of_voxel, peaks)
    assert np.mean(others) < 1e-3
    assert found["voxel"] > 25


def test_reference_of_rejected_by_reason_and_place():
    data = Data(1, 100, n_frames=30)
    counts = data.counts.copy()
    x, y = data.observations.position[:, :2].T
    some = data.rng.random(data.n) < 0.3
    high, low = some & (x > 10) & (x < 20) & (y > 20) & (y < 30), some & (x > 40) & (y > 30) & (y < 40)
    counts[high] = 4 * data.expected[high]
    counts[low] = np.round(0.1 * data.expected[low])
    _, found, partitions = data.search(counts)
    (entry,) = json.loads(json.dumps(outlier_maps(partitions, data.dataset.experiments[0].detector)))
    maps = {name: np.array(entry[name]) for name in ("observations", *REASONS[1:])}
    assert maps["observations"].sum() == data.n
    assert {name: maps[name].sum() for name in REASONS[1:]} == found
    x, y = (np.array(entry[axis][:-1]) for axis in "xy")
    assert maps["high"][np.ix_((y > 18) & (y < 30), (x > 8) & (x < 20))].sum() > 0.95 * maps["high"].sum() > 0
    assert maps["low"][np.ix_((y > 28) & (y < 40), x > 38)].sum() > 0.95 * maps["low"].sum() > 0


def test_one_frame_of_few_photons():
    """Nothing but singles, and hardly a photon."""
    data = Data(0.001, 1, sweeps=1, n_frames=1)
    assert not data.find(data.counts).any()


def test_partitions_make_no_difference(monkeypatch):
    data = Data(1, 40)
    counts, _ = spoil(data, "factor 3 or 0.3")
    monkeypatch.setattr("dials_diffuse.algorithms.scaling.partitions.IN_MEMORY", 10**9)
    one, found, whole = data.search(counts)
    monkeypatch.setattr("dials_diffuse.algorithms.scaling.partitions.IN_MEMORY", 300)
    many, found_by_many, partitions = data.search(counts)
    assert len(whole.partitions) == 1 and len(partitions.partitions) > 50
    assert np.count_nonzero(one) > 1000
    np.testing.assert_array_equal(many, one)
    assert found_by_many == found
    detector = data.dataset.experiments[0].detector
    assert outlier_maps(partitions, detector) == outlier_maps(whole, detector)
    assert all(set(partition.kept) == {REASON} for partition in partitions.partitions)


class Twice(VoxelPartitions):
    """Whose workers do everything twice."""

    def map(self, function, description=""):
        return super().map(partial(twice, function), description)


def twice(function, partition, observations):
    function(partition, observations)
    return function(partition, observations)


def test_what_a_lost_worker_did_is_done_again():
    data = Data(1, 40, n_frames=40)
    counts, _ = spoil(data, "factor 3 or 0.3")
    reason, _, partitions = data.search(counts)
    again = Twice(partitions.partitions, 1)
    find_outliers(again, data.dataset.grid, PARAMS)
    assert np.count_nonzero(reason) > 100
    np.testing.assert_array_equal(np.concatenate([each.get(REASON) for each in again.partitions]), reason)


def test_nothing_was_looked_for():
    data = Data(1, 40, n_frames=4)
    partitions = VoxelPartitions.of(data.observations)
    (entry,) = outlier_maps(partitions, data.dataset.experiments[0].detector)
    assert np.sum(entry["observations"]) == data.n and not np.any(entry["high"])


def test_no_photons():
    data = Data(1, 40, n_frames=4)
    reason, found, _ = data.search(np.zeros(data.n))
    assert not reason.any() and found == dict.fromkeys(REASONS[1:], 0)
