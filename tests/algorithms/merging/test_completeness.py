from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cctbx import miller
from grids import make_grid

from dials_diffuse.algorithms.merging.completeness import (
    CONE,
    completeness,
    equivalent_axes,
    possible_index,
    possible_voxels,
)
from dials_diffuse.algorithms.merging.halo import in_halo
from dials_diffuse.grid import GlobalGrid

CELLS = {
    "P 1": (11, 12, 13, 85, 95, 100),
    "P 21": (11, 12, 13, 90, 100, 90),
    "C 2": (14, 12, 13, 90, 100, 90),
    "P 41 21 2": (11, 11, 14, 90, 90, 90),
    "P 3": (11, 11, 14, 90, 90, 120),
    "I 2 3": (13, 13, 13, 90, 90, 90),
}


def grid_of(symbol: str, ndiv=(2, 2, 2), d_min: float = 4.0) -> GlobalGrid:
    return make_grid(CELLS[symbol], symbol, ndiv, d_min)


def box_of(grid: GlobalGrid) -> np.ndarray:
    box = np.array(list(itertools.product(*(range(-n, n + 1) for n in grid.n_max))))
    return box[grid.contains(box)]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("symbol", CELLS)
def test_possible_voxels_are_the_orbits(symbol, apart):
    """Against cctbx's orbits of every voxel in the box: one voxel for each, centring or not."""
    grid = replace(grid_of(symbol), friedel_apart=apart)
    edges = np.array([0, 0.15, 0.2, 0.25])
    group = grid.space_group.build_derived_point_group() if apart else grid.laue_group
    orbits = set()
    for index in box_of(grid):
        mates = [mate.h() for mate in miller.sym_equiv_indices(group, tuple(map(int, index))).indices()]
        orbits.add(max(mates if apart else [*mates, *(tuple(-n for n in mate) for mate in mates)]))
    q = grid.q(np.array(list(orbits)))
    wanted = [((q > low) & (q <= high)).sum() for low, high in zip(edges[:-1], edges[1:])]
    wanted[0] += 1  # the origin
    assert possible_voxels(grid, edges).tolist() == wanted
    mine = {tuple(index) for part in possible_index(grid) for index in part}
    assert mine == set(map(tuple, grid.map_to_asu(np.array(list(orbits)))))


@pytest.mark.parametrize("symbol", CELLS)
def test_cones_and_the_worst_direction(symbol):
    """With the voxels around the last axis left out, that axis has none, and the least complete cell is there."""
    grid = grid_of(symbol, (4, 4, 4), 2.5)
    edges = np.array([0, 1 / grid.d_min])
    index = np.concatenate(list(possible_index(grid)))
    whole = completeness(grid, index, edges, 1)
    assert [axis.completeness for axis in whole.axes] == [1] * len(whole.axes)
    assert whole.worst.completeness == 1
    assert sum(axis.name.count("*") for axis in whole.axes) == 3
    lines = equivalent_axes(grid)[-1][1]

    def degrees(hkl):
        """Angle to the nearest of the axes."""
        a, b = (np.asarray(x) @ np.array(grid.unit_cell.fractionalization_matrix()).reshape(3, 3) for x in (hkl, lines))
        with np.errstate(invalid="ignore"):
            cosine = (a @ b.T).max(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b[0])
        return np.degrees(np.arccos(np.clip(cosine, -1, 1)))

    box = box_of(grid)
    around = np.unique(grid.map_to_asu(box[degrees(box) <= CONE]), axis=0)
    assert whole.axes[-1].possible == len(around)
    left_out = (index[:, None] == around[None]).all(axis=2).any(axis=1)
    part = completeness(grid, index[~left_out], edges, 1)
    assert part.axes[-1].completeness == 0
    assert part.worst.completeness < 0.5
    assert np.abs(part.worst.hkl).max() == pytest.approx(1)
    assert degrees([part.worst.hkl])[0] < CONE + 5
    far = [cell for cell in part.cells if degrees([cell.hkl])[0] > CONE + 15]
    assert far and all(cell.completeness == 1 for cell in far)
    assert f"0.000 around {part.axes[-1].name}" in str(part)


def test_halo_is_what_surrounds_bragg_points():
    grid = grid_of("I 2 3", (3, 3, 3))
    index = np.array(list(itertools.product(range(-7, 8), repeat=3)))
    points = np.array([p for p in itertools.product(range(-4, 5), repeat=3) if sum(p) % 2 == 0]) * 3  # body-centred
    for radius in (0, 1, 1.5, 2):
        distance = np.linalg.norm(index[:, None] - points[None], axis=2).min(axis=1)
        np.testing.assert_array_equal(in_halo(grid, index, radius), distance <= radius)
