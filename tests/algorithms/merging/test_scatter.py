from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from dials_diffuse.algorithms.merging.scatter import relative_deviation, scatter
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations


def observations_of(rng, counts: float, background: float, n_voxels: int = 4000, least: int = 1, error_model=None):
    """Observations of one to nine times seen voxels, of unlike response; their |q| and true intensities."""
    error_model = error_model or ErrorModel()
    seen = rng.integers(least, 10, n_voxels)
    n = seen.sum()
    response = rng.gamma(3, 1 / 3, n) + 0.05
    noise = background * counts * response * rng.uniform(0, 2, n)
    truth = counts * rng.gamma(6, 1 / 6, n_voxels)
    expected = response * np.repeat(truth, seen)
    extra = rng.normal(0, 1, n) * error_model.b * expected
    signal = rng.poisson(np.maximum(expected + extra, 0) + noise) - noise
    observations = GroupedObservations(
        rows=np.arange(n),
        signal=signal,
        response=response,
        noise=noise,
        experiment=rng.integers(0, 3, n).astype(np.int32),
        panel=np.zeros(n, dtype=np.int32),
        position=np.zeros((n, 3), dtype=np.float32),
        voxels=np.zeros((n_voxels, 3), dtype=np.int32),
        first=np.concatenate([[0], np.cumsum(seen)]),
        error_model=error_model,
    )
    return observations, rng.uniform(0.1, 0.4, n_voxels), truth


@pytest.mark.parametrize("counts,background", [(0.05, 0.3), (0.2, 0), (0.3, 5), (3, 0.3), (100, 1)])
@pytest.mark.parametrize("kind", ["observation", "sweep"])
def test_unbiased_at_any_count(counts, background, kind):
    """The variance is that about the truth, chi-squared 1, R_meas as expected."""
    rng = np.random.default_rng(3)
    n = 60_000 if counts < 1 else 10_000
    observations, q, truth = observations_of(rng, counts, background, n, least=4)
    whole = merge_voxels(observations, q)
    groups = np.arange(len(observations.rows)) if kind == "observation" else observations.experiment
    found = scatter(observations, q, whole, groups)
    several = np.isfinite(found.variance)
    assert several.mean() > 0.9
    error = (whole.intensity - truth)[several] ** 2
    spread = np.hypot(error.std(), found.variance[several].std()) / np.sqrt(several.sum())
    assert found.variance[several].mean() == pytest.approx(error.mean(), abs=4 * spread)
    freedom = found.degrees_of_freedom.sum()
    of_ratio = np.sqrt(np.sum((found.chi_squared - found.degrees_of_freedom) ** 2)) / freedom
    assert of_ratio < 0.02
    assert found.chi_squared.sum() / freedom == pytest.approx(1, abs=3 * of_ratio)
    assert found.expected_deviation.sum() / found.deviation.sum() == pytest.approx(1, abs=0.05)


def test_error_model_is_in_what_is_expected():
    rng = np.random.default_rng(4)
    observations, q, _ = observations_of(rng, 400, 0.5, 2000, 2, ErrorModel(1, 0.1))
    found = scatter(observations, q, merge_voxels(observations, q), np.arange(len(observations.rows)))
    assert found.chi_squared.sum() / found.degrees_of_freedom.sum() == pytest.approx(1, abs=0.04)
    assert found.expected_deviation.sum() / found.deviation.sum() == pytest.approx(1, abs=0.04)
    without = observations.scaled(np.ones(1), np.zeros(1), ErrorModel())
    found = scatter(without, q, merge_voxels(without, q), np.arange(len(observations.rows)))
    assert found.chi_squared.sum() / found.degrees_of_freedom.sum() > 3


