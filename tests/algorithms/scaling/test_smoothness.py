from __future__ import annotations

import numpy as np
import observation_data
import pytest
from dxtbx.model.experiment_list import ExperimentList
from extra_terms import RingsTerm, models_of, use_terms
from scalers import ALL, scaler_of
from scipy.optimize import minimize

from dials_diffuse.algorithms.scaling.design import Design
from dials_diffuse.algorithms.scaling.smoothness import Smoothness
from dials_diffuse.parameters import parameters


def design_of(*names, sweeps=1):
    scaling = parameters("scale", "offset.q_interval=0.1", "offset.interval=15", "absorption.interval=30").scaling
    experiments = ExperimentList([observation_data.experiment(i) for i in range(sweeps)])
    return Design(models_of(experiments, [names] * sweeps, scaling)), scaling.smoothness


def block_of(matrix):
    return lambda columns: matrix[columns, columns]


def differences_of(block):
    """Operators that take differences of a block's parameters along each axis: built one row after another."""
    found = []
    numbers = np.arange(np.prod(block.term.shape)).reshape(block.term.shape[::-1])
    for axis in range(numbers.ndim):
        pairs = zip(
            *(
                np.take(numbers, range(*ends), axis=axis).ravel()
                for ends in ((1, numbers.shape[axis]), (0, numbers.shape[axis] - 1))
            )
        )
        rows = []
        for after, before in pairs:
            row = np.zeros(numbers.size)
            row[after], row[before] = 1, -1
            rows.append(row)
        found.insert(0, np.array(rows))  # the last axis of the array is the first of the term
    return found


def random_walk(block, sizes, rng):
    """Parameters whose differences have these standard deviations, about."""
    precision = sum(d.T @ d / size**2 for d, size in zip(differences_of(block), sizes))
    values, vectors = np.linalg.eigh(precision)
    return vectors[:, 1:] @ (rng.normal(size=len(values) - 1) / np.sqrt(values[1:]))


def most_likely_sizes(normal, projected, squares, start):
    """Maximum of the marginal likelihood of a linear Gaussian problem, the parameters integrated out."""

    def cost(logarithms):
        precision = sum(s * np.exp(-2 * x) for s, x in zip(squares, logarithms))
        values = np.linalg.eigvalsh(precision)
        whole = normal + precision
        _, determinant = np.linalg.slogdet(whole)
        best = np.linalg.solve(whole, projected)
        return (determinant - np.sum(np.log(values[1:])) - projected @ best) / 2

    return np.exp(minimize(cost, np.log(start), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9}).x)


@pytest.mark.parametrize(
    "name,unit,sizes", [("rings", 1.0, [0.05]), ("offset", 1.0, [0.1, 0.03]), ("offset", 50.0, [0.03, 0.08])]
)
def test_size_of_the_largest_marginal_likelihood(monkeypatch, name, unit, sizes):
    use_terms(monkeypatch, RingsTerm)
    design, params = design_of("scale", name)
    (block,) = (b for b in design.blocks if b.term.name == name)
    rng = np.random.default_rng(7)
    n = block.columns.stop - block.columns.start
    truth = 1 + random_walk(block, sizes, rng)
    matrix = rng.normal(size=(20 * n, n)) * 10  # so that noise of 1 leaves much to be seen
    data = matrix @ truth + rng.normal(size=20 * n)
    normal, projected = matrix.T @ matrix, matrix.T @ data
    expected = most_likely_sizes(normal, projected, [d.T @ d for d in differences_of(block)], sizes)

    smoothness = Smoothness(design, params)
    left = np.eye(design.size)  # of the scale: nothing is known of it but that it stays as it is
    left[block.columns, block.columns] = normal / unit**2
    now = design.parameters.astype(float)
    units = np.ones(design.size)
    units[block.columns] = unit
    for _ in range(300):
        right = np.zeros(design.size)
        right[block.columns] = (projected - normal @ now[block.columns] / unit) / unit
        differences = smoothness.differences(now, units)
        rows, targets = smoothness.equations(differences)
        restraint = (rows.T @ rows).toarray()
        covariance = np.linalg.inv(left + restraint)
        shift = covariance @ (right + rows.T @ targets)
        prior = np.linalg.pinv(restraint, hermitian=True)
        smoothness.update(differences, shift, block_of(covariance), block_of(prior))
        now += shift
    found = [size for key, size in smoothness.size.items() if key.startswith(name)]
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(found, sizes, rtol=0.4)


