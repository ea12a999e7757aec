from __future__ import annotations

import numpy as np
import pytest

from dials_diffuse.algorithms.absolute.wilson import wilson

Q = np.linspace(0.1, 0.6, 26)
SUM_F2 = 3e4 * np.exp(-2 * Q**2)
ALL = np.ones(26, dtype=bool)


def test_line():
    intensity = SUM_F2 * np.exp(-21 * Q**2 / 2) / 0.02
    intensity[Q < 0.22] *= 3  # solvent
    found = wilson(Q, intensity, Q**2, SUM_F2, ALL)
    assert found.factor == pytest.approx(0.02)
    assert found.b_factor == pytest.approx(21)
    np.testing.assert_allclose(found.line(found.q), found.logarithm, atol=1e-9)


def test_errors():
    """Of 300 draws of shells of 40 reflections by Wilson's statistics."""
    random = np.random.RandomState(3)
    found = []
    for _ in range(300):
        mean = random.exponential(size=(26, 40)).mean(axis=1)
        found.append(wilson(Q, mean * SUM_F2 * np.exp(-12 * Q**2 / 2) / 0.02, np.ones(26), SUM_F2, ALL))
    b = [f.b_factor for f in found]
    assert np.mean(b) == pytest.approx(12, abs=0.2)
    assert np.median([f.b_error for f in found]) == pytest.approx(np.std(b), rel=0.2)
    assert np.median([f.error for f in found]) == pytest.approx(np.std([f.factor for f in found]), rel=0.2)


def test_weak_and_empty_shells_are_left_out():
    intensity = SUM_F2 * np.exp(-21 * Q**2 / 2) / 0.02
    intensity[-4:] *= 5
    intensity[10] = np.nan
    strong = ALL.copy()
    strong[-4:] = False
    assert wilson(Q, intensity, Q**2, SUM_F2, strong).b_factor == pytest.approx(21)
    assert wilson(Q, intensity, Q**2, SUM_F2, ~ALL) is None
