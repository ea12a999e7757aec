from __future__ import annotations

import numpy as np
import pytest

from dials_diffuse.algorithms.merging.correlations import Correlation, correlation


def poisson_voxels(rng, n: int, spread: float, counts: float, m: int = 8):
    """True and merged intensities of voxels of unlike exposure, each seen m times; and the halves of each."""
    truth = rng.gamma(1 / spread**2, spread**2, n) if spread else np.ones(n)
    exposure = counts / m * np.exp(rng.normal(0, 0.5, (n, 1)))
    observed = rng.poisson(exposure * truth[:, None] * np.ones(m)) / exposure
    merged = observed.mean(axis=1)
    variance = observed.var(axis=1, ddof=1) / m
    return truth, merged, variance, (observed[:, ::2].mean(axis=1), observed[:, 1::2].mean(axis=1))


def test_it_is_the_mean_correlation_of_halves_and_predicts_that_with_the_truth():
    rng = np.random.default_rng(0)
    for spread, counts in ((0.3, 2), (0.5, 10), (1, 0.3)):
        truth, merged, variance, halves = poisson_voxels(rng, 300_000, spread, counts)
        found = correlation(merged, variance)
        assert found.value == pytest.approx(np.corrcoef(*halves)[0, 1], abs=0.008)
        assert found.with_truth()[0] == pytest.approx(np.corrcoef(merged, truth)[0, 1], abs=0.01)
        assert found.voxels == 300_000


@pytest.mark.parametrize(
    "spread,counts,n", [(0.3, 1, 300), (0.5, 5, 300), (0.5, 5, 2000), (0.5, 100, 300), (1, 0.3, 300)]
)
def test_intervals_cover(spread, counts, n):
    """95 % intervals hold CC1/2 of all voxels, CC_true's that with the truth of the same voxels: 9 times in 10 or more.

    Fisher's 1 / sqrt(n - 3) alone, and the jackknife alone, would go down to 0.87 in these cases.
    """
    rng = np.random.default_rng(1)
    _, merged, variance, _ = poisson_voxels(rng, 1_000_000, spread, counts)
    wanted = correlation(merged, variance).value
    within, of_truth = [], []
    for _ in range(300):
        truth, merged, variance, _ = poisson_voxels(rng, n, spread, counts)
        found = correlation(merged, variance)
        within.append(found.low <= wanted <= found.high)
        _, low, high = found.with_truth()
        of_truth.append(low <= np.corrcoef(merged, truth)[0, 1] <= high)
    assert np.mean(within) > 0.9
    assert np.mean(of_truth) > 0.9


def test_chance_is_rare():
    rng = np.random.default_rng(2)
    probability = []
    for _ in range(400):
        _, merged, variance, _ = poisson_voxels(rng, 200, 0, 2)
        probability.append(correlation(merged, variance).probability)
    assert np.mean(np.array(probability) < 0.05) < 0.08
    assert 0.35 < np.mean(np.array(probability) < 0.5) < 0.65
    _, merged, variance, _ = poisson_voxels(rng, 2000, 0.5, 5)
    assert correlation(merged, variance).probability < 1e-6


def test_what_has_no_correlation():
    few = correlation(np.array([1.0, 2.0, np.nan, 3.0]), np.array([1.0, 1.0, 1.0, np.nan]))
    assert few.voxels == 2 and np.isnan([few.value, few.low, few.high, few.probability]).all()
    assert np.isnan(correlation(np.ones(5), np.ones(5)).value)
    exact = correlation(np.arange(5.0), np.zeros(5))
    assert exact.value == 1 and exact.low > 0.99
    assert Correlation(-0.1, -0.3, 0.2, 0.7, 10).with_truth() == (0, 0, pytest.approx(np.sqrt(0.4 / 1.2)))
