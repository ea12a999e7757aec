from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cctbx import miller
from dials.util import Sorry
from hypothesis import given, settings
from hypothesis import strategies as st
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.resample import resample
from dials_diffuse.algorithms.export.symmetry import asymmetric_unit


def overlaps(m, factor):
    """Old voxels along one axis that a new one covers, and the share of each: intersections of intervals."""
    low, high = (m - 0.5) * factor, (m + 0.5) * factor
    shares = {n: min(high, n + 0.5) - max(low, n - 0.5) for n in range(int(low) - 2, int(high) + 3)}
    return {n: share for n, share in shares.items() if share > 1e-9}


def orbit(group, n):
    """Equivalent voxels, by cctbx."""
    return [mate.h() for mate in miller.sym_equiv_indices(group, tuple(int(x) for x in n)).indices()]


DIVISIONS = [(2, 1), (3, 1), (4, 1), (4, 2), (6, 3), (1, 1)]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(CELLS)),
    st.sampled_from(DIVISIONS),
    st.sampled_from(DIVISIONS),
    st.integers(0, 1000),
    st.booleans(),
)
def test_against_intersections_of_voxels(symbol, a, c, seed, friedel_apart):
    """Mean, error and counts from intervals that overlap and cctbx's sets of equivalent voxels."""
    divisions = (a, a, c) if symbol in ("P 65", "P 31 2 1", "I 41") else (a, a, a) if symbol[0] in "RF" else (c, a, c)
    fine, coarse = (tuple(numbers) for numbers in zip(*divisions))
    made = random_map(symbol, ndiv=fine, d_min=20, seed=seed, friedel_apart=friedel_apart)
    group = made.grid.equivalence_group
    result = resample(asymmetric_unit(made), coarse)
    assert result.grid.ndiv == coarse
    factors = [f // c for f, c in divisions]
    known = voxels(made)
    expected = {}
    box = itertools.product(*(range(-n // f - 1, n // f + 2) for n, f in zip(made.grid.n_max, factors)))
    for m in [m for m in box if result.grid.contains(np.array([m]))[0]]:
        mates = orbit(group, m)
        shares = {}  # of sets of equivalent voxels, in all equivalents of m
        value = volume = pixels = filled = half = 0
        for mate in mates:
            covered = [overlaps(x, factor) for x, factor in zip(mate, factors)]
            for n in itertools.product(*covered):
                if n in known:
                    w = np.prod([part[x] for part, x in zip(covered, n)]) / len(mates)
                    at = tuple(np.array(n) - made.lowest)
                    equivalent = orbit(group, n)
                    shares[max(equivalent)] = shares.get(max(equivalent), 0) + w
                    volume += w
                    value += w * known[n]
                    half += w * made.fields["half_2"][at]
                    pixels += w * made.fields["pixels"][at] * len(mates) / len(equivalent)
                    filled = filled or made.fields["filled"][at]
        if volume:
            errors = [made.at(np.array([n]), "intensity_errors")[0] for n in shares]
            variance = np.sum((np.array(list(shares.values())) * errors) ** 2)
            expected[m] = (value / volume, half / volume, variance**0.5 / volume, pixels, filled)
    found = voxels(result)
    assert set(found) == set(expected)
    names = ("intensity", "half_2", "intensity_errors", "pixels", "filled")
    values = np.array([result.at(np.array(list(expected)), name) for name in names])
    numbers = np.array(list(expected.values())).T
    np.testing.assert_allclose(values[:3], numbers[:3], rtol=1e-5)
    np.testing.assert_allclose(values[3], numbers[3], atol=0.501)
    np.testing.assert_array_equal(values[4], numbers[4])


@pytest.mark.parametrize("coarse", [(3, 3, 3), (2, 2, 2), (1, 1, 1), (6, 3, 1)])
def test_a_plane_stays_a_plane(coarse):
    """The mean of a linear function over a voxel is its value at the centre: nothing is shifted."""
    made = random_map("P 1", ndiv=(6, 6, 6), d_min=20, friedel_apart=True)  # a plane is not symmetric
    plane = 1 + 2 * made.h[:, None, None] - made.k[:, None] + 0.5 * made.l
    fields = {"intensity": plane.astype(np.float32), "intensity_errors": np.ones(made.shape, np.float32)}
    result = resample(replace(made, fields=fields), coarse)
    expected = 1 + 2 * result.h[:, None, None] - result.k[:, None] + 0.5 * result.l
    whole = np.isfinite(result.intensity)
    axes = zip((result.h, result.k, result.l), (made.h, made.k, made.l), np.indices(whole.shape), coarse)
    for axis, old, place, ndiv in axes:
        whole &= np.abs(axis[place]) + 0.5 / ndiv <= old[-1] + 1e-6
    assert whole.sum() > 0
    np.testing.assert_allclose(result.intensity[whole], expected[whole], atol=1e-5)


@pytest.mark.parametrize("symbol", ["P 21 21 21", "P 65"])
@pytest.mark.parametrize("coarse", [(1, 1, 1), (2, 2, 2)])
def test_errors_are_those_of_the_scatter(symbol, coarse):
    """Also in voxels on mirrors and axes, where measurements count twice and more."""
    made = random_map(symbol, ndiv=(4, 4, 4), d_min=8, share=1)
    unit = asymmetric_unit(made)
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(20):
        values = np.where(np.isnan(unit.intensity), np.nan, rng.normal(0, unit.intensity_errors)).astype(np.float32)
        fields = {"intensity": values, "intensity_errors": unit.intensity_errors}
        result = asymmetric_unit(resample(replace(unit, fields=fields), coarse))
        pulls.append(result.intensity / result.intensity_errors)
    pulls = np.array(pulls)
    assert np.nanstd(pulls) == pytest.approx(1, abs=4 / np.isfinite(pulls).sum() ** 0.5)
    special = pulls[:, :, :, 0]  # h k 0
    assert np.nanstd(special) == pytest.approx(1, abs=4 / np.isfinite(special).sum() ** 0.5)


def test_refusals():
    made = random_map("P 65", ndiv=(4, 4, 4))
    with pytest.raises(
        Sorry, match=r"ndiv=4,4,4 cannot be resampled to ndiv=3,3,3: .*diffuse_merge scaled.expt grid.ndiv"
    ):
        resample(made, (3, 3, 3))
    with pytest.raises(Sorry, match="cannot be resampled to ndiv=8,8,8"):
        resample(made, (8, 8, 8))
    with pytest.raises(Sorry, match="does not fit Laue group"):
        resample(made, (2, 4, 4))
    assert resample(made, (4, 4, 4)) is made
