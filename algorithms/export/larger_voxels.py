"""Sums over the small voxels that a larger one covers.

Places are triples of integers in the array of small voxels, whose first one is the voxel ``lowest``. The array is
expanded: where one voxel is measured, so are those equivalent to it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dials_diffuse.algorithms.maps.equivalents import inside, mate_of, rotated


@njit(cache=True)
def means(index, values, errors, lowest, rotations, turned, factors):
    """Means of larger voxels and their standard deviations.

    Parameters
    ----------
    index : ndarray, shape (n, 3), int64
        The larger voxels.
    values : ndarray, shape (nh, nk, nl), float32
        NaN where nothing was measured.
    errors : ndarray, float32
        Standard deviations, of the shape of ``values``; of another shape if there are none.
    lowest : ndarray, shape (3,), int64
    rotations : ndarray, shape (operations, 3, 3), int64
        Of the equivalence group.
    turned : ndarray, shape (m, 3, 3), int64
        Those by which a larger voxel is turned to average over the places it takes.
    factors : ndarray, shape (3,), int64
        Small voxels to a larger one along each axis.

    Returns
    -------
    means, deviations : ndarray, shape (n,), float32
        NaN where nothing was measured.
    """
    places, weights = _room(factors)
    keys, parts = np.empty(len(weights) * len(turned), np.int64), np.empty(len(weights) * len(turned))
    result, deviations = np.full(len(index), np.nan, np.float32), np.full(len(index), np.nan, np.float32)
    has_errors = errors.shape == values.shape
    flat = errors.ravel()
    for row in range(len(index)):
        total = volume = variance = 0.0
        count = 0
        for rotation in turned:
            voxel = rotated(index[row, 0], index[row, 1], index[row, 2], rotation)
            mates = has_errors and (len(turned) > 1 or _may_hold_mates(voxel, rotations))
            for number in range(_covered(voxel, values.shape, lowest, factors, places, weights)):
                place = (places[number, 0], places[number, 1], places[number, 2])
                if np.isnan(values[place]):
                    continue
                total += weights[number] * values[place]
                volume += weights[number]
                if mates:
                    keys[count] = _last_of_mates(place, values.shape, lowest, rotations)
                    parts[count] = weights[number]
                    count += 1
                elif has_errors:
                    variance += (weights[number] * errors[place]) ** 2
        if volume > 0:
            result[row] = total / volume
            deviations[row] = np.sqrt(variance + _variance_of_sets(keys[:count], parts[:count], flat)) / volume
    return result, deviations


@njit(cache=True)
def shares(index, counts, measured, lowest, rotations, turned, factors):
    """Counts of small voxels divided among larger ones by volume, shape (n,).

    All voxels of a set of equivalent ones have the count of the set: with f operations that leave the small voxel as it
    is, and F that leave the larger one, a share f / F of it belongs here.
    """
    places, weights = _room(factors)
    sums = np.zeros(len(index))
    for row in range(len(index)):
        fixed = _fixed(index[row, 0], index[row, 1], index[row, 2], rotations)
        for rotation in turned:
            voxel = rotated(index[row, 0], index[row, 1], index[row, 2], rotation)
            for number in range(_covered(voxel, counts.shape, lowest, factors, places, weights)):
                i, j, k = places[number]
                if measured[i, j, k]:
                    own = _fixed(i + lowest[0], j + lowest[1], k + lowest[2], rotations)
                    sums[row] += weights[number] * counts[i, j, k] * own / (fixed * len(turned))
    return sums


@njit(cache=True)
def _room(factors):
    """Arrays for the places and shares of as many small voxels as a larger one can cover."""
    size = np.prod(factors + 1)
    return np.empty((size, 3), np.int64), np.empty(size)


@njit(cache=True)
def _covered(voxel, shape, lowest, factors, places, weights):
    """Put places and shares of the small voxels that a larger one covers into arrays; how many there are."""
    count = 0
    for i in range(voxel[0] * factors[0] - factors[0] // 2, voxel[0] * factors[0] + factors[0] // 2 + 1):
        for j in range(voxel[1] * factors[1] - factors[1] // 2, voxel[1] * factors[1] + factors[1] // 2 + 1):
            for k in range(voxel[2] * factors[2] - factors[2] // 2, voxel[2] * factors[2] + factors[2] // 2 + 1):
                place = (i - lowest[0], j - lowest[1], k - lowest[2])
                if inside(place, shape):
                    places[count, 0], places[count, 1], places[count, 2] = place
                    weights[count] = (
                        _share(i, voxel[0], factors[0])
                        * _share(j, voxel[1], factors[1])
                        * _share(k, voxel[2], factors[2])
                    )
                    count += 1
    return count


@njit(cache=True)
def _share(small, large, factor):
    """Part of a small voxel that a larger one covers along one axis: half of those that its border cuts."""
    return 0.5 if 2 * abs(small - large * factor) == factor else 1.0


@njit(cache=True)
def _fixed(h, k, l, rotations):
    """How many operations leave a voxel as it is."""
    count = 0
    for rotation in rotations:
        if rotated(h, k, l, rotation) == (h, k, l):
            count += 1
    return count


@njit(cache=True)
def _may_hold_mates(voxel, rotations):
    """Whether small voxels in a larger one may be equivalent: if it touches, or is, its own equivalent."""
    mates = 0
    for rotation in rotations:
        h, k, l = rotated(voxel[0], voxel[1], voxel[2], rotation)
        if max(abs(h - voxel[0]), abs(k - voxel[1]), abs(l - voxel[2])) <= 1:
            mates += 1
    return mates > 1  # one is the identity


@njit(cache=True)
def _last_of_mates(place, shape, lowest, rotations):
    """What stands for a set of equivalent voxels: the number, in the flat array, of the last of them."""
    last = place
    for rotation in rotations:
        mate = mate_of(place[0], place[1], place[2], lowest, rotation)
        if mate > last and inside(mate, shape):
            last = mate
    return (last[0] * shape[1] + last[1]) * shape[2] + last[2]


@njit(cache=True)
def _variance_of_sets(keys, parts, errors):
    """Sum of (share x error)^2 over sets of small voxels with the same key."""
    order = np.argsort(keys)
    variance = part = 0.0
    for number in range(len(order)):
        key = keys[order[number]]
        part += parts[order[number]]
        if number == len(order) - 1 or keys[order[number + 1]] != key:
            variance += (part * errors[key]) ** 2
            part = 0.0
    return variance
