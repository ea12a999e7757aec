"""Symmetry by brute force: cctbx's operators one by one, and rules written out by hand, in every setting.

Nothing here asks cctbx for an asymmetric unit, a Laue group, equivalents or absences.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from cctbx import sgtbx
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from hypothesis import given, settings
from hypothesis import strategies as st
from iotbx.phil import parse

from dials_diffuse.algorithms.merging.statistics import possible_voxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy
from dials_diffuse.map_file import FIELDS, read_map, write_map
from dials_diffuse.phil_scope.grid import phil_scope

#: Laue groups and the number of voxels equivalent to a general one.
MULTIPLICITY = {
    "-1": 2,
    "2/m": 4,
    "mmm": 8,
    "4/m": 8,
    "4/mmm": 16,
    "-3": 6,
    "-3m": 12,
    "-3m1": 12,
    "-31m": 12,
    "6/m": 12,
    "6/mmm": 24,
    "m-3": 24,
    "m-3m": 48,
}

#: Space groups by Laue group: Hermann-Mauguin symbols, some with a change of basis to axes that are not tabulated.
SETTINGS = {
    "-1": ["P 1", "P 1 (a+b,b,c)", "C 1", "F 1"],
    "2/m": ["P 1 2 1", "P 2 1 1", "P 1 1 21", "C 1 2 1", "A 1 2 1", "I 1 2 1", "B 1 1 2", "I 1 1 2", "C 2 1 1"],
    "mmm": [
        *(
            "P 2 2 2",
            "P 21 21 2",
            "P 2 21 21",
            "P 21 2 21",
            "C 2 2 21",
            "A 21 2 2",
            "B 2 21 2",
            "F 2 2 2",
            "I 21 21 21",
        ),
        *("C 2 2 2 (a+b,-a+b,c)", "P 21 21 2 (a+b,-a+b,c)"),
    ],
    "4/m": ["P 4", "P 41", "P 43 (b,c,a)", "P 4 (c,a,b)", "P 4 (a+b,-a+b,c)", "I 41", "I 4 (b,c,a)"],
    "4/mmm": ["P 43 21 2", "P 4 2 2 (c,a,b)", "P 41 21 2 (a+b,-a+b,c)", "I 4 2 2", "I 41 2 2 (b,c,a)"],
    "-3": ["P 3", "P 31 (b,c,a)", "R 3 :H", "R 3 :R", "R 3 :H (-a,-b,c)", "P 32 (2*a+b,-a+b,c)"],
    "-3m": ["R 3 2 :R", "R 3 2 :H (b,c,a)", "P 31 2 1 (b,c,a)", "P 3 1 2 (c,a,b)"],
    "-3m1": ["P 3 2 1", "P 31 2 1", "R 3 2 :H", "R 3 2 :H (-a,-b,c)", "P 3 1 2 (2*a+b,-a+b,c)"],
    "-31m": ["P 3 1 2", "P 32 1 2", "P 3 2 1 (2*a+b,-a+b,c)"],
    "6/m": ["P 6", "P 63", "P 61 (c,a,b)"],
    "6/mmm": ["P 6 2 2", "P 61 2 2 (b,c,a)", "P 6 2 2 (2*a+b,-a+b,c)"],
    "m-3": ["P 2 3", "P 21 3", "I 2 3", "F 2 3", "I 21 3 (b,c,a)"],
    "m-3m": ["P 4 3 2", "I 41 3 2", "F 41 3 2"],
}
ALL = [(symbol, laue) for laue, symbols in SETTINGS.items() for symbol in symbols]

#: Which Bragg points there are, by the lattice (International Tables A, table 2.1.3.6).
PRESENT = {
    "P": lambda h, k, l: True,
    "A": lambda h, k, l: (k + l) % 2 == 0,
    "B": lambda h, k, l: (h + l) % 2 == 0,
    "C": lambda h, k, l: (h + k) % 2 == 0,
    "I": lambda h, k, l: (h + k + l) % 2 == 0,
    "F": lambda h, k, l: h % 2 == k % 2 == l % 2,
    "R:H": lambda h, k, l: (-h + k + l) % 3 == 0,  # obverse
    "R:R": lambda h, k, l: True,
}


@cache
def space_group(symbol: str) -> sgtbx.space_group:
    if symbol in ("C 1", "F 1"):  # not tabulated
        return sgtbx.space_group(symbol)
    return sgtbx.space_group_info(symbol).group()


def grid_of(symbol: str, ndiv=(1, 1, 1), d_min: float = 6.0) -> GlobalGrid:
    group = space_group(symbol)
    return GlobalGrid(group.info().any_compatible_unit_cell(60_000), group, ndiv, d_min)


@cache
def rotations(symbol: str) -> np.ndarray:
    """Rotation parts of the space group's operators, and minus them (Friedel): h R is equivalent to h."""
    matrices = {tuple(int(r) for r in operation.r().as_double()) for operation in space_group(symbol)}
    return np.array(sorted(matrices | {tuple(-r for r in matrix) for matrix in matrices})).reshape(-1, 3, 3)


