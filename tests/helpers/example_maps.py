"""Small maps of known values on any lattice."""

from __future__ import annotations

import numpy as np
from grids import make_grid

from dials_diffuse.map_file import DiffuseMap

CELLS = {
    "P 1": (20, 23, 26, 82, 105, 97),
    "C 1 2 1": (24, 16, 28, 90, 112, 90),
    "P 2 2 2": (20, 23, 26, 90, 90, 90),
    "P 6": (22, 22, 26, 90, 90, 120),
    "P 3 1 2": (22, 22, 26, 90, 90, 120),
    "F 4 3 2": (26, 26, 26, 90, 90, 90),
}


def example_map(symbol: str, *, ndiv: int = 2, d_min: float = 2.5, expand: bool = True, friedel_apart: bool = False):
    """A map and, of its measured voxels, one of each set of equivalent ones.

    Intensities are from -100 to 100 000 and 0 in some voxels, errors a tenth; Bragg points and some voxels are not
    measured.

    Returns
    -------
    DiffuseMap
    index : ndarray, shape (m, 3), int
    columns : dict of str to ndarray, shape (m,)
    """
    grid = make_grid(CELLS[symbol], symbol, (ndiv,) * 3, d_min, friedel_apart)
    box = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in grid.n_max), indexing="ij"), axis=-1).reshape(-1, 3)
    index = box[grid.contains(box) & ~grid.is_bragg(box)]
    index = index[(grid.map_to_asu(index.astype(np.int32)) == index).all(axis=1)]
    rng = np.random.default_rng(1)
    index = index[rng.uniform(size=len(index)) < 0.95]
    intensity = 10 ** rng.uniform(1, 5, len(index)) - 110
    intensity[::50] = 0
    errors = 10 ** rng.uniform(0, 1, len(index))
    columns = {"intensity": intensity, "intensity_errors": errors}
    return DiffuseMap.from_voxels(grid, index, columns, wavelengths=np.ones(1), expand=expand), index, columns