@pytest.mark.parametrize("kind", ["observation", "sweep"])
def test_formulas_voxel_by_voxel(kind):
    """Against loops over voxels and groups, and the weighted mean of the others worked out anew."""
    rng = np.random.default_rng(5)
    observations, q, _ = observations_of(rng, 2, 1, 300)
    whole = merge_voxels(observations, q)
    groups = np.arange(len(observations.rows)) if kind == "observation" else observations.experiment
    found = scatter(observations, q, whole, groups)
    weight = 1 / (observations.response * observations.spread(whole.prior.mean_at(q)) + observations.noise)
    for v in range(len(q)):
        rows = np.arange(observations.first[v], observations.first[v + 1])
        parts = [rows[groups[rows] == g] for g in np.unique(groups[rows])]
        if len(parts) < 2:
            assert np.isnan(found.variance[v])
            assert found.degrees_of_freedom[v] == found.deviation[v] == found.photons[v] == 0
            continue
        u, y, n, w = (a[rows] for a in (observations.response, observations.signal, observations.noise, weight))
        merged = np.sum(w * u * y) / np.sum(w * u * u)
        true, mean = (np.diag(u * level + n) for level in (merged, whole.prior.mean_at(q[v])))
        of_merged = w * u / np.sum(w * u * u)  # the estimates as linear forms of y, their variances as matrix products
        share, chi_squared, freedom, deviation = [], 0.0, 0.0, 0.0
        for part in parts:
            member = np.isin(rows, part)
            of_group = np.where(member, w * u, 0) / np.sum(w[member] * u[member] ** 2)
            share.append(np.sum(w[member] * u[member] ** 2) / np.sum(w * u * u))
            difference = (of_group - of_merged) @ y
            chi_squared += difference**2 / (of_group @ mean @ of_group)
            freedom += (of_group - of_merged) @ true @ (of_group - of_merged) / (of_group @ mean @ of_group)
            deviation += np.sum(u[member]) * abs(difference) / np.sqrt(1 - share[-1])
        assert found.chi_squared[v] == pytest.approx(chi_squared)
        assert found.degrees_of_freedom[v] == pytest.approx(freedom)
        assert found.deviation[v] == pytest.approx(deviation)
        assert found.photons[v] == pytest.approx(np.sum(u) * merged)
        intensity = [
            (np.sum((w * u * y)[np.isin(rows, part)]) / np.sum((w * u * u)[np.isin(rows, part)])) for part in parts
        ]
        p = np.array(share)
        assert found.variance[v] == pytest.approx(np.sum(p**2 / (1 - p) * (np.array(intensity) - merged) ** 2))


def test_equal_observations_give_the_textbook_formulas():
    """Of n equal observations: s^2 / n, chi-squared with n - 1 degrees of freedom, R_meas with sqrt(n / (n - 1))."""
    rng = np.random.default_rng(6)
    observations, q, _ = observations_of(rng, 3, 0, 400, least=2)
    observations.response[:] = 0.7
    whole = merge_voxels(observations, q)
    found = scatter(observations, q, whole, np.arange(len(observations.rows)))
    intensity = observations.signal / 0.7
    for v in range(0, 400, 20):
        own = intensity[observations.first[v] : observations.first[v + 1]]
        assert found.variance[v] == pytest.approx(own.var(ddof=1) / len(own))
        ratio = own.mean() / whole.prior.mean_at(q[v])
        assert found.degrees_of_freedom[v] == pytest.approx((len(own) - 1) * ratio)
        if own.any():
            r_meas = np.sqrt(len(own) / (len(own) - 1)) * np.sum(np.abs(own - own.mean())) / np.sum(own)
            assert found.deviation[v] / found.photons[v] == pytest.approx(r_meas)


def test_deviation_of_binomial_numbers():
    for n, p in ((1, 0.3), (3, 0.01), (7, 0.5), (200, 0.07), (5000, 0.9)):
        k = np.arange(n + 1)
        probability = scipy.stats.binom.pmf(k, n, p)
        wanted = np.sum(np.abs(k - n * p) * probability) / np.sqrt(n * p * (1 - p))
        assert relative_deviation(np.array([n]), np.array([n * p]))[0] == pytest.approx(wanted)
    assert relative_deviation(np.array([0.0, 1e8, 5]), np.array([0.0, 3e7, 5])) == pytest.approx(
        [0, np.sqrt(2 / np.pi), 0]
    )
