from __future__ import annotations

import numpy as np
import observation_data
import pytest
from scalers import ALL, columns_of, dense_curvature, scaler_of

from dials_diffuse.algorithms.scaling.design import Design

pytestmark = pytest.mark.xdist_group("gauges")  # what its tests share is made once

#: Knots of a, b and c at the same angles, so that they can exchange functions exactly.
SAME_KNOTS = ("scale_interval=10", "absorption.interval=10", "offset.interval=10", "offset.q_interval=0.1")


@pytest.fixture(scope="module")
def refined():
    dataset, _ = observation_data.make_dataset(1, n_frames=60, samples=30, a=0.1, c=0.3, d=0.05)
    scaler = scaler_of(dataset, ALL)
    scaler.fit()
    return dataset, scaler


def term_values(dataset, scaler, name, sweep, points):
    """A refined term at points: columns x, y, frame, |q|."""
    design = Design(scaler.design.models)
    n = len(points)
    placed = design.place(
        dataset.experiments, np.full(n, sweep), np.zeros(n, dtype=np.int32), points[:, :3], points[:, 3]
    )
    return placed.values(design.parameters).terms[:, design.names.index(name)]


def grid_of(*coordinates):
    return np.stack([axis.ravel() for axis in np.meshgrid(*coordinates, indexing="ij")], axis=1)


PIXELS = np.arange(60) + 0.5
FRAMES = np.linspace(0, 60, 31)


def test_conditions_hold(refined):
    _, scaler = refined
    intensity = float(scaler.prior.mean.mean())
    conditions = scaler.gauges._rows.toarray()
    assert len(conditions) > 10
    np.testing.assert_allclose(conditions @ scaler.parameters, scaler.gauges._targets, atol=1e-5)
    scaler.gauges._slack = np.inf  # where c was least in the last cycle
    lowest, targets = scaler.gauges.conditions(scaler.parameters, intensity)
    found = (lowest @ scaler.parameters - targets)[len(conditions) :] / intensity
    assert len(found) == scaler.design.models[0].components["offset"].axes[0].n_params
    assert np.abs(found).max() < 1e-3


def test_means_are_one(refined):
    """Seen from outside: over a grid of pixels and angles."""
    dataset, scaler = refined
    b = term_values(dataset, scaler, "scale", 0, grid_of([30.0], [30.0], np.linspace(0, 60, 1001), [0.2]))
    assert b.mean() == pytest.approx(1, abs=1e-3)
    for sweep in (0, 1):
        a = term_values(dataset, scaler, "absorption", sweep, grid_of(PIXELS, PIXELS, FRAMES, [0.2]))
        of_frames = a.reshape(-1, len(FRAMES)).mean(axis=0)
        np.testing.assert_allclose(of_frames, 1, atol=2e-3)
        assert a.std() > 0.01
    d = term_values(dataset, scaler, "detector", 1, grid_of(PIXELS, PIXELS, [0.0], [0.2]))
    assert d.mean() == pytest.approx(1, abs=2e-3)


def test_absorption_of_all_sweeps_is_one_on_average(refined):
    """At every point of the detector: what is the same in all sweeps is d."""
    dataset, scaler = refined
    points = grid_of(PIXELS[::5], PIXELS[::5], np.linspace(0, 60, 201), [0.2])
    a = [term_values(dataset, scaler, "absorption", sweep, points).reshape(12, 12, -1).mean(axis=2) for sweep in (0, 1)]
    np.testing.assert_allclose(np.mean(a, axis=0), 1, atol=2e-3)
    assert np.std(a[0]) > 0.01


def test_least_offset_is_about_zero(refined):
    dataset, scaler = refined
    q = np.linspace(0.05, 0.44, 20)
    c = [
        term_values(dataset, scaler, "offset", sweep, grid_of([30.0], [30.0], FRAMES, q)).reshape(-1, len(q))
        for sweep in (0, 1)
    ]
    intensity = float(scaler.prior.mean.mean())
    assert np.abs(np.concatenate(c).min(axis=0)).max() < 0.1 * intensity
    assert np.max(c) > 0.2 * intensity


