"""Robust means of voxels, and of the others of each observation, with what is expected of the voxel.

Iteratively reweighted means (Tukey's biweight), from the weighted median on; the prior is one more observation, and as
open to doubt as the others. Voxel by voxel in compiled code: most have few observations.

Source: Beaton & Tukey (1974) Technometrics 16, 147 (biweight).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.local_prior import CUT, LocalPrior
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.tails import root_deviate, tukey_weight

#: Iterations of each mean.
ITERATIONS = 5
#: A robust mean is at least this part of the prior's.
LEAST = 1e-3

_compiled = njit(cache=True, nogil=True, error_model="numpy")
_variance = _compiled(ErrorModel.variance)
_root_deviate = _compiled(root_deviate)
_tukey_weight = _compiled(tukey_weight)


class _Model(NamedTuple):
    """An :class:`ErrorModel` for compiled code."""

    a: float
    b: float


def medians(part: GroupedObservations) -> np.ndarray:
    """Medians of the observed intensities of each voxel, weighted by response, shape (m,)."""
    median = np.empty(len(part.voxels))
    _fill_medians(part.signal, part.response, part.first, median)
    return median


def robust_means(part: GroupedObservations, prior: LocalPrior) -> tuple[np.ndarray, np.ndarray]:
    """Robust means of voxels from their observations alone, and their variances, shape (m,) each."""
    sums, _ = _robust_sums(part, prior, np.ones(len(part), dtype=bool))
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[1] / sums[0], 1 / sums[0]


def means_of_others(part: GroupedObservations, prior: LocalPrior, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each observation the robust mean of the others and the prior, and its variance, shape (n,) each.

    Parameters
    ----------
    kept : ndarray, shape (n,), bool
        Which observations count in the means.
    """
    sums, weight = _robust_sums(part, prior, kept)
    mean, variance = np.empty((2, len(part)))
    _fill_others(part.signal, part.response, part.first, *sums, weight, prior.mean, prior.variance, mean, variance)
    return mean, variance


def _robust_sums(part: GroupedObservations, prior: LocalPrior, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the weights, and of the weighted intensities, of voxels, shape (2, m); the weights, shape (n,)."""
    sums, weight = np.empty((2, len(part.voxels))), np.empty(len(part))
    model = _Model(part.error_model.a, part.error_model.b)
    arrays = (part.signal, part.response, part.noise, kept, part.first, prior.mean, prior.variance)
    _fill_robust(*arrays, model, *sums, weight)
    return sums, weight


@_compiled
def _fill_medians(signal, response, first, median):
    for voxel in range(len(median)):
        rows = slice(first[voxel], first[voxel + 1])
        value = (signal[rows] + 1 / 3) / response[rows]
        median[voxel] = _weighted_median(value, response[rows], 0.0, 0.0)


@_compiled
def _fill_robust(signal, response, noise, kept, first, prior_mean, prior_variance, model, known, weighted, weight):
    for voxel in range(len(known)):
        begin, end = first[voxel], first[voxel + 1]
        y, u, n, w = signal[begin:end], response[begin:end], noise[begin:end], weight[begin:end]
        expected, between = prior_mean[voxel], prior_variance[voxel]
        information, value, total = np.empty(len(y)), np.empty(len(y)), 0.0
        for i in range(len(y)):
            information[i] = kept[begin + i] * u[i] ** 2 / _variance(model, u[i] * expected, n[i])
            value[i] = (y[i] + 1 / 3) / u[i]
            total += information[i]
        median = _weighted_median(value, information, expected, 1 / between)
        credibility = between / (between + 1.57 / max(total, 1e-9 / between))  # 1.57: a median's variance
        estimate = max(expected + credibility * (median - expected), LEAST * expected)
        for _ in range(ITERATIONS):
            for i in range(len(y)):  # apart from the sums, so that several are done at once
                s = u[i] * estimate
                deviate = _root_deviate(y[i] + n[i], s + n[i], _variance(model, s, n[i]))
                w[i] = information[i] * _tukey_weight(deviate, CUT)
            known[voxel], weighted[voxel] = 0.0, 0.0
            for i in range(len(y)):
                known[voxel] += w[i]
                weighted[voxel] += w[i] * y[i] / u[i]
            estimate = max(_with_prior(weighted[voxel], known[voxel], expected, between)[0], LEAST * expected)


@_compiled
def _fill_others(signal, response, first, known, weighted, weight, prior_mean, prior_variance, mean, variance):
    for voxel in range(len(known)):
        for i in range(first[voxel], first[voxel + 1]):
            others = known[voxel] - weight[i]
            sum_of_others = weighted[voxel] - weight[i] * signal[i] / response[i]
            if others <= 1e-9 * weight[i]:  # it is alone
                others, sum_of_others = 0.0, 0.0
            mean[i], variance[i] = _with_prior(sum_of_others, others, prior_mean[voxel], prior_variance[voxel])
            mean[i] = max(mean[i], LEAST * prior_mean[voxel])


@_compiled
def _with_prior(weighted, known, expected, between):
    """Mean of observations and the prior, and its variance; the prior has less weight the farther it is off."""
    off = (weighted / known - expected) / np.sqrt(between + 1 / known) if known > 0 else 0.0
    weight = _tukey_weight(off, CUT) / between
    total = max(known + weight, 1e-12 / between)
    return (weighted + weight * expected) / total, 1 / total


@_compiled
def _weighted_median(value, weight, prior, prior_weight):
    """Weighted median of values, the prior's among them where it belongs.

    The median of whole numbers with the mean mu is about mu - 1/3 where mu is small, so values have 1/3 photon more.
    """
    order = np.argsort(value)
    half = (weight.sum() + prior_weight) / 2
    place = 0  # of the prior
    for row in order:
        if value[row] > prior:
            break
        place += 1
    total, found = 0.0, prior
    for number in range(len(order) + 1):
        if number == place:
            total += prior_weight
            found = prior
        else:
            row = order[number - (number > place)]
            total += weight[row]
            found = value[row]
        if total >= half:
            break
    return found
