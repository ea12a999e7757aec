"""Maps that are known everywhere, for operations on them."""

from __future__ import annotations

import numpy as np
from grids import make_grid

from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap

CELLS = {
    "P 1": (20, 22, 25, 80, 95, 105),
    "P 21 21 21": (20, 22, 25, 90, 90, 90),
    "C 2": (20, 22, 25, 90, 100, 90),
    "P 41": (20, 20, 25, 90, 90, 90),
    "P 41 21 2": (20, 20, 25, 90, 90, 90),
    "P 6": (20, 20, 25, 90, 90, 120),
}


def grid_of(symbol: str, ndiv=(2, 2, 2), d_min: float = 3.0) -> GlobalGrid:
    return make_grid(CELLS[symbol], symbol, ndiv, d_min)


def all_voxels(grid: GlobalGrid) -> np.ndarray:
    """Those within d_min, shape (m, 3)."""
    index = grid.key2index(np.arange(np.prod(grid.shape)))
    return index[grid.contains(index)]


def waves(grid: GlobalGrid, index: np.ndarray, seed: int = 0, count: int = 3, length: float = 3.0) -> np.ndarray:
    """A smooth function of the Laue group's symmetry: cosines of vectors of some Angstrom, over a fall-off with |q|."""
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    vectors *= length / np.linalg.norm(vectors, axis=1)[:, None]
    x = vectors @ np.array(grid.unit_cell.fractionalization_matrix()).reshape(3, 3).T
    hkl = [grid.index2hkl(index @ rotation) for rotation in grid.rotations]
    values = sum(np.cos(2 * np.pi * h @ x.T).sum(axis=1) for h in hkl) / len(hkl)
    return (10 + 3 * values) * np.exp(-3 * grid.q(index) ** 2)


def map_of(
    grid: GlobalGrid, intensity=None, errors=0.1, *, index=None, noise=0.0, expand=True, **columns
) -> DiffuseMap:
    """A map of one voxel of each set of equivalent ones, expanded; of ``waves`` if no intensity is given."""
    if index is None:
        index = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0)
    if intensity is None:
        intensity = waves(grid, index)
    if noise:
        intensity = intensity + np.random.default_rng(7).normal(size=len(index)) * noise
    columns = {
        "intensity": intensity,
        "intensity_errors": np.full(len(index), errors, dtype=float),
        "observations": np.full(len(index), 3),
        "pixels": np.full(len(index), 100),
        "filled": np.zeros(len(index), dtype=int),
        **columns,
    }
    return DiffuseMap.from_voxels(grid, index, columns, wavelengths=1.0, expand=expand)


def voxels_of(diffuse_map: DiffuseMap) -> np.ndarray:
    """Voxels with an intensity, shape (m, 3)."""
    return np.argwhere(np.isfinite(diffuse_map.intensity)) + diffuse_map.lowest