@pytest.fixture(scope="module")
def at_nil():
    """Terms that do nothing, on data that have all of them."""
    dataset, _ = observation_data.make_dataset(1, n_frames=30, samples=30, a=0.1, c=0.3, d=0.05)
    scaler = scaler_of(dataset, ALL, *SAME_KNOTS)
    scaler.merge()
    return scaler, scaler._gradient()[0], dense_curvature(scaler)


def exchanges(scaler):
    """Directions in the space of parameters along which nothing changes, from terms that do nothing."""
    size = scaler.design.size
    models = scaler.design.models

    def direction(*parts):
        vector = np.zeros(size)
        for name, sweep, values in parts:
            vector[columns_of(scaler, name, sweep)] += values
        return vector

    yield direction(("scale", 0, 1.0), ("scale", 1, 1.0))
    yield direction(("detector", 0, 1.0), ("absorption", 0, -1.0), ("absorption", 1, -1.0))
    for sweep, model in enumerate(models):
        x, y, phi = (axis.n_params for axis in model.components["absorption"].axes)
        for h in np.eye(phi):
            yield direction(("absorption", sweep, np.repeat(h, x * y)), ("scale", sweep, -h))
    q, phi = (axis.n_params for axis in models[0].components["offset"].axes)
    for f in np.eye(q):
        yield direction(("offset", 0, np.tile(f, phi)), ("offset", 1, np.tile(f, phi)))


def test_data_do_not_tell_what_gauges_fix(at_nil):
    scaler, gradient, curvature = at_nil
    directions = np.array(list(exchanges(scaler)))
    assert np.linalg.matrix_rank(directions) == len(directions)
    curvatures = np.einsum("ki,ij,kj->k", directions, curvature, directions)
    separate = directions**2 @ np.diag(curvature)
    assert np.abs(curvatures / separate).max() < 1e-9
    assert np.abs(directions @ gradient / np.sqrt(separate)).max() < 1e-6 * np.abs(gradient).max()


@pytest.mark.parametrize("terms", [("scale",), ("scale", "absorption"), ("scale", "offset"), ALL[:3]])
def test_gauges_fix_all_that_the_data_do_not_tell_and_no_more(terms):
    """As many conditions as there are directions without curvature."""
    dataset, _ = observation_data.make_dataset(1, n_frames=30, samples=30)
    scaler = scaler_of(dataset, terms, *SAME_KNOTS)
    scaler.merge()
    curvature = dense_curvature(scaler)
    unit = 1 / np.sqrt(np.diag(curvature))
    conditions = scaler.gauges.conditions(scaler.parameters, 1.0)[0].toarray()
    values, vectors = np.linalg.eigh(curvature * unit * unit[:, None])
    free = unit[:, None] * vectors[:, values < 1e-9]
    assert len(conditions) == free.shape[1]
    assert np.linalg.matrix_rank(conditions @ free, tol=1e-6) == free.shape[1]


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 2.0},
        {"absorption": 1.2, "scale": 1 / 1.2, "offset": 1 / 1.2},
        {"detector": 0.9, "absorption": 1 / 0.9},
    ],
)
def test_exchanged_factors_leave_chi_squared(refined, change):
    _, scaler = refined
    before = scaler.parameters.copy()
    scaler.merge()
    objective = scaler._gradient()[1]
    try:
        for block in scaler.design.blocks:
            scaler.parameters[block.columns] *= change.get(block.term.name, 1.0)
        scaler.merge()
        assert scaler._gradient()[1] == pytest.approx(objective, rel=1e-8)
    finally:
        scaler.parameters = before


def test_offset_and_intensity_exchange_a_function_of_q(refined):
    """c - b f(|q|) and I + f(|q|): b f has to be one that the knots of c can follow, so b is held level here."""
    _, scaler = refined
    before = scaler.parameters.copy()
    try:
        for block in scaler.design.blocks:
            if block.term.name == "scale":
                scaler.parameters[block.columns] = 1.0
        scaler.merge()
        objective = scaler._gradient()[1]
        for block in scaler.design.blocks:
            if block.term.name == "offset":
                q, phi = block.term.shape
                scaler.parameters[block.columns] += np.tile(0.1 * np.exp(-np.linspace(0, 1, q)), phi)
        scaler.merge()
        assert scaler._gradient()[1] == pytest.approx(objective, rel=1e-3)
    finally:
        scaler.parameters = before
