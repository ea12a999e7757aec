"""What a voxel's neighbours in reciprocal space lead to expect of it, whatever bad observations there are.

The mean of a voxel's neighbours follows the diffuse features wherever they are. How far voxels stray from it is not the
same everywhere: a sharp halo about a Bragg point is signal. So voxels are compared with those that lie as they do, on,
next to, or away from Bragg points, at a like |q|: the ratio to the neighbours, and its scatter, are robust estimates
from all of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dials_diffuse.algorithms.scaling.expectation import RadialPrior, radial_bins
from dials_diffuse.algorithms.scaling.tails import tukey_weight
from dials_diffuse.grid import GlobalGrid

#: Voxels that the robust estimates of a class are made from, at most.
SAMPLE = 5_000
#: Voxels that are looked up at once.
CHUNK = 500_000
#: Tukey's cut, in sigma.
CUT = 6.0


@dataclass
class LocalPrior:
    """Expected intensity of each voxel before it is looked at, and its variance; each shape (m,)."""

    mean: np.ndarray
    variance: np.ndarray


def local_prior(
    intensity: np.ndarray,
    variance: np.ndarray,
    keys: np.ndarray,
    neighbours: Iterable[np.ndarray],
    grid: GlobalGrid,
    q: np.ndarray,
) -> LocalPrior:
    """Expectations from the neighbours of each voxel.

    Parameters
    ----------
    intensity, variance : ndarray, shape (m,)
        Robust means of the voxels, and their variances by counting; variance inf where there is none.
    keys : ndarray, shape (m,), int64
        Of the voxels, increasing.
    neighbours : iterable of ndarray, shape (6, k), int64
        By :func:`neighbour_keys`, of one run of the voxels after the other.
    grid : GlobalGrid
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.
    """
    radial = _radial_prior(intensity, variance, q)
    around = _median_of_neighbours(_shrunk(intensity, variance, q, radial), keys, neighbours)
    mean = radial.mean_at(q)
    around = np.where(np.isfinite(around), np.maximum(around, 0.01 * mean), mean)
    del mean  # there may be 10^8 voxels
    classes = _classes(keys, grid, q)
    ratio, scatter = robust_moments(classes, intensity / around, variance / around**2)
    return LocalPrior(around * ratio[classes], around**2 * scatter[classes])


def _radial_prior(intensity: np.ndarray, variance: np.ndarray, q: np.ndarray) -> RadialPrior:
    bins = radial_bins(q)
    return RadialPrior(np.bincount(bins, q) / np.bincount(bins), *robust_moments(bins, intensity, variance))


def _shrunk(intensity: np.ndarray, variance: np.ndarray, q: np.ndarray, prior: RadialPrior) -> np.ndarray:
    """Intensities as they are expected with that prior, shape (m,); where nothing is known the prior's mean."""
    mean, between = prior.mean_at(q), prior.variance_at(q)
    with np.errstate(invalid="ignore"):
        credibility = between / (between + variance)
        return mean + np.where(credibility > 0, credibility * (np.maximum(intensity, 0) - mean), 0)


def robust_moments(group: np.ndarray, value: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Robust mean and variance of the true values in groups, from values that have noise.

    Parameters
    ----------
    group : ndarray, shape (m,), int
        From 0, none empty.
    value, noise : ndarray, shape (m,)
        Values and variances of their noise.

    Returns
    -------
    mean, variance : ndarray, shape (k,)
        The mean is at least its own standard error, so above 0. The variance, with the noise added, makes 68 % of the
        deviations lie within 1 and 95 % within 1.96 standard deviations, or more: with the heavier tail of the two.
    """
    group = group.astype(np.int16)  # sorts faster
    order = np.argsort(group, kind="stable")
    edges = np.searchsorted(group[order], np.arange(group.max() + 2))
    moments = []
    for begin, end in zip(edges[:-1], edges[1:]):
        chosen = order[begin : end : (end - begin) // SAMPLE + 1]
        moments.append(_moments(value[chosen], noise[chosen]))
    mean, variance = np.array(moments).T
    return mean, variance


def _moments(value: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    known = np.isfinite(value) & np.isfinite(noise) & (noise > 0)
    if not known.any():
        return 1e-12, 0.0
    value, noise = value[known], noise[known]
    mean = float(np.median(value))
    for _ in range(5):
        variance = _variance((value - mean) ** 2, noise)
        weight = tukey_weight((value - mean) / np.sqrt(variance + noise), CUT) / (variance + noise)
        if not weight.any():
            break
        mean = float(np.sum(weight * value) / np.sum(weight))
    return max(mean, float(np.sum(1 / noise) ** -0.5)), variance


def _variance(squares: np.ndarray, noise: np.ndarray) -> float:
    """The variance that makes quantiles of the squares over (variance + noise) what they are for a normal variate.

    (squares / c - noise) is above the variance for just the part of the deviations that exceeds sqrt(c) sigma, so the
    answer is a quantile of it, without iteration.
    """
    found = [np.quantile(squares / limit**2 - noise, part) for part, limit in ((0.6827, 1.0), (0.95, 1.96))]
    return max(float(max(found)), 1e-4 * float(np.median(squares)))


def neighbour_keys(voxels: np.ndarray, grid: GlobalGrid) -> np.ndarray:
    """Keys of the representatives of the six voxels that share a face with each, shape (6, m), -1 beyond the grid.

    The voxels, shape (m, 3), are in the asymmetric unit, in the order of their keys. Those that are neighbours of each
    other need not be mapped there.
    """
    own = grid.index2key(voxels)
    keys = np.full((6, len(own)), -1, dtype=np.int64)
    for of_step, step in zip(keys, np.concatenate([np.eye(3, dtype=np.int32), -np.eye(3, dtype=np.int32)])):
        inside = np.flatnonzero(grid.contains(voxels + step))
        found = grid.index2key(voxels[inside] + step)
        others = np.flatnonzero(own[np.minimum(np.searchsorted(own, found), len(own) - 1)] != found)
        found[others] = grid.index2key(grid.map_to_asu(voxels[inside[others]] + step))
        of_step[inside] = found
    return keys


def _median_of_neighbours(values: np.ndarray, keys: np.ndarray, neighbours: Iterable[np.ndarray]) -> np.ndarray:
    """Median over the neighbours of each voxel; NaN where none was measured. Shape (m,)."""
    medians = []
    for wanted in neighbours:
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        around = np.where(keys[place] == wanted, values[place], np.nan)
        around.sort(axis=0)  # NaN last; nanmedian is many times slower
        n = np.isfinite(around).sum(axis=0)
        column = np.arange(around.shape[1])
        medians.append((around[np.maximum(n - 1, 0) // 2, column] + around[np.minimum(n // 2, 5), column]) / 2)
    return np.concatenate(medians)


def _classes(keys: np.ndarray, grid: GlobalGrid, q: np.ndarray) -> np.ndarray:
    """Class of each voxel, shape (m,): on, next to, and away from the points of the lattice, each in bins of |q|."""
    ndiv = np.asarray(grid.ndiv)
    away = np.empty(len(q), dtype=np.int8)
    for begin in range(0, len(keys), CHUNK):
        voxels = grid.key2index(keys[begin : begin + CHUNK])
        away[begin : begin + CHUNK] = np.minimum(np.abs((voxels + ndiv // 2) % ndiv - ndiv // 2).max(axis=1), 2)
    classes = np.empty(len(q), dtype=np.int16)
    n = 0
    for i in range(3):
        chosen = away == i
        if chosen.any():
            classes[chosen] = n + radial_bins(q[chosen], 20, 200)
            n = int(classes[chosen].max()) + 1
    return classes
