from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import observation_data
import pytest

from dials_diffuse.algorithms.scaling.error_model import (
    ErrorModel,
    error_model_summary,
    reduced_chi_squared,
    refine_error_model,
    scatter,
)
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations, scaled_observations
from dials_diffuse.phil_scope.error_model import phil_scope


def scaled(level, **kwargs):
    """Observations with their true scales, and |q| of the voxels."""
    dataset, truth = observation_data.make_dataset(level, **kwargs)
    observation_data.put_scales(dataset.observations, truth.b)
    observations = scaled_observations(dataset)
    return observations, dataset.grid.q(observations.voxels)


def disturbed(level, a=1.0, b=0.0, *, pixels=40.0, background=0.3, spread=0.4, voxels=8000, seed=0):
    """Observations whose variance is by construction a^2 (expected photons + (b s)^2), and |q| of the voxels.

    Counts come in lumps of a^2 photons, and what a voxel gives to each varies by a b.
    """
    rng = np.random.default_rng(seed)
    q = rng.random(voxels) ** (1 / 3) * 0.5
    intensity = rng.gamma(1 / spread**2, level * np.exp(-6 * q**2) * spread**2)
    n = rng.integers(1, 12, voxels)
    response = pixels * rng.uniform(0.1, 1.9, n.sum())
    noise = background * level * response * rng.uniform(0.2, 1.8, n.sum())
    signal = response * np.repeat(intensity, n) * np.maximum(1 + a * b * rng.normal(size=n.sum()), 0)
    observations = GroupedObservations(
        rows=np.arange(n.sum()),
        signal=a**2 * rng.poisson((signal + noise) / a**2) - noise,
        response=response,
        noise=noise,
        experiment=np.zeros(n.sum(), dtype=np.int32),
        panel=np.zeros(n.sum(), dtype=np.int32),
        position=np.zeros((n.sum(), 3), dtype=np.float32),
        voxels=np.zeros((voxels, 3), dtype=np.int32),
        first=np.concatenate([[0], np.cumsum(n)]),
    )
    return observations, q


def assert_flat(report):
    """Reduced chi-squared is 1 in every bin, within its error (36 bins: 4 standard deviations)."""
    bins = [x for name in ("q", "counts", "i_over_sigma") for x in report["after"][name]]
    assert len(bins) > 25
    for x in bins:
        assert x["chi_squared"] == pytest.approx(1, abs=4 * x["error"] + 0.005), x


def test_expected_squares_of_residuals_are_exact():
    """Against the diagonal of R V R^T, with the residuals written as a matrix R times the signals."""
    observations, q = disturbed(0.3, voxels=300)
    q = q[observations.multiplicity > 1]
    observations = replace(observations.repeated(), error_model=ErrorModel(1.2, 0.3))
    merged = merge_voxels(observations, q)
    (found,) = scatter(observations, q, merged)
    weight = 1 / observations.variance(merged.prior.mean_at(q))
    between, information = merged.prior.variance_at(q), observations.sum(weight * observations.response**2)
    for voxel in range(0, len(q), 20):
        chosen = slice(*observations.first[voxel : voxel + 2])
        u, w, noise = (x[chosen] for x in (observations.response, weight, observations.noise))
        matrix = np.eye(len(u)) - np.outer(u, w * u / np.sum(w * u**2))
        np.testing.assert_allclose(found.residual[chosen], matrix @ observations.signal[chosen], atol=1e-9)
        second_moment = merged.expected[voxel] ** 2 + 1 / (1 / between[voxel] + information[voxel])
        for expected, variance in (
            (found.counting, u * merged.intensity[voxel] + noise),
            (found.excess, u**2 * second_moment),
            (found.residual_variance, 1.44 * (u * merged.expected[voxel] + noise + 0.09 * u**2 * second_moment)),
        ):
            np.testing.assert_allclose(expected[chosen], np.diag(matrix @ np.diag(variance) @ matrix.T), atol=1e-9)