def orbit(symbol: str, voxel) -> set[tuple[int, int, int]]:
    return {tuple(mate) for mate in (np.asarray(voxel) @ rotations(symbol)).tolist()}


voxels = st.lists(st.tuples(*[st.integers(-40, 40)] * 3), min_size=1, max_size=8).map(np.array)


@pytest.mark.parametrize("symbol,laue", ALL)
def test_laue_group(symbol, laue):
    grid = grid_of(symbol)
    assert grid.laue_symbol == laue
    assert len(orbit(symbol, (5, 7, 17))) == MULTIPLICITY[laue]
    assert {tuple(op.r().as_double()) for op in grid.laue_group} == {tuple(r.ravel()) for r in rotations(symbol)}
    assert GlobalGrid.from_json(grid.as_json()).space_group == space_group(symbol)
    assert phil_scope.fetch(parse(grid.as_phil())).extract().grid.space_group.group() == space_group(symbol)


@pytest.mark.parametrize("symbol", [symbol for symbol, _ in ALL])
@settings(max_examples=5, deadline=None)
@given(index=voxels, ndiv=st.integers(1, 3))
def test_representatives(symbol, index, ndiv):
    """Equivalent voxels have one representative, which is one of them, and one |q|."""
    grid = grid_of(symbol, (ndiv,) * 3)
    representative = grid.map_to_asu(index)
    for voxel, chosen in zip(index.tolist(), representative.tolist()):
        mates = np.array(sorted(orbit(symbol, voxel)))
        assert chosen in mates.tolist()
        assert (grid.map_to_asu(mates) == chosen).all()
        assert np.allclose(grid.q(mates), grid.q(np.array([voxel])), rtol=1e-9)


def test_settings_that_are_easily_mixed_up():
    """Equivalents from International Tables A, part 10: of 123, 321 has 2 1 -3 and 312 has 2 1 3; and so on."""
    for symbol, mate, other in [
        ("P 31 2 1", (2, 1, -3), (2, 1, 3)),
        ("R 3 2 :H", (2, 1, -3), (2, 1, 3)),
        ("P 31 1 2", (2, 1, 3), (2, 1, -3)),
        ("R 3 2 :R", (2, 1, 3), (-2, 1, 3)),
        ("P 3", (2, -3, 3), (2, 1, 3)),
        ("R 3 :R", (2, 3, 1), (2, 1, 3)),
        ("P 2 1 1", (1, -2, -3), (1, -2, 3)),
        ("P 1 1 21", (-1, -2, 3), (-1, 2, 3)),
        ("P 4 (c,a,b)", (1, 3, -2), (2, -1, 3)),
        ("P 2 3", (2, 3, 1), (2, 1, 3)),
    ]:
        (own,), (same,), (different,) = (grid_of(symbol).map_to_asu(np.array([v])) for v in ((1, 2, 3), mate, other))
        assert (own == same).all() and (own != different).any(), symbol


