"""Every second voxel along each axis, averaged over the voxels that it covers.

Of any map: odd ndiv, a part of it, values without the symmetry of the grid, which ``export.resample`` cannot do with.
"""

from __future__ import annotations

import itertools

import numpy as np

#: A coarse voxel has a value if so much of its volume was measured.
LEAST_VOLUME = 1 / 3


def coarsen(
    values: np.ndarray, errors: np.ndarray, lowest: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halve the number of voxels along each axis.

    The coarse voxel N is centred where the voxel 2N is; it covers that one and halves of its neighbours, and is the
    mean of what was measured of them, by volume. Where the group turns a voxel into one of another shape (hexagonal
    axes), it is the mean over these shapes, so that the map keeps its symmetry.

    Parameters
    ----------
    values, errors : ndarray, shape (nh, nk, nl), float32
        NaN where there is none. Errors are independent.
    lowest : ndarray, shape (3,), int
        The first voxel.
    rotations : ndarray, shape (n_operations, 3, 3), int
        Matrices R by which voxels n and n R are equivalent.

    Returns
    -------
    values, errors : ndarray, float32
        Of the coarse voxels.
    lowest : ndarray, shape (3,), int
        The first coarse voxel.
    """
    first = -(-lowest // 2)
    count = (lowest + values.shape - 1) // 2 - first + 1
    total, variance, volume = (np.zeros(count, np.float32) for _ in range(3))
    for offset, weight in _volumes(rotations).items():
        start = 2 * first + offset - lowest  # the fine voxel that goes into the coarse one 0; 2 further on, into 1
        begin = np.maximum(-(start // 2), 0)
        end = np.minimum((values.shape - start + 1) // 2, count)
        coarse = tuple(map(slice, begin, end))
        fine = tuple(slice(a, b, 2) for a, b in zip(start + 2 * begin, start + 2 * end - 1))
        measured = np.isfinite(values[fine])
        total[coarse] += np.where(measured, weight * values[fine], 0)
        variance[coarse] += np.where(measured, (weight * errors[fine]) ** 2, 0)
        volume[coarse] += weight * measured
    volume[volume < LEAST_VOLUME] = np.nan
    return total / volume, np.sqrt(variance) / volume, first


def _volumes(rotations: np.ndarray) -> dict[tuple[int, int, int], np.float32]:
    """How much of a coarse voxel lies in the fine ones at some offsets from its centre."""
    volumes: dict[tuple[int, int, int], np.float32] = {}
    for offset in itertools.product((-1, 0, 1), repeat=3):
        part = 0.5 ** np.count_nonzero(offset) / 8 / len(rotations)
        for mate in (offset @ rotations).tolist():
            volumes[tuple(mate)] = np.float32(volumes.get(tuple(mate), 0) + part)
    return volumes