@pytest.mark.parametrize("level,pixels,background", [(1, 40, 0.3), (0.05, 40, 0.3), (0.05, 5, 0.3), (0.05, 20, 4)])
def test_counting_statistics_need_no_model(level, pixels, background):
    """The third has 0.2 photons an observation, the last 0.5 photons on 2 of background."""
    observations, q = scaled(level, pixels=pixels, background=background)
    model, report = refine_error_model(observations, q)
    assert model.a == report["a"] == pytest.approx(1, abs=3 * report["a_error"])
    assert model.b == report["b"] == 0
    assert 0 < report["a_error"] < 0.004
    assert 0 < report["b_error"] < 0.3
    assert_flat(report)


def test_voxels_with_more_photons_by_chance_make_no_bias():
    """What the merged intensity, not its posterior mean, is for in the expected squares: 0.1 photons an observation."""
    observations, q = disturbed(0.05, pixels=5, background=0, spread=0.1, voxels=30_000)
    q = q[observations.multiplicity > 1]
    observations = observations.repeated()
    merged = merge_voxels(observations, q)
    (found,) = scatter(observations, q, merged)
    expected = observations.spread(merged.expected / merged.prior.mean_at(q))
    bright = expected > np.quantile(expected, 0.8)
    squares, dof = found.chi_squared[bright], found.degrees_of_freedom[bright]
    assert squares.sum() / dof.sum() == pytest.approx(1, abs=0.03)
    assert squares.sum() / (found.residual_variance / found.variance)[bright].sum() > 1.4


@pytest.mark.parametrize("level,pixels", [(10, 100), (1, 300), (0.05, 20)])
def test_known_parameters_come_back(level, pixels):
    pulls = []
    for seed in range(4):
        model, report = refine_error_model(*disturbed(level, 1.3, 0.05, pixels=pixels, seed=seed))
        pulls.append((model.a - 1.3) / report["a_error"])
        if level == 0.05:  # b = 0.05 is nothing to one photon
            assert model.b == 0
            assert report["b_error"] > 0.05
        else:
            pulls.append((model.b - 0.05) / report["b_error"])
        assert_flat(report)
        before, after = (report["overall"][x][0]["chi_squared"] for x in ("before", "after"))
        assert before > 1.6
        assert after == pytest.approx(1, abs=0.03)
    assert np.max(np.abs(pulls)) < 3
    assert np.mean(np.square(pulls)) < 2.5


def test_b_where_it_is_all_that_is_wrong():
    model, report = refine_error_model(*disturbed(10, 1.0, 0.05, pixels=100))
    assert model.a == pytest.approx(1, abs=3 * report["a_error"])
    assert model.b == pytest.approx(0.05, abs=3 * report["b_error"])
    assert report["before"]["counts"][-1]["chi_squared"] > 2 > report["after"]["counts"][-1]["chi_squared"]


@pytest.mark.parametrize("level,a,b", [(1, 1.0, 0.0), (0.05, 1.0, 0.0), (1, 1.3, 0.05), (0.05, 1.3, 0.05)])
@pytest.mark.parametrize("kind", ["three times", "nothing", "zinger"])
def test_a_few_outliers_hardly_matter(level, a, b, kind):
    observations, q = disturbed(level, a, b, voxels=15_000)
    clean, errors = refine_error_model(replace(observations), q)
    bad = np.random.default_rng(1).random(len(observations.rows)) < 0.001
    photons = {"three times": 3 * (observations.signal + observations.noise), "nothing": 0, "zinger": 1e4}[kind]
    observations.signal = np.where(bad, photons - observations.noise, observations.signal)
    model, report = refine_error_model(observations, q)
    assert model.a == pytest.approx(clean.a, abs=0.01 + 0.5 * errors["a_error"])
    assert model.b == pytest.approx(clean.b, abs=0.01)
    if kind == "zinger":
        assert report["outliers"] == pytest.approx(bad.sum(), abs=12)


