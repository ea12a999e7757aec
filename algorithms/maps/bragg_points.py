"""Voxels near Bragg points."""

from __future__ import annotations

import itertools

import numpy as np

from dials_diffuse.grid import GlobalGrid, lattice_group, miller_index_from_numpy
from dials_diffuse.map_file import DiffuseMap

#: Centring translations are multiples of 1/6 of a lattice vector: absences repeat after so many indices.
CENTRING_PERIOD = 6


class BraggPattern:
    """Which voxels have their centres near a Bragg point: a pattern that repeats.

    Parameters
    ----------
    grid : GlobalGrid
    hkl : tuple of 3 float, optional
        Semi-axes, below 1, of an ellipsoid in fractional Miller indices, and of its images under the Laue group:
        (dh / r_h)^2 + (dk / r_k)^2 + (dl / r_l)^2 <= 1.
    q : float, optional
        Radius of a sphere in 1/A. Near is what is near by either measure.
    """

    def __init__(
        self, grid: GlobalGrid, *, hkl: tuple[float, float, float] | None = None, q: float | None = None
    ) -> None:
        centring = lattice_group(grid.space_group)
        self.period = np.array(grid.ndiv) * (CENTRING_PERIOD if centring.order_z() > 1 else 1)
        index = np.stack(np.meshgrid(*map(np.arange, self.period), indexing="ij"), axis=-1).reshape(-1, 3)
        orthogonal = np.array(grid.unit_cell.fractionalization_matrix()).reshape(3, 3)
        near = np.zeros(len(index), dtype=bool)
        nearest = np.rint(grid.index2hkl(index)).astype(int)
        for neighbour in itertools.product((-1, 0, 1), repeat=3):
            point = nearest + neighbour
            offset = grid.index2hkl(index) - point
            inside = np.zeros(len(index), dtype=bool)
            if hkl is not None:
                inside |= ((offset / hkl) ** 2).sum(axis=1) <= 1 + 1e-9
            if q is not None:
                inside |= np.linalg.norm(offset @ orthogonal, axis=1) <= q * (1 + 1e-9)
            present = miller_index_from_numpy(point[inside])
            inside[inside] = ~np.array(list(centring.is_sys_absent(present)), dtype=bool)
            near |= inside
        pattern = near.reshape(self.period)
        images = [pattern[tuple((index @ rotation % self.period).T)] for rotation in grid.rotations]
        self.pattern = np.any(images, axis=0).reshape(self.period)

    def near(self, diffuse_map: DiffuseMap, planes: slice) -> np.ndarray:
        """Of the voxels in some planes of a map along h, shape (planes, nk, nl), bool."""
        ranges = (np.arange(n) + lowest for n, lowest in zip(diffuse_map.shape, diffuse_map.lowest))
        h, k, l = (numbers % period for numbers, period in zip(ranges, self.period))
        return self.pattern[np.ix_(h[planes], k, l)]
