"""Maps of random numbers that have the symmetry of their grid."""

from __future__ import annotations

import numpy as np
from grids import make_grid

from dials_diffuse.map_file import DiffuseMap

#: A cell for each space group, most of them oblique.
CELLS = {
    "P 1": (20, 21, 22, 85, 95, 100),
    "C 1 2 1": (20, 21, 22, 90, 100, 90),
    "P 21 21 21": (18, 21, 24, 90, 90, 90),
    "I 41": (20, 20, 25, 90, 90, 90),
    "P 31 2 1": (20, 20, 25, 90, 90, 120),
    "R 3 :R": (20, 20, 20, 80, 80, 80),
    "P 65": (20, 20, 25, 90, 90, 120),
    "F 4 3 2": (24, 24, 24, 90, 90, 90),
}


def random_map(
    symbol: str,
    ndiv: tuple[int, int, int] = (2, 2, 2),
    d_min: float = 5.0,
    share: float = 0.7,
    seed: int = 0,
    friedel_apart: bool = False,
) -> DiffuseMap:
    """All voxels within ``d_min``, a share of them measured; equivalent ones are equal."""
    grid = make_grid(CELLS[symbol], symbol, ndiv, d_min, friedel_apart)
    index = grid.key2index(np.arange(np.prod(grid.shape)))
    representatives, which = np.unique(grid.map_to_asu(index), axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    measured = rng.random(len(representatives)) < share
    which = which.reshape(-1)
    measured[which[len(index) // 2]] = True  # 0 0 0, so that there is one
    measured = measured[which] & grid.contains(index)
    fields = {}
    for name in ("intensity", "intensity_errors", "half_1", "half_1_errors", "half_2", "half_2_errors"):
        values = rng.integers(1, 1000, len(representatives)) / 8
        fields[name] = np.where(measured, values[which], np.nan).astype(np.float32).reshape(grid.shape)
    for name, dtype in (("observations", "i4"), ("pixels", "i8"), ("filled", "i1")):
        values = rng.integers(1, 100, len(representatives))
        fields[name] = np.where(measured, values[which], 0).astype(dtype).reshape(grid.shape)
    fields["filled"] %= 2
    axes = grid.axes(np.negative(grid.n_max), grid.shape)
    return DiffuseMap(grid, *axes, fields, np.array([0.97]), [])


def voxels(diffuse_map: DiffuseMap) -> dict[tuple[int, int, int], float]:
    """Intensities of the measured voxels by their indices."""
    places = np.argwhere(np.isfinite(diffuse_map.intensity))
    values = diffuse_map.intensity[tuple(places.T)]
    return {tuple(n): float(value) for n, value in zip((places + diffuse_map.lowest).tolist(), values)}
