"""One voxel of each set of equivalent ones, found in the map itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from dials_diffuse.algorithms.maps.equivalents import count_equivalents, inside, mate_of

#: Equivalent voxels differ by no more than this, relative: what rounding of float32 does.
TOLERANCE = 1e-4


def asymmetric_unit(
    values: np.ndarray, lowest: np.ndarray, groups: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels from which the others come by symmetry.

    Parameters
    ----------
    values : ndarray, shape (nh, nk, nl), float32
        NaN where nothing was measured.
    lowest : ndarray, shape (3,), int
        The voxel of the first element.
    groups : sequence of ndarray, shape (n_operations, 3, 3), int
        Matrices R by which voxels n and n R are equivalent, largest group first.

    Returns
    -------
    kept : ndarray, shape (nh, nk, nl), bool
        Of equivalent voxels the last one in the array.
    rotations : ndarray, shape (n_operations, 3, 3), int
        The first of the groups that the map has, in values and in what was measured; the identity alone if it has
        none. A map that holds one voxel of each set of equivalent ones has any.
    """
    floor = TOLERANCE * float(np.nanmean(np.abs(values)))
    measured = np.isfinite(values)
    for rotations in groups:
        kept = count_equivalents(measured, lowest, rotations) > 0
        if _has_symmetry(values, kept, lowest, rotations, floor):
            return kept, rotations
    return measured, np.eye(3, dtype=np.int64)[None]


@njit(cache=True, nogil=True)
def _has_symmetry(values, kept, lowest, rotations, floor):
    """Whether voxels equivalent to those that are kept have their values; all of them within the array, or none."""
    together, alone = False, False
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                if not kept[i, j, k]:
                    continue
                value = values[i, j, k]
                for rotation in rotations:
                    mate = mate_of(i, j, k, lowest, rotation)
                    if mate == (i, j, k) or not inside(mate, values.shape):
                        continue
                    if np.isnan(values[mate]):
                        alone = True
                    else:
                        together = True
                        if abs(values[mate] - value) > TOLERANCE * abs(value) + floor:
                            return False
                if together and alone:
                    return False
    return True
