"""Gradient, curvature and what they lead to, against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from scalers import ALL, column, columns_of, dense_curvature, scale_counting, scaler_of

from dials_diffuse.algorithms.scaling import least_squares, linearised, partitions, parts, sample
from dials_diffuse.algorithms.scaling import scaler as scaler_module
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import posterior_mean, weighted_means
from dials_diffuse.algorithms.scaling.observations import ARRAYS

COARSE = ("scale_interval=6", "absorption.intervals=2", "detector.intervals=2", "offset.q_interval=0.12", "nproc=1")


@pytest.fixture
def scaler():
    """At parameters that are not the best, with an error model that is not mere counting."""
    dataset, _ = observation_data.make_dataset(0.3, n_frames=16, samples=30, pixels=5, a=0.1, c=0.3, d=0.05)
    scaler = scaler_of(dataset, ALL, *COARSE, error_model=ErrorModel(1.2, 0.1))
    scaler.parameters = scaler.parameters + np.random.default_rng(0).uniform(-0.05, 0.05, scaler.design.size)
    for sweep in (0, 1):
        scaler.parameters[columns_of(scaler, "offset", sweep)] += 0.06
    scaler.merge()
    return scaler


def brute_force(scaler):
    """Photons, their model's derivatives by finite differences, and weights, as dense matrices over (p, all I_v)."""
    observations, expected = scaler.sample.observations, expected_intensities(scaler)
    voxel = np.repeat(np.arange(len(expected)), observations.multiplicity)
    placed, size = scaler.placed, scaler.design.size

    def model(p, intensity):
        values = placed.values(p)
        return observations.response * values.outer * (values.inner * intensity[voxel] + values.offset)

    jacobian = np.zeros((len(voxel), size + len(expected)))
    for k, step in enumerate(1e-5 * np.eye(size)):
        upper, lower = (model(scaler.parameters + sign * step, expected) for sign in (1, -1))
        jacobian[:, k] = (upper - lower) / 2e-5
    slope = model(scaler.parameters, expected + 0.5) - model(scaler.parameters, expected - 0.5)
    jacobian[np.arange(len(voxel)), size + voxel] = slope
    excess = model(scaler.parameters, np.zeros(len(expected)))
    signal = slope * expected[voxel]
    a, b = scaler.error_model.a, scaler.error_model.b
    weight = 1 / (a**2 * (signal + excess + observations.noise + (b * signal) ** 2))
    intensity = np.bincount(voxel, weight * slope * (observations.signal - excess)) / np.bincount(
        voxel, weight * slope**2
    )
    return jacobian, weight, observations.signal - model(scaler.parameters, intensity)


def expected_intensities(scaler):
    """Posterior means of the voxels."""
    observations = scaler.sample.observations
    scaled = observations.scaled(*scaler.evaluate(observations), scaler.error_model)
    q = scaler.grid.q(scaled.voxels)
    return posterior_mean(*weighted_means(scaled, q, scaler.prior), q, scaler.prior)


def schur_complement(jacobian, weight, size):
    whole = jacobian.T @ (weight[:, None] * jacobian)
    corner = np.linalg.solve(whole[size:, size:], whole[size:, :size])
    return whole[:size, :size] - whole[:size, size:] @ corner


def test_gradient_and_curvature(scaler):
    jacobian, weight, residual = brute_force(scaler)
    size = scaler.design.size
    assert scaler.survey.n_voxels > 4 * size
    gradient, objective = scaler._gradient()
    assert objective == pytest.approx(np.sum(weight * residual**2), rel=1e-9)
    expected = jacobian[:, :size].T @ (weight * residual)
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * np.abs(expected).max())
    curvature = dense_curvature(scaler)
    np.testing.assert_array_equal(curvature, curvature.T)
    expected = schur_complement(jacobian, weight, size)
    np.testing.assert_allclose(curvature, expected, atol=1e-7 * np.abs(expected).max())


