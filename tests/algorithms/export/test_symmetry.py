from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cctbx import miller
from hypothesis import given, settings
from hypothesis import strategies as st
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.cut import cut
from dials_diffuse.algorithms.export.symmetry import asymmetric_unit, asymmetric_voxels, expand, measured_voxels
from dials_diffuse.grid import miller_index_from_numpy


def assert_same(one, other):
    assert one.shape == other.shape and tuple(one.lowest) == tuple(other.lowest)
    for name, values in one.fields.items():
        np.testing.assert_array_equal(values, other.fields[name])
        assert values.dtype == other.fields[name].dtype


@pytest.mark.parametrize("symbol", CELLS)
@pytest.mark.parametrize("friedel_apart", [False, True])
def test_asymmetric_unit_and_back(symbol, friedel_apart):
    whole = cut(random_map(symbol, friedel_apart=friedel_apart), d_min=5)  # as small as holds what was measured
    assert expand(whole) is whole
    unit = asymmetric_unit(whole)
    index, columns = asymmetric_voxels(whole)
    kept = miller_index_from_numpy(index)
    assert voxels(unit) == dict(zip(map(tuple, index.tolist()), columns["intensity"].tolist()))
    merged = miller.set(whole.grid.crystal_symmetry(), kept, anomalous_flag=friedel_apart)
    assert merged.is_unique_set_under_symmetry()
    if not friedel_apart:
        assert merged.is_in_asu()
    assert_same(expand(unit), whole)
    assert voxels(unit).items() <= voxels(whole).items()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(CELLS)), st.integers(0, 1000), st.tuples(*[st.floats(-2, 2)] * 6))
def test_expansion_of_any_part(symbol, seed, limits):
    """Every voxel equivalent to one of the part, by cctbx, and no other."""
    whole = random_map(symbol, ndiv=(1, 1, 1), share=0.5, seed=seed)
    ranges = list(zip(limits[:3], limits[3:]))
    known = voxels(whole)
    part = {
        n: value for n, value in known.items() if all(min(r) - 1e-6 <= x <= max(r) + 1e-6 for r, x in zip(ranges, n))
    }
    if not part:
        return
    expanded = voxels(expand(cut(whole, ranges)))
    group = whole.grid.laue_group
    mates = {mate.h() for n in part for mate in miller.sym_equiv_indices(group, n).indices()}
    assert expanded == {mate: known[mate] for mate in mates}


def test_own_values_come_first():
    """A map without the symmetry keeps what it has."""
    made = random_map("P 21 21 21")
    rng = np.random.default_rng(0)
    odd = np.where(np.isfinite(made.intensity), rng.random(made.shape), np.nan).astype(np.float32)
    odd[:3] = np.nan
    filled = expand(replace(made, fields={"intensity": odd})).intensity
    own = np.isfinite(odd)
    np.testing.assert_array_equal(filled[own], odd[own])
    assert np.isfinite(filled).sum() > own.sum()


def test_all_measured_voxels():
    made = random_map("P 1")
    index, columns = measured_voxels(made)
    assert dict(zip(map(tuple, index.tolist()), columns["intensity"].tolist())) == voxels(made)