def test_given_parameters_stay():
    observations, q = disturbed(10, 1.3, 0.05, pixels=100)
    params = phil_scope.extract().error_model
    params.a = 1.3
    model, report = refine_error_model(observations, q, params)
    assert model.a == 1.3 and report["a_error"] is None
    assert model.b == pytest.approx(0.05, abs=3 * report["b_error"])
    params.a, params.b = None, 0.05
    model, report = refine_error_model(observations, q, params)
    assert model.a == pytest.approx(1.3, abs=3 * report["a_error"])
    assert model.b == pytest.approx(0.05) and report["b_error"] is None
    params.a, params.b = 1.0, 0.0
    model, report = refine_error_model(observations, q, params)
    assert model == ErrorModel()
    assert report["a_error"] is report["b_error"] is None


def test_too_few_mates_change_nothing():
    observations, q = disturbed(1, voxels=8)
    model, report = refine_error_model(observations, q)
    assert model == ErrorModel()
    alone = observations.select(np.isin(np.arange(len(observations.rows)), observations.first[:-1]))
    model, report = refine_error_model(alone, q)
    assert model == ErrorModel()
    assert report["after"] == {}
    assert "not refined" in error_model_summary(report)
    dark, q = disturbed(1e-9)
    assert refine_error_model(dark, q)[0] == ErrorModel()


def test_report_is_for_json_and_the_log():
    observations, q = disturbed(1)
    _, report = refine_error_model(observations, q)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    mates = observations.repeated()
    assert report["observations"] == len(mates.rows)
    for name in ("q", "counts", "i_over_sigma"):
        for when in ("before", "after"):
            bins = report[when][name]
            assert sum(x["observations"] for x in bins) == len(mates.rows)
            assert all(x["high"] == y["low"] for x, y in zip(bins[:-1], bins[1:]))
    summary = error_model_summary(report)
    assert "Expected photons" in summary and f"{report['a']:.4f}" in summary


def test_degrees_of_freedom_are_those_of_the_means():
    """With the very weights of the mean in chi-squared, they are observations less voxels."""
    observations, q = disturbed(1, spread=1e-3)
    q = q[observations.multiplicity > 1]
    observations = observations.repeated()
    merged = merge_voxels(observations, q)
    chi_squared, error = reduced_chi_squared(observations, q, merged)
    assert chi_squared == pytest.approx(1, abs=4 * error)
    dof = sum(part.degrees_of_freedom.sum() for part in scatter(observations, q, merged))
    assert dof == pytest.approx(len(observations.rows) - len(q), rel=0.01)
    assert error == pytest.approx(np.sqrt(2 / dof), rel=0.2)


def test_unit_of_response_does_not_matter():
    observations, q = disturbed(1, 1.3, 0.1)
    model, _ = refine_error_model(replace(observations), q)
    observations.response = observations.response * 1e-7
    scaled_model, _ = refine_error_model(observations, q)
    assert (scaled_model.a, scaled_model.b) == pytest.approx((model.a, model.b))


def test_rounding_does_not_matter():
    """Which one of two equal observations is the outlier is decided by the last digit: it may not count."""
    observations, q = disturbed(2, a=1.3)
    first = observations.first[:-1][observations.multiplicity == 2][:300]
    for values in (observations.response, observations.noise):
        values[first + 1] = values[first]
    observations.signal[first] += 25 * np.sqrt(observations.noise[first] + 10)
    found = set()
    for seed in range(4):
        rounding = np.random.default_rng(seed).choice([-2e-16, 0, 2e-16], len(observations))
        _, report = refine_error_model(replace(observations, response=observations.response * (1 + rounding)), q)
        found.add((round(report["a"], 7), round(report["b"], 7), report["outliers"]))
    assert len(found) == 1 and report["outliers"] > 100
