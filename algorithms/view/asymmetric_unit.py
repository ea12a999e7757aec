"""One voxel of each set of equivalent ones, found in the map itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

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
    for rotations in groups:
        kept, together, unequal, alone = _last_of_equivalents(values, lowest, rotations, floor)
        if not unequal and not (together and alone):
            return kept, rotations
    return np.isfinite(values), np.eye(3, dtype=np.int64)[None]


@njit(cache=True, nogil=True)
def _last_of_equivalents(values, lowest, rotations, floor):
    """Which voxels have no equivalent one after them; numbers of mates there, unequal, missing."""
    n_h, n_k, n_l = values.shape
    kept = np.zeros(values.shape, np.bool_)
    together, unequal, alone = 0, 0, 0
    for i in range(n_h):
        for j in range(n_k):
            for k in range(n_l):
                value = values[i, j, k]
                if np.isnan(value):
                    continue
                h, k_, l = i + lowest[0], j + lowest[1], k + lowest[2]
                place = (i * n_k + j) * n_l + k
                here, different, missing = 0, 0, 0
                last = True
                for r in rotations:
                    a = h * r[0, 0] + k_ * r[1, 0] + l * r[2, 0] - lowest[0]
                    b = h * r[0, 1] + k_ * r[1, 1] + l * r[2, 1] - lowest[1]
                    c = h * r[0, 2] + k_ * r[1, 2] + l * r[2, 2] - lowest[2]
                    if a < 0 or b < 0 or c < 0 or a >= n_h or b >= n_k or c >= n_l:
                        continue
                    mate = values[a, b, c]
                    if np.isnan(mate):
                        missing += 1
                        continue
                    other = (a * n_k + b) * n_l + c
                    if other > place:
                        last = False
                        break
                    if other < place:
                        here += 1
                        different += abs(mate - value) > TOLERANCE * abs(value) + floor
                if last:
                    kept[i, j, k] = True
                    together += here
                    unequal += different
                    alone += missing
    return kept, together, unequal, alone
