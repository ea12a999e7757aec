from __future__ import annotations

import numpy as np
import pytest

from dials_diffuse.algorithms.absolute.krogh_moe import filled, krogh_moe
from dials_diffuse.algorithms.absolute.shells import Shells

EDGES = np.linspace(0.25, 0.7, 31)
SCALE = 40.0


def atoms(q):
    return 5e4 * np.exp(-3 * q**2) + 4e3 * q


def make_shells(noise=0.0, background=0.0, seed=1):
    shells = Shells(EDGES, *np.zeros((7, 30)))
    total = SCALE * shells.mean_of(atoms) + background
    random = np.random.RandomState(seed)
    share = np.exp(-9 * shells.q**2)
    shells.diffuse, shells.bragg = (1 - share) * total, share * total
    shells.bragg *= 1 + noise * random.normal(size=30)
    shells.diffuse_variance = (0.01 * shells.diffuse) ** 2
    shells.bragg_variance = np.zeros(30)
    shells.completeness, shells.bragg_completeness = np.ones((2, 30))
    return shells


def test_mean_over_shells():
    """By a sum over a fine grid of radii."""
    shells = make_shells()
    for i in (0, 17):
        q = np.linspace(*EDGES[i : i + 2], 20001)
        q = (q[1:] + q[:-1]) / 2
        assert shells.mean_of(atoms)[i] == pytest.approx(np.average(atoms(q), weights=q**2), rel=1e-7)
    assert shells.volume.sum() == pytest.approx(4 / 3 * np.pi * (0.7**3 - 0.25**3))


def test_factor_is_found():
    shells = make_shells()
    found = krogh_moe(shells, shells.mean_of(atoms))
    assert found.factor == pytest.approx(1 / SCALE, rel=1e-9)
    np.testing.assert_allclose(found.factors, 1 / SCALE, rtol=1e-9)
    assert found.drift == pytest.approx(0, abs=1e-9)
    assert found.is_level
    assert found.cutoff_error == pytest.approx(0, abs=1e-12)
    # 1 % in each of 30 shells of unequal weight
    weight = shells.volume * shells.diffuse
    expected = 0.01 * np.sqrt(np.sum(weight**2)) / np.sum(shells.volume * shells.total)
    assert found.counting_error / found.factor == pytest.approx(expected)


def test_error_is_that_of_the_factor():
    """Scatter of the factor over many draws, against the error that each draw is given."""
    factors, errors = [], []
    for seed in range(200):
        shells = make_shells(noise=0.3, seed=seed)
        found = krogh_moe(shells, shells.mean_of(atoms))
        factors.append(found.factor)
        errors.append(found.shell_error)
    assert np.mean(factors) == pytest.approx(1 / SCALE, rel=0.01)
    # the strong shells at low q are before the plateau
    assert 0.3 < np.median(errors) / np.std(factors) < 1.5


def test_background_leaves_no_plateau():
    shells = make_shells(background=0.25 * SCALE * atoms(0.5))
    found = krogh_moe(shells, shells.mean_of(atoms))
    assert not found.is_level
    assert found.drift < -0.03
    assert found.factor < 0.9 / SCALE


def test_model_error_counts():
    shells = make_shells()
    found = krogh_moe(shells, shells.mean_of(atoms), model_error=0.05)
    assert found.error == pytest.approx(np.hypot(0.05 / SCALE, found.counting_error), rel=1e-6)


def test_empty_shells():
    shells = make_shells()
    shells.diffuse[[0, 9]] = np.nan
    shells.completeness[[10, 29]] = 0.001
    used, words = filled(shells, 0.02)
    assert len(used.q) == 28
    assert used.edges[0] == EDGES[1] and used.edges[-1] == EDGES[-2]
    assert "below 3.8 A and beyond 1.46 A" in words[0]
    assert words[1] == "2 empty shells are interpolated."
    assert used.diffuse[8] == pytest.approx(shells.diffuse[8] * 2 / 3 + shells.diffuse[11] / 3)
    found = krogh_moe(used, used.mean_of(atoms))
    assert found.factor == pytest.approx(1 / SCALE, rel=2e-3)
    shells.diffuse[:] = np.nan
    assert len(filled(shells, 0.02)[0].q) == 0