@pytest.mark.parametrize("ndiv", [1, 2, 3])
@pytest.mark.parametrize("lattice", PRESENT)
def test_bragg_points_by_centring(lattice, ndiv):
    """By the lattice alone: what screw axes and glide planes extinguish counts as a Bragg point."""
    letter, _, axes = lattice.partition(":")
    of_lattice = [s for s, _ in ALL if s[0] == letter and ("(" not in s or letter == "I") and s.endswith(axes)]
    assert of_lattice
    for symbol in of_lattice:
        grid = grid_of(symbol, (ndiv,) * 3)
        index = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        expected = [
            all(n % ndiv == 0 for n in voxel) and PRESENT[lattice](*(n // ndiv for n in voxel))
            for voxel in index.tolist()
        ]
        assert (grid.is_bragg(index) == expected).all(), symbol


def test_reverse_setting_and_bases_without_a_letter():
    """Centrings that a change of basis makes: the translations t leave Bragg points where h t is an integer."""
    index = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for symbol in ("R 3 :H (-a,-b,c)", "C 2 2 2 (a+b,-a+b,c)", "P 4 (a+b,-a+b,c)", "P 32 (2*a+b,-a+b,c)", "F 1"):
        operations = [operation for operation in space_group(symbol) if operation.r().is_unit_mx()]
        phase = index @ np.array([operation.t().as_double() for operation in operations]).T
        present = (np.abs(phase - phase.round()) < 1e-6).all(axis=1)
        assert (grid_of(symbol).is_bragg(index) == present).all(), symbol
    reverse = grid_of("R 3 :H (-a,-b,c)")
    assert (reverse.is_bragg(index) == ((index @ [1, -1, 1]) % 3 == 0)).all()


@pytest.mark.parametrize("symbol", [symbol for symbol, _ in ALL])
def test_ndiv_fits_where_rotations_take_voxels_to_voxels(symbol):
    for ndiv in ((1, 1, 2), (1, 2, 1), (2, 1, 1), (1, 2, 3), (2, 2, 2)):
        scaled = rotations(symbol) * np.array(ndiv) / np.array(ndiv)[:, None]
        if (scaled == rotations(symbol)).all():
            grid_of(symbol, ndiv)
        else:
            with pytest.raises(Sorry, match=f"grid.ndiv={ndiv[0]},{ndiv[1]},{ndiv[2]} does not fit Laue group"):
                grid_of(symbol, ndiv)


@pytest.mark.parametrize("symbol", [symbol for symbol, _ in ALL])
def test_map_holds_every_equivalent_voxel_and_no_other(symbol, tmp_path):
    grid = grid_of(symbol, (2, 2, 2))
    chosen = np.random.default_rng(3).integers(-6, 7, (40, 3))
    chosen = np.unique(grid.map_to_asu(np.concatenate([chosen, [[0, 0, 0], [2, 0, 0], [0, 3, 0], [1, 1, 0]]])), axis=0)
    values = np.arange(1.0, len(chosen) + 1)
    columns = {name: values for name, *_ in FIELDS}
    write_map(tmp_path / "m.nxs", grid, chosen, columns, wavelengths=np.ones(1), history=[])
    read = read_map(tmp_path / "m.nxs")
    expected = {mate: value for voxel, value in zip(chosen, values) for mate in orbit(symbol, voxel)}
    shift = np.rint([read.h[0] * 2, read.k[0] * 2, read.l[0] * 2]).astype(int)
    measured = np.argwhere(np.isfinite(read.intensity))
    found = {tuple(n): read.intensity[tuple(n - shift)] for n in (measured + shift).tolist()}
    assert found == expected
    assert len(expected) <= MULTIPLICITY[grid.laue_symbol] * len(chosen)


@pytest.mark.parametrize("symbol", [symbol for symbol, _ in ALL])
def test_possible_voxels_are_one_of_each_orbit(symbol):
    """Completeness is in parts of these."""
    grid = grid_of(symbol, (1, 1, 1), 8.0)
    index = grid.key2index(np.arange(np.prod(grid.shape)))
    mates = index[grid.contains(index)] @ rotations(symbol)  # one row an operation
    orbits = np.unique(np.sort(grid.index2key(mates.reshape(-1, 3)).reshape(mates.shape[:2]), axis=0), axis=1)
    assert possible_voxels(grid, np.array([0, 0.06, 1 / 8.0])).sum() == orbits.shape[1]


@pytest.mark.parametrize("symbol", [symbol for symbol, _ in ALL])
def test_observations_are_grouped_exactly_by_equivalents(symbol):
    """Grouping is what scaling and merging start from."""
    grid = grid_of(symbol, (2, 2, 2))
    rng = np.random.default_rng(4)
    index = rng.integers(-4, 5, (60, 3))
    index = np.concatenate(
        [index, *(index[::6] @ rotations(symbol)[rng.integers(len(rotations(symbol)))] for _ in "abc")]
    )
    index = index[grid.contains(index)]
    table = flex.reflection_table()
    table["miller_index"] = miller_index_from_numpy(index)
    table["id"] = flex.int(len(index), 0)
    table["panel"] = flex.size_t(len(index), 0)
    for name in ("counts", "response", "background.sum.value", "background.sum.variance"):
        table[name] = flex.double(len(index), 1)
    table["xyzobs.px.value"] = flex.vec3_double(len(index), (0, 0, 0))
    groups = GroupedObservations.from_dataset(Dataset(ExperimentList(), table, grid, []))
    orbits = [orbit(symbol, voxel) for voxel in index]
    expected = {frozenset(row for row, voxel in enumerate(index.tolist()) if tuple(voxel) in mates) for mates in orbits}
    found = {frozenset(rows.tolist()) for rows in np.split(groups.rows, groups.first[1:-1])}
    assert found == expected
