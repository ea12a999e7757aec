"""Voxels next to Bragg points, where halos and what is left of the peaks are."""

from __future__ import annotations

import itertools

import numpy as np

from dials_diffuse.grid import GlobalGrid


def in_halo(grid: GlobalGrid, index: np.ndarray, radius: float) -> np.ndarray:
    """Which voxels are at most ``radius`` voxels from a Bragg point.

    Parameters
    ----------
    grid : GlobalGrid
    index : ndarray, shape (m, 3), int
    radius : float
        In voxels, whatever their shape: 0 is the Bragg point's own voxel, 1 that and the six that share a face with it,
        1.8 all 26 around it too.

    Returns
    -------
    ndarray, shape (m,), bool
    """
    reach = range(-int(radius), int(radius) + 1)
    near = np.zeros(len(index), dtype=bool)
    for offset in itertools.product(reach, repeat=3):
        if sum(n * n for n in offset) <= radius**2:
            near |= grid.is_bragg(index + np.array(offset, dtype=index.dtype))
    return near
