"""Voxels of a map near Bragg points, and the Bragg points' own."""

from __future__ import annotations

import itertools

import numpy as np

from dials_diffuse.grid import GlobalGrid, lattice_group, miller_index_from_numpy
from dials_diffuse.map_file import DiffuseMap

#: Centring translations are multiples of 1/6 of a lattice vector: absences repeat after so many indices.
PERIOD = 6


def near_bragg(
    diffuse_map: DiffuseMap, planes: slice, *, hkl: tuple[float, float, float] | None = None, q: float | None = None
) -> np.ndarray:
    """Which voxels have their centres near a Bragg point.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    planes : slice
        The planes along h to look at.
    hkl : tuple of 3 float, optional
        Semi-axes, below 1/2, of an ellipsoid in fractional Miller indices: (dh / r_h)^2 + (dk / r_k)^2 + (dl / r_l)^2
        <= 1.
    q : float, optional
        Radius of a sphere in 1/A, below half the reciprocal-lattice spacing of any axis (1 / 2a).

    Returns
    -------
    ndarray, shape (planes, nk, nl), bool
        Near by either measure.
    """
    axes = [diffuse_map.h[planes], diffuse_map.k, diffuse_map.l]
    nearest = [np.rint(axis).astype(np.int64) for axis in axes]
    dh, dk, dl = (axis - integer for axis, integer in zip(axes, nearest))
    near = np.zeros(tuple(len(axis) for axis in axes), dtype=bool)
    tolerance = 1 + 1e-9  # n / ndiv is not exact
    if hkl is not None:
        squares = [(d / radius) ** 2 for d, radius in zip((dh, dk, dl), hkl)]
        near |= squares[0][:, None, None] + squares[1][:, None] + squares[2] <= tolerance
    if q is not None:
        h2, k2, l2, hk, hl, kl = diffuse_map.grid.unit_cell.reciprocal().metrical_matrix()
        dh, dk = dh[:, None, None], dk[:, None]
        squared = h2 * dh**2 + k2 * dk**2 + l2 * dl**2 + 2 * (hk * dh * dk + hl * dh * dl + kl * dk * dl)
        near |= squared <= q**2 * tolerance
    present = _present(diffuse_map.grid)
    if not present.all():
        near &= present[np.ix_(*(integer % PERIOD for integer in nearest))]
    return near


def _present(grid: GlobalGrid) -> np.ndarray:
    """Which indices modulo :data:`PERIOD` the centring of the lattice leaves, shape (6, 6, 6), bool."""
    indices = np.array(list(itertools.product(range(PERIOD), repeat=3)))
    absent = lattice_group(grid.space_group).is_sys_absent(miller_index_from_numpy(indices))
    return ~np.array(list(absent)).reshape((PERIOD,) * 3)
