from __future__ import annotations

import numpy as np
import pytest

from dials_diffuse.algorithms.scaling.expectation import between_voxel_variance, merge_part, merge_voxels, radial_bins
from dials_diffuse.algorithms.scaling.observations import GroupedObservations


def simulate(level, pixels, background, spread, multiplicity=6, voxels=60_000, seed=0):
    """Poisson counts in voxels with Gamma-distributed intensities about a mean that falls off with |q|."""
    rng = np.random.default_rng(seed)
    q = rng.random(voxels) ** (1 / 3) * 0.5
    mean = level * np.exp(-6 * q**2)
    intensity = rng.gamma(1 / spread**2, mean * spread**2)
    n = np.maximum(rng.poisson(multiplicity, voxels), 1)
    total = n.sum()
    response = pixels * rng.uniform(0.1, 1.9, total) * rng.uniform(0.5, 1.5, total)
    expected_background = background * response * level * rng.gamma(1, 1, total)
    counts = rng.poisson(response * np.repeat(intensity, n) + expected_background)
    observations = GroupedObservations(
        rows=np.arange(total),
        signal=counts - expected_background,
        response=response,
        noise=expected_background,
        experiment=np.zeros(total, dtype=np.int32),
        panel=np.zeros(total, dtype=np.int32),
        position=np.zeros((total, 3), dtype=np.float32),
        voxels=np.zeros((voxels, 3), dtype=np.int32),
        first=np.concatenate([[0], np.cumsum(n)]),
    )
    return observations, q, intensity, counts


@pytest.mark.parametrize("background", [0, 0.5, 5])
@pytest.mark.parametrize(
    "level,pixels,limits", [(1, 100, (0.97, 1.03)), (0.05, 300, (0.95, 1.05)), (0.05, 40, (0.92, 1.08))]
)
def test_the_map_is_unbiased_and_its_errors_are_true(level, pixels, limits, background):
    observations, q, intensity, _ = simulate(level, pixels, background, 0.6)
    merged = merge_voxels(observations, q)
    error = merged.intensity - intensity
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))
    assert abs(error.mean()) < 0.01 * intensity.mean()
    chi_squared = error**2 / merged.variance
    assert limits[0] < chi_squared.mean() < limits[1]
    for low, high in zip(np.arange(0.2, 0.5, 0.1), np.arange(0.3, 0.6, 0.1)):
        assert chi_squared[(q > low) & (q <= high)].mean() == pytest.approx(1, abs=0.11)
    bright = intensity > 1.5 * np.interp(q, merged.prior.q, merged.prior.mean)
    assert error[bright].mean() == pytest.approx(0, abs=0.02 * intensity[bright].mean())


def test_inverse_observed_counts_would_not_do():
    """What the expected weights are for: weights from the observed counts lose a sixth of the intensity here."""
    observations, q, intensity, counts = simulate(0.05, 60, 0, 0.6)
    u = observations.response
    weight = 1 / np.maximum(counts, 1)
    naive = observations.sum(weight * u * counts) / observations.sum(weight * u**2)
    assert naive.mean() < 0.85 * intensity.mean()
    assert merge_voxels(observations, q).intensity.mean() == pytest.approx(intensity.mean(), rel=0.01)


def test_without_background_it_is_the_gamma_poisson_model():
    observations, q, _, counts = simulate(0.05, 60, 0, 0.6, voxels=5000)
    merged = merge_voxels(observations, q)
    exposure, photons = observations.sum(observations.response), observations.sum(counts)
    mean, variance = merged.prior.mean_at(q), merged.prior.variance_at(q)
    shape, rate = mean**2 / variance, mean / variance
    np.testing.assert_allclose(merged.intensity, photons / exposure)
    np.testing.assert_allclose(merged.expected, (shape + photons) / (rate + exposure))
    np.testing.assert_allclose(merged.variance, merged.expected / exposure)


def test_voxels_without_photons_are_kept_with_errors():
    observations, q, intensity, _ = simulate(0.05, 10, 0, 0.6)
    merged = merge_voxels(observations, q)
    empty = merged.intensity == 0
    assert empty.sum() > 1000
    assert (merged.variance[empty] > 0).all()
    assert (merged.expected[empty] > 0).all()
    assert np.mean(intensity[empty] ** 2 / merged.variance[empty]) < 1.5


def test_a_dark_region_has_errors_too():
    observations, q, _, _ = simulate(1e-9, 10, 0, 0.6, voxels=500)
    merged = merge_voxels(observations, q)
    assert (merged.intensity == 0).all()
    assert (merged.variance > 0).all() and np.isfinite(merged.variance).all()


def test_parts_merge_to_the_whole():
    observations, q, intensity, _ = simulate(0.5, 60, 1, 0.6, multiplicity=2)
    whole = merge_voxels(observations, q)
    part = np.random.default_rng(1).random(len(observations.rows)) < 0.5
    (first, first_variance), (second, second_variance) = (
        merge_part(observations, q, whole, chosen) for chosen in (part, ~part)
    )
    held = observations.sum(part.astype(int))
    assert (np.isnan(first) == (held == 0)).all()
    assert (np.isnan(second) == (held == observations.multiplicity)).all()
    both = np.isfinite(first) & np.isfinite(second)
    assert np.mean((first - intensity)[both] ** 2 / first_variance[both]) == pytest.approx(1, abs=0.04)
    assert np.mean((second - intensity)[both] ** 2 / second_variance[both]) == pytest.approx(1, abs=0.04)
    assert np.mean((first - second)[both] ** 2 / (first_variance + second_variance)[both]) == pytest.approx(1, abs=0.04)
    np.testing.assert_allclose(first[np.isnan(second)], whole.intensity[np.isnan(second)])


def test_unit_of_response_does_not_matter():
    observations, q, _, _ = simulate(0.5, 60, 1, 0.6, voxels=3000)
    merged = merge_voxels(observations, q)
    observations.response *= 1e-7
    scaled = merge_voxels(observations, q)
    np.testing.assert_allclose(scaled.intensity, merged.intensity * 1e7)
    np.testing.assert_allclose(scaled.variance, merged.variance * 1e14)


def test_radial_bins_hold_enough():
    q = np.random.default_rng(0).random(20_000) ** (1 / 3)
    bins = radial_bins(q)
    assert np.bincount(bins).min() >= 50
    assert (np.diff(bins[np.argsort(q)]) >= 0).all()
    assert bins.max() > 70
    assert (radial_bins(q[:30]) == 0).all()
    assert (radial_bins(np.zeros(3)) == 0).all()


def test_variance_between_voxels():
    rng = np.random.default_rng(0)
    noise = rng.uniform(1, 20, 50_000)
    deviation = rng.normal(0, 2, 50_000) + rng.normal(0, np.sqrt(noise))
    bins = np.zeros(50_000, dtype=int)
    assert between_voxel_variance(bins, deviation, noise, np.array([3.0]))[0] == pytest.approx(4, rel=0.05)
    nothing = rng.normal(0, 0.9 * np.sqrt(noise))
    assert between_voxel_variance(bins, nothing, noise, np.array([3.0]))[0] == 0
