from __future__ import annotations

import numpy as np
import observation_data
import pytest
from dials.algorithms.scaling.model.components.smooth_scale_components import GaussianSmoother1D
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList
from extra_terms import DampingTerm, FalloffTerm, GlowTerm, SlopeTerm, models_of, use_terms

from dials_diffuse.algorithms.scaling.design import Design
from dials_diffuse.algorithms.scaling.parts import Part
from dials_diffuse.algorithms.scaling.places import Places
from dials_diffuse.parameters import parameters

ALL = ("scale", "absorption", "offset", "detector", "modules", "falloff", "damping", "glow", "slope")


def bases(axis, values):
    """Of DIALS's smoother, one value after another: shape (n, parameters)."""
    n = axis.n_intervals
    smoother = GaussianSmoother1D([0, n], n)
    rows = np.empty((len(values), axis.n_params))
    for i, value in enumerate(values):
        x = np.clip(np.rint((value - axis.origin) / axis.spacing * 1000) / 1000, 0, n)  # as finely as the table
        _, weight, total = smoother.multi_value_weight(flex.double([x, x]), flex.double(axis.n_params))
        rows[i] = weight.as_dense_matrix().as_numpy_array()[0] / total[0]
    return rows


def value_of(term, place, covariate):
    """A term at one place, in the plainest way: sums over all parameters along each axis in turn."""
    values = np.asarray(term.parameters)
    if term.name == "modules":
        (fast,), (slow,) = place.fast, place.slow
        return values[int(slow // 20) * 3 + int(fast // 20)]
    total = values.reshape([axis.n_params for axis in reversed(term.axes)])
    for axis in reversed(term.axes):
        total = np.tensordot(bases(axis, getattr(place, axis.coordinate))[0], total, axes=(0, 0))
    total = float(np.squeeze(total)) * (1 if covariate is None else covariate[0])
    return np.exp(total) if term.exponential else total


@pytest.fixture
def setting(monkeypatch):
    """Two sweeps, one still and one sweep of few terms; 300 observations, and of a reference beyond them."""
    use_terms(monkeypatch, FalloffTerm, DampingTerm, GlowTerm, SlopeTerm)
    experiments = ExperimentList([observation_data.experiment(i) for i in range(4)])
    experiments[2].scan = None
    scaling = parameters("scale", "detector.tile_size=20,20", "scale_interval=20").scaling
    models = models_of(experiments, [ALL, ALL, ["scale", "detector"], ["scale", "slope"]], scaling)
    rng = np.random.default_rng(3)
    shared = {}
    for model in models:
        for term in model.terms:
            spread = (-0.3, 0.3) if term.null_parameter_value == 0 else (0.7, 1.3)
            values = rng.uniform(*spread, term.n_params)
            term.parameters = flex.double(shared.setdefault(term.name, values) if term.shared else values)
    n = 300
    experiment = rng.integers(0, 5, n).astype(np.int32)
    position = np.stack([*rng.uniform(0, 60, (2, n)), rng.uniform(0, 90, n)], axis=1)
    q = rng.uniform(0.01, 1 / 2.2, n)
    design = Design(models)
    placed = design.place(experiments, experiment, np.zeros(n, dtype=np.int32), position, q)
    return design, placed, experiments, experiment, position, q


def test_values_are_those_of_plain_sums(setting):
    design, placed, experiments, experiment, position, q = setting
    found = placed.values(design.parameters)
    for i, e in enumerate(experiment):
        outer, inner, offset = 1.0, 1.0, 0.0
        if e < len(experiments):
            place = Places(experiments[e], np.zeros(1, dtype=int), *position[i, :, None], q[i, None])
            for term in design.models[e].terms:
                value = value_of(term, place, term.covariate(place))
                outer *= value if term.role == "outer" else 1
                inner *= value if term.role == "inner" else 1
                offset += value if term.role == "offset" else 0
        assert (found.outer[i], found.inner[i], found.offset[i]) == pytest.approx((outer, inner, offset), rel=1e-6)


def test_shared_terms_are_one_block(setting):
    design, *_ = setting
    owners = {(block.term.name, tuple(block.experiments)) for block in design.blocks}
    assert {("detector", (0, 1, 2)), ("modules", (0, 1))} < owners
    assert sum(name == "scale" for name, _ in owners) == 4
    assert design.size == sum(block.term.n_params for block in design.blocks)


def test_jacobian_is_that_of_finite_differences(setting):
    design, placed, *_ = setting
    rng = np.random.default_rng(4)
    response, intensity = rng.uniform(1, 10, (2, len(placed.experiment)))
    parameters_ = design.parameters

    def model(p):
        values = placed.values(p)
        return response * values.outer * (values.inner * intensity + values.offset)

    slopes = placed.slopes(placed.values(parameters_), response, intensity)
    column, jacobian = Part(design, design.blocks).jacobian(placed, slopes)
    dense = np.zeros((len(response), design.size + 1))  # the last for the column -1
    np.add.at(dense, (np.arange(len(response))[:, None], column), jacobian)
    dense = dense[:, :-1]
    expected = np.empty_like(dense)
    for k, step in enumerate(1e-5 * np.eye(design.size)):
        expected[:, k] = (model(parameters_ + step) - model(parameters_ - step)) / 2e-5
    np.testing.assert_allclose(dense, expected, atol=1e-6 * np.abs(expected).max())
    assert (np.abs(expected).max(axis=0) > 0).sum() > 0.9 * design.size
    vector, of_observations = rng.normal(size=design.size), rng.normal(size=len(response))
    np.testing.assert_allclose(placed.apply(slopes, vector), dense @ vector, atol=1e-9 * np.abs(dense).max())
    transposed = placed.apply_transposed(slopes * of_observations[:, None])
    np.testing.assert_allclose(transposed, dense.T @ of_observations, atol=1e-9 * np.abs(dense).max())


def test_parts_and_selections_are_of_the_whole(setting):
    design, placed, *_ = setting
    whole = placed.values(design.parameters).terms
    part = placed.select(slice(50, 80)).values(design.parameters).terms
    np.testing.assert_array_equal(part, whole[50:80])
    chosen = np.arange(len(whole)) % 7 == 2
    some = placed.select(chosen)
    np.testing.assert_array_equal(some.values(design.parameters).terms, whole[chosen])


def test_put_gives_every_experiment_its_parameters(setting):
    design, *_ = setting
    values = np.arange(design.size, dtype=float)
    design.put(values, values / 10)
    np.testing.assert_array_equal(design.parameters, values)
    detectors = [np.array(design.models[i].components["detector"].parameters) for i in range(3)]
    np.testing.assert_array_equal(detectors[0], detectors[2])
    np.testing.assert_array_equal(
        np.array(design.models[1].components["scale"].parameter_esds) * 10,
        np.array(design.models[1].components["scale"].parameters),
    )
