from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from dials.util import Sorry
from grids import make_grid
from hypothesis import given
from hypothesis import strategies as st
from iotbx.phil import parse

from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.phil_scope.grid import phil_scope

CELLS = {
    "P1": (41, 52, 63, 80, 95, 102),
    "C2": (61, 42, 53, 90, 105, 90),
    "P212121": (41, 52, 63, 90, 90, 90),
    "P41": (48.4, 48.4, 63.35, 90, 90, 90),
    "P43212": (48.4, 48.4, 63.35, 90, 90, 90),
    "R3:H": (60, 60, 90, 90, 90, 120),
    "P3112": (60, 60, 90, 90, 90, 120),
    "P3121": (60, 60, 90, 90, 90, 120),
    "P61": (60, 60, 90, 90, 90, 120),
    "P6122": (60, 60, 90, 90, 90, 120),
    "P213": (50, 50, 50, 90, 90, 90),
    "I4132": (50, 50, 50, 90, 90, 90),
}


def grid_of(symbol: str = "P41", ndiv=(2, 2, 3), d_min: float = 4.0) -> GlobalGrid:
    return make_grid(CELLS[symbol], symbol, ndiv, d_min)


triples = st.lists(st.tuples(*[st.integers(-200, 200)] * 3), min_size=1, max_size=30).map(np.array)


@given(index=triples, ndiv=st.tuples(*[st.integers(1, 7)] * 3))
def test_voxels_are_centred_on_multiples_of_their_width(index, ndiv):
    grid = grid_of("P1", ndiv)
    assert (grid.hkl2index(grid.index2hkl(index)) == index).all()
    inside = grid.index2hkl(index) + 0.49 / np.array(ndiv) * np.array([1, -1, 1])
    assert (grid.hkl2index(inside) == index).all()


@given(hkl=triples, ndiv=st.tuples(*[st.integers(1, 7)] * 3))
def test_bragg_points_are_centres_of_voxels(hkl, ndiv):
    grid = grid_of("P1", ndiv)
    index = grid.hkl2index(hkl)
    assert (grid.index2hkl(index) == hkl).all()
    assert grid.is_bragg(index).all()


@given(data=st.data(), d_min=st.floats(2.0, 20.0), ndiv=st.tuples(*[st.integers(1, 5)] * 3))
def test_keys_are_positions_in_the_box(data, d_min, ndiv):
    grid = grid_of("P1", ndiv, d_min)
    keys = np.array(data.draw(st.lists(st.integers(0, int(np.prod(grid.shape)) - 1), min_size=1, max_size=20)))
    index = grid.key2index(keys)
    assert (np.abs(index) <= grid.n_max).all()
    assert (grid.index2key(index) == keys).all()
    assert (grid.index2key(index) == np.ravel_multi_index((index + grid.n_max).T, grid.shape)).all()


@pytest.mark.parametrize("symbol", CELLS)
def test_box_is_the_smallest_that_holds_the_sphere(symbol):
    grid = grid_of(symbol, (2, 2, 2), 8.0)
    around = np.stack(np.meshgrid(*(np.arange(-n - 3, n + 4) for n in grid.n_max), indexing="ij"), -1).reshape(-1, 3)
    inside = around[grid.contains(around)]
    assert (np.abs(inside) <= grid.n_max).all()
    assert (np.abs(inside).max(axis=0) >= np.array(grid.n_max) - 1).all()


def test_q_is_that_of_the_unit_cell():
    grid = grid_of("P1", (2, 3, 4))
    index = np.array([[2, 0, 0], [4, -9, 8], [1, 1, 1]])
    assert grid.q(index)[:2] == pytest.approx([1 / grid.unit_cell.d((1, 0, 0)), 1 / grid.unit_cell.d((2, -3, 2))])
    metric = np.array(grid.unit_cell.reciprocal().metrical_matrix())[[0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(3, 3)
    h = np.array([1 / 2, 1 / 3, 1 / 4])
    assert grid.q(index)[2] == pytest.approx(np.sqrt(h @ metric @ h))


def test_ndiv_must_fit_the_laue_group():
    with pytest.raises(Sorry, match="ndiv=2,3,3 does not fit Laue group 4/m"):
        grid_of("P41", (2, 3, 3))
    grid_of("P212121", (2, 3, 4))


@pytest.mark.parametrize("symbol", CELLS)
def test_round_trips(symbol):
    grid = grid_of(symbol, (3, 3, 3), 1.7123456789)
    assert GlobalGrid.from_json(grid.as_json()) == grid
    params = phil_scope.fetch(parse(grid.as_phil())).extract()
    assert params.grid.unit_cell.is_similar_to(grid.unit_cell, 1e-9, 1e-9)
    assert params.grid.space_group.group() == grid.space_group
    assert (tuple(params.grid.ndiv), params.d_min) == (grid.ndiv, grid.d_min)


@given(index=triples)
def test_miller_index_conversion(index):
    assert list(miller_index_from_numpy(index)) == [tuple(row) for row in index]
    assert (miller_index_to_numpy(miller_index_from_numpy(index)) == index).all()


@pytest.mark.parametrize("symbol", CELLS)
def test_friedel_mates_apart(symbol):
    """Against cctbx's orbits in the point group; -n has the same representative only where a rotation takes n there."""
    together = grid_of(symbol, (2, 2, 2))
    apart = replace(together, friedel_apart=True)
    index = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    group = together.space_group.build_derived_point_group()
    rotations = [np.array(operation.r().as_double()).reshape(3, 3).astype(int) for operation in group]
    orbits = [frozenset(tuple(n @ rotation) for rotation in rotations) for n in index]
    found = [tuple(n) for n in apart.map_to_asu(index)]
    assert all(representative in orbit for representative, orbit in zip(found, orbits))
    assert len(set(found)) == len(set(orbits))
    laue = together.map_to_asu(index)
    assert ((np.array(found) == laue).all(axis=1) | (np.array(found) == -laue).all(axis=1)).all()
    assert GlobalGrid.from_json(apart.as_json()) == apart != together
    assert "Friedel mates apart" in str(apart)