def test_parts_are_of_the_whole(scaler, monkeypatch):
    """Blocks of the curvature, and its product with a vector."""
    whole = dense_curvature(scaler)
    monkeypatch.setattr(parts, "ALL", 40)
    monkeypatch.setattr(parts, "SEVERAL", 40)
    scaler.parts = parts.parts_of(scaler.design)
    assert len(scaler.parts) == 3  # two sweeps, and d
    assert sorted(np.concatenate([part.columns for part in scaler.parts])) == list(range(len(whole)))
    curvature = scaler._curvature()
    for part, block in zip(scaler.parts, curvature.blocks):
        np.testing.assert_allclose(block, whole[np.ix_(part.columns, part.columns)], atol=1e-12 * np.abs(whole).max())
    vector = np.random.default_rng(3).normal(size=len(whole))
    for found in (scaler._sample_times(curvature, vector), scaler._all_times(vector)):  # the sample is all
        np.testing.assert_allclose(found, whole @ vector, atol=1e-10 * np.abs(whole @ vector).max())


def test_parts_lead_to_the_same_parameters(monkeypatch):
    """With smoothness that is given, for what is found of it depends a little on the parts."""
    found = []
    for largest in (1000, 40):
        monkeypatch.setattr(parts, "ALL", largest)
        monkeypatch.setattr(parts, "SEVERAL", largest)
        dataset, _ = observation_data.make_dataset(1, sweeps=3, n_frames=30, samples=30, a=0.1, c=0.3, d=0.05)
        smoothness = [f"smoothness.{name}=0.1" for name in ALL]
        scaler = scaler_of(dataset, ALL, *COARSE, *smoothness)
        assert (len(scaler.parts) > 1) == (largest == 40)
        scaler.params.tolerance = 1e-9
        scaler.fit()
        found.append((scaler.parameters, np.sqrt(scaler.covariance.variances)))
    (parameters, errors), (in_parts, errors_in_parts) = found
    assert np.abs((parameters - in_parts) / errors).max() < 0.02
    assert np.median(errors_in_parts / errors) == pytest.approx(1, abs=0.15)


def test_chunks_make_no_difference(scaler, monkeypatch):
    gradient, curvature = scaler._gradient()[0], dense_curvature(scaler)
    for module in (linearised, scaler_module):
        monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(least_squares, "PIECE", 20 * scaler.design.size)
    np.testing.assert_allclose(scaler._gradient()[0], gradient, atol=1e-10 * np.abs(gradient).max())
    np.testing.assert_allclose(dense_curvature(scaler), curvature, atol=1e-12 * np.abs(curvature).max())


