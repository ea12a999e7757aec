"""Every second voxel along each axis, averaged over the voxels that it covers."""

from __future__ import annotations

import itertools

import numpy as np

#: A coarse voxel has a value if so much of its volume was measured.
LEAST_VOLUME = 1 / 3


def coarsen(values: np.ndarray, errors: np.ndarray, lowest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halve the number of voxels along each axis.

    The coarse voxel N is centred where the voxel 2N is; it covers that one and halves of its neighbours, and is the
    mean of what was measured of them, by volume.

    Parameters
    ----------
    values, errors : ndarray, shape (nh, nk, nl), float32
        NaN where there is none. Errors are independent.
    lowest : ndarray, shape (3,), int
        The first voxel.

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
    for offset in itertools.product((-1, 0, 1), repeat=3):
        weight = 0.5 ** np.count_nonzero(offset)
        start = 2 * first + offset - lowest  # of the fine voxels that go into the coarse ones 0, 1, ...
        skip = np.where(start < 0, 1, 0)
        fine = tuple(slice(int(n), None, 2) for n in start + 2 * skip)
        part = values[fine][tuple(slice(int(n)) for n in count - skip)]
        coarse = tuple(slice(int(n), int(n + m)) for n, m in zip(skip, part.shape))
        measured = np.isfinite(part)
        total[coarse] += np.where(measured, np.float32(weight) * part, 0)
        spread = errors[fine][tuple(map(slice, part.shape))]
        variance[coarse] += np.where(measured, (np.float32(weight) * spread) ** 2, 0)
        volume[coarse] += weight * measured
    enough = volume >= 8 * LEAST_VOLUME
    volume[~enough] = np.nan
    return total / volume, np.sqrt(variance) / volume, first
