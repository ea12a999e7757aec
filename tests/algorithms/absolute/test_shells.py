from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from cctbx import sgtbx, uctbx

from dials_diffuse.algorithms.absolute.bragg_intensities import BraggIntensities
from dials_diffuse.algorithms.absolute.shells import bragg_shells, diffuse_shells
from dials_diffuse.grid import GlobalGrid

CELL = uctbx.unit_cell((14, 14, 19, 90, 90, 90))


def make_grid(symbol, ndiv=(2, 2, 2)):
    return GlobalGrid(CELL, sgtbx.space_group_info(symbol).group(), ndiv, 1.5)


def sphere(n_max, cell):
    """All index triples but the origin, and their |q|."""
    axes = [np.arange(-n, n + 1) for n in n_max]
    index = np.array(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).T
    q = np.linalg.norm(index @ np.array(cell.fractionalization_matrix()).reshape(3, 3), axis=1)
    return index[q > 0], q[q > 0]


def test_voxels_count_with_their_equivalents():
    """The mean over the asymmetric unit, each voxel weighted, is that over all voxels of the shell."""
    grid, edges = make_grid("P4"), np.linspace(0.1, 0.6, 5)
    index, q = sphere(grid.n_max, grid.supercell)
    h, k, l = index.T
    values = 100 + (h**2 + k**2) ** 2 / 50 + 3 * np.abs(l)  # of 4/m
    unique = np.unique(grid.map_to_asu(index), axis=0)
    h, k, l = unique.T
    intensity = 100 + (h**2 + k**2) ** 2 / 50 + 3 * np.abs(l)
    voxels = SimpleNamespace(intensity=intensity, variance=np.full(len(unique), 4.0))
    mean, variance, completeness = diffuse_shells(grid, unique, voxels, edges)
    for i in range(4):
        here = (q > edges[i]) & (q <= edges[i + 1])
        assert mean[i] == pytest.approx(values[here].mean(), rel=1e-9)
        assert variance[i] == pytest.approx(4.0 * 8 / here.sum(), rel=0.25)  # about 8 equivalents each
    np.testing.assert_allclose(completeness, 1, atol=0.03)
    half = diffuse_shells(grid, unique[::2], SimpleNamespace(**{k: v[::2] for k, v in vars(voxels).items()}), edges)
    np.testing.assert_allclose(half[2], 0.5, atol=0.05)


@pytest.mark.parametrize("symbol", ["P41212", "I4"])
def test_peaks_are_spread_over_their_shell(symbol):
    grid, edges = make_grid(symbol), np.linspace(0.1, 0.6, 4)
    index, q = sphere((10, 10, 13), CELL)
    group = grid.space_group
    there = np.array([not group.is_sys_absent(tuple(map(int, h))) for h in index])
    index, q = index[there], q[there]
    wanted = [np.sum(2.0 + q[(q > low) & (q <= high)]) for low, high in zip(edges, edges[1:])]
    wanted = np.array(wanted) / (4 / 3 * np.pi * np.diff(edges**3))
    unique = np.unique(make_grid(symbol, (1, 1, 1)).map_to_asu(index), axis=0)
    d_star = np.linalg.norm(unique @ np.array(CELL.fractionalization_matrix()).reshape(3, 3), axis=1)
    bragg = BraggIntensities(unique, 2.0 + d_star, np.full(len(unique), 0.01), np.ones(len(unique)))
    mean, variance, completeness, strength = bragg_shells(grid, bragg, edges)
    np.testing.assert_allclose(mean, wanted, rtol=1e-9)
    np.testing.assert_allclose(completeness, 1, atol=1e-9)
    np.testing.assert_allclose(strength, 10 * (2 + (edges[1:] + edges[:-1]) / 2), rtol=0.02)
    # what is missing counts as the mean of the others
    random = np.random.RandomState(0).uniform(size=len(unique)) < 0.7
    part = BraggIntensities(unique[random], bragg.integral[random], bragg.variance[random], bragg.multiplicity[random])
    mean, _, completeness, _ = bragg_shells(grid, part, edges)
    np.testing.assert_allclose(mean, wanted, rtol=0.02)
    np.testing.assert_allclose(completeness, 0.7, atol=0.15)