def test_operators_take_differences():
    design, params = design_of("scale", "absorption", "offset")
    differences = Smoothness(design, params).differences(design.parameters, np.ones(design.size))
    for block in design.blocks:
        own = [these for these in differences if these.columns == block.columns]
        for expected, these in zip(differences_of(block), own, strict=True):
            square = these.jacobian.T @ these.jacobian
            np.testing.assert_allclose(square, expected.T @ expected, atol=1e-12)


def test_prior_covariance_is_that_of_the_restraints_where_the_gauges_hold(monkeypatch):
    """By a pseudoinverse in the space of parameters that meet all conditions."""
    dataset, _ = observation_data.make_dataset(1, n_frames=30, samples=20)
    scaler = scaler_of(dataset, ALL, "scale_interval=10", "offset.q_interval=0.1")
    found = {}

    def look(smoothness, differences, shift, covariance, prior_covariance):
        found["prior"], found["differences"] = prior_covariance, differences
        rows, _ = smoothness.equations(differences)
        found["precision"] = (rows.T @ rows).toarray()
        found["size"] = dict(smoothness.size)

    monkeypatch.setattr(Smoothness, "update", look)
    scaler.merge()
    conditions = scaler.gauges.conditions(scaler.parameters, 1.0)[0].toarray()
    scaler._step(scaler._curvature(), scaler._gradient()[0])
    _, values, directions = np.linalg.svd(conditions / np.linalg.norm(conditions, axis=1)[:, None])
    free = directions[np.sum(values > 1e-9) :].T
    exact = free @ np.linalg.pinv(free.T @ found["precision"] @ free, rcond=1e-9, hermitian=True) @ free.T
    free_of_gauges = np.linalg.pinv(found["precision"], rcond=1e-9, hermitian=True)
    for key, size in found["size"].items():
        own = [these for these in found["differences"] if these.key == key]
        covariances = found["prior"], block_of(exact), block_of(free_of_gauges)
        traces = [sum(these.trace(of(these.columns)) for these in own) / size**2 for of in covariances]
        assert traces[0] == pytest.approx(traces[1], rel=0.05)
        assert traces[0] < traces[2] * (0.95 if key.startswith("absorption") else 1.001)


def test_scale_is_smooth_relative_to_its_mean():
    """A sweep a hundred times as bright is held as much; its mean is not held at all."""
    design, params = design_of("scale")
    rng = np.random.default_rng(1)
    walk = 1 + 0.1 * rng.normal(size=design.size)
    smoothness = Smoothness(design, params)
    costs = []
    for factor in (1.0, 100.0):
        (these,) = smoothness.differences(factor * walk, np.ones(design.size))
        costs.append(these.now @ these.now)
        np.testing.assert_allclose(these.jacobian @ (factor * walk), 0, atol=1e-12)
    assert costs[0] == pytest.approx(costs[1])
    step = 1e-6 * rng.normal(size=design.size)
    (before,) = smoothness.differences(walk, np.ones(design.size))
    (after,) = smoothness.differences(walk + step, np.ones(design.size))
    np.testing.assert_allclose(after.now - before.now, before.jacobian @ step, atol=1e-10)


def test_given_sizes_stay():
    design, params = design_of("scale", "offset")
    params.offset = 0.07
    smoothness = Smoothness(design, params)
    differences = smoothness.differences(design.parameters, np.ones(design.size))
    rows, _ = smoothness.equations(differences)
    restraint = (rows.T @ rows).toarray()
    covariances = np.linalg.inv(np.eye(design.size) + restraint), np.linalg.pinv(restraint, hermitian=True)
    shift = np.random.default_rng(0).normal(size=design.size)
    smoothness.update(differences, shift, *(block_of(covariance) for covariance in covariances))
    assert smoothness.size["offset.q"] == smoothness.size["offset.phi"] == 0.07
    assert smoothness.size["scale.phi"] != 0.07


def test_sweeps_have_one_size_together():
    """Of every kind of difference: what one sweep has too few data to tell, the others do."""
    design, params = design_of("scale", sweeps=2)
    smoothness = Smoothness(design, params)
    assert list(smoothness.size) == ["scale.phi"]
    assert len(smoothness.differences(design.parameters, np.ones(design.size))) == 2