def curvature_by_samples(scaler, monkeypatch):
    """A in some directions, and by 60 samples of a fifth of the observations: shape (30,) and (60, 30)."""
    whole = dense_curvature(scaler)
    monkeypatch.setattr(sample, "OBSERVATIONS", scaler.survey.n_observations // 5)
    monkeypatch.setattr(sample, "OBSERVATIONS_EACH", 0)
    directions = np.random.default_rng(9).normal(size=(30, len(whole))) / np.sqrt(np.diag(whole))
    parts = []
    for seed in range(60):
        scaler._take(
            sample.choose_sample(scaler.partitions, scaler.survey.n_observations, scaler.grid, scaler.design.size, seed)
        )
        parts.append(np.einsum("ki,ij,kj->k", directions, dense_curvature(scaler), directions))
    return np.einsum("ki,ij,kj->k", directions, whole, directions), np.array(parts)


def test_curvature_of_a_sample_of_voxels_is_unbiased(scaler, monkeypatch):
    monkeypatch.setattr(sample, "OF_VOXEL", 10**6)
    expected, parts = curvature_by_samples(scaler, monkeypatch)
    deviation = (np.mean(parts, axis=0) - expected) / (np.std(parts, axis=0, ddof=1) / np.sqrt(len(parts)))
    assert 0.01 < np.median(np.std(parts, axis=0) / expected) < 0.2
    assert np.sqrt(np.mean(deviation**2)) < 1.6


def test_curvature_of_a_few_observations_of_a_voxel(scaler, monkeypatch):
    """Unbiased but for weights that differ within a voxel; by numbers of observations alone it would be 0.88 here."""
    monkeypatch.setattr(sample, "OF_VOXEL", 4)
    expected, parts = curvature_by_samples(scaler, monkeypatch)
    assert np.mean(parts / expected) == pytest.approx(1, abs=0.05)


def test_sample_leads_to_the_same_parameters(monkeypatch):
    """It matters for the way only, though it has but five observations for each parameter, and of some none."""
    names, found = ["scale", "absorption", "detector"], []
    for wanted in (10**6, 5):
        dataset, _ = observation_data.make_dataset(1, n_frames=30, samples=30, a=0.1, d=0.05)
        monkeypatch.setattr(sample, "OBSERVATIONS", 0)
        monkeypatch.setattr(sample, "OBSERVATIONS_EACH", wanted)
        scaler = scaler_of(dataset, names, *[f"smoothness.{name}=0.2" for name in names])
        assert scaler.sample.is_all == (wanted > 5)
        scaler.params.tolerance = 1e-6
        scaler.fit()
        assert len(scaler.cycles) < 20
        found.append((scaler.parameters, np.sqrt(scaler.covariance.variances)))
    (parameters, errors), (sampled, errors_sampled) = found
    assert np.abs(parameters - sampled).max() < 0.1 * np.median(errors)
    assert np.abs((parameters - sampled) / errors).max() < 0.1
    assert np.median(errors_sampled / errors) == pytest.approx(1, abs=0.05)


def test_sample_takes_the_same_observations_in_any_order(scaler, monkeypatch):
    """Of voxels that have more than it takes of one."""
    monkeypatch.setattr(sample, "OF_VOXEL", 4)
    observations = scaler.sample.observations
    n = observations.multiplicity
    assert n.max() > 8
    chosen = sample._some(observations, scaler.grid, 1)
    np.testing.assert_array_equal(observations.sum(chosen.astype(int)), np.minimum(n, 4))
    order = np.lexsort((np.random.default_rng(2).uniform(size=len(chosen)), observations.spread(np.arange(len(n)))))
    shuffled = replace(observations, **{name: getattr(observations, name)[order] for name in ARRAYS})
    np.testing.assert_array_equal(sample._some(shuffled, scaler.grid, 1), chosen[order])
    other = sample._some(observations, scaler.grid, 2)
    assert np.count_nonzero(other != chosen) > 0.2 * np.count_nonzero(observations.spread(n > 8))


def test_processes_make_no_difference(monkeypatch):
    monkeypatch.setattr(partitions, "IN_MEMORY", 500)
    found = []
    for nproc in (1, 2):
        dataset, _ = observation_data.make_dataset(1, n_frames=20, samples=20, c=0.3)
        scale_counting(dataset, "scale,offset", f"nproc={nproc}")
        found.append((column(dataset, "inverse_scale_factor"), column(dataset, "offset.sum.value")))
    np.testing.assert_array_equal(found[0], found[1])


def test_order_of_rows_makes_no_difference():
    dataset, _ = observation_data.make_dataset(1, n_frames=20, samples=20, c=0.3)
    scale_counting(dataset, "scale,offset")
    order = np.random.default_rng(2).permutation(len(dataset.observations))
    shuffled, _ = observation_data.make_dataset(1, n_frames=20, samples=20, c=0.3)
    shuffled.observations = shuffled.observations.select(flex.size_t(order))
    scale_counting(shuffled, "scale,offset")
    for name in ("inverse_scale_factor", "offset.sum.value"):
        np.testing.assert_allclose(column(shuffled, name), column(dataset, name)[order], rtol=1e-6, atol=1e-6)
