r"""Observations that their mates contradict, and voxels that their neighbours contradict.

A voxel's mean is estimated robustly: by weighted least squares in which observations that deviate lose their weight
(Tukey's biweight, from the median), and in which what the voxel's neighbours lead to expect (``local_prior.py``) counts
as one more observation, so that of a pair the wrong one is found. Each observation is then compared with the mean of
the OTHERS, J: it is rejected if the probability of so many photons, or more, or of so few, is less than that of a
normal deviate beyond ``n_sigma``. The variance is the expected one: counting with the error model, and that of J times
u^2. At low counts it is the probability that counts, not the distance (``tails.py``), so rejection does not shift the
mean. What is rejected does not count in the mean of its mates.

What is left of a voxel, all together, is at last compared with the expectation from its neighbours: Bragg peaks that
nothing predicted, and ice, are seen by all mates alike.

Sources: Beaton & Tukey (1974) Technometrics 16, 147 (biweight); Cook & Weisberg (1982) Residuals and Influence in
Regression, section 2.2 (deleted residuals).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from dxtbx.model import Detector
from numba import njit
from scipy.special import ndtr

from dials_diffuse.algorithms.scaling.local_prior import CUT, LocalPrior, local_prior
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.tails import equivalent_deviate, root_deviate, tukey_weight
from dials_diffuse.grid import GlobalGrid

logger = logging.getLogger("dials.diffuse.scaling")

#: What the codes of :attr:`Outliers.reason` mean.
REASONS = ("kept", "high", "low", "voxel")
HIGH, LOW, VOXEL = 1, 2, 3
#: Rounds of robust means and expectations from neighbours; iterations of each robust mean.
ROUNDS, ITERATIONS = 2, 5
#: Deviates below this are not worth the exact formula.
SMALL = 2.0
#: Tiles along the longest edge of a detector in :func:`outlier_maps`.
TILES = 48


@dataclass
class Outliers:
    """Which of n observations are rejected, and why.

    Attributes
    ----------
    reason : ndarray, shape (n,), int8
        Index into :data:`REASONS`; 0 for what is kept.
    """

    reason: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Observations to keep, shape (n,), bool."""
        return self.reason == 0

    def counts(self) -> dict[str, int]:
        """Number rejected, by reason."""
        numbers = np.bincount(self.reason, minlength=len(REASONS))
        return {name: int(number) for name, number in zip(REASONS[1:], numbers[1:])}


def find_outliers(observations: GroupedObservations, grid: GlobalGrid, params: libtbx.phil.scope_extract) -> Outliers:
    """Find the outliers among scaled observations.

    Parameters
    ----------
    observations : GroupedObservations
        n observations of m voxels, scaled.
    grid : GlobalGrid
    params : libtbx.phil.scope_extract
        The ``outlier`` scope of :mod:`dials_diffuse.phil_scope.outliers`.
    """
    if not (observations.signal > 0).any():  # no photons at all
        return Outliers(np.zeros(len(observations.rows), dtype=np.int8))
    q = grid.q(observations.voxels)
    prior = _first_prior(observations, q)
    for _ in range(ROUNDS):
        found = [_robust_means(part, _of(prior, voxels)) for voxels, _, part in observations.parts()]
        intensity, variance = (np.concatenate(arrays) for arrays in zip(*((f.mean, f.variance) for f in found)))
        prior = local_prior(intensity, variance, observations.voxels, grid, q)
    kept = np.ones(len(observations.rows), dtype=bool)
    for _ in range(2):  # the second time without what the first has found
        found = [
            _deviates_from_mates(part, _of(prior, voxels), kept[chosen])
            for voxels, chosen, part in observations.parts()
        ]
        deviate, mean = (np.concatenate(arrays) for arrays in zip(*found))
        reason = _improbable(deviate, mean, params)
        kept = reason == 0
    if params.voxel_n_sigma is not None:
        for voxels, chosen, part in observations.parts():
            bad = part.spread(_bad_voxels(part, _of(prior, voxels), kept[chosen], params.voxel_n_sigma))
            reason[chosen][bad & kept[chosen]] = VOXEL
    outliers = Outliers(reason)
    _log(outliers)
    return outliers


def outlier_maps(observations: GroupedObservations, outliers: Outliers, detector: Detector) -> list[dict]:
    """Where on the detector outliers are: JSON-ready, an entry for each panel.

    Returns
    -------
    list of dict
        ``x`` and ``y``, the edges of tiles in pixels; and for ``observations`` (all) and each reason the numbers in the
        tiles, a list of rows (slow axis) of tiles.
    """
    longest = max(max(panel.get_image_size()) for panel in detector)
    maps = []
    for number, panel in enumerate(detector):
        here = observations.panel == number
        x, y = observations.position[here, 0], observations.position[here, 1]
        edges = [np.linspace(0, n, int(np.ceil(TILES * n / longest)) + 1) for n in panel.get_image_size()]
        entry: dict = {"panel": number, "x": edges[0].tolist(), "y": edges[1].tolist()}
        for code, name in enumerate(("observations", *REASONS[1:])):
            chosen = outliers.reason[here] == code if code else slice(None)
            entry[name] = np.histogram2d(y[chosen], x[chosen], bins=edges[::-1])[0].astype(int).tolist()
        maps.append(entry)
    return maps


@dataclass
class _Robust:
    """Robust means of voxels from their observations alone, their variances, shape (m,); the weights, shape (n,)."""

    mean: np.ndarray
    variance: np.ndarray
    information: np.ndarray


def _of(prior: LocalPrior, voxels: slice) -> LocalPrior:
    return LocalPrior(prior.mean[voxels], prior.variance[voxels])


def _first_prior(observations: GroupedObservations, q: np.ndarray) -> LocalPrior:
    """Something to begin with that no outlier moves: medians of voxels' medians at like |q|, and 100 % about them."""
    from dials_diffuse.algorithms.scaling.expectation import radial_bins

    medians = np.concatenate(
        [
            _medians(part, part.response, np.zeros(len(part.voxels)), np.zeros(len(part.voxels)))
            for _, _, part in observations.parts()
        ]
    )
    bins = radial_bins(q)
    edges = np.searchsorted(np.sort(bins), np.arange(bins.max() + 2))
    order = np.argsort(bins, kind="stable")
    mean = np.array([np.median(medians[order[begin:end]]) for begin, end in zip(edges[:-1], edges[1:])])
    mean = np.maximum(mean, 1e-3 * max(mean.max(), 1 / observations.response.max()))[bins]
    return LocalPrior(mean, mean**2)


def _medians(part: GroupedObservations, weight: np.ndarray, prior: np.ndarray, prior_weight: np.ndarray) -> np.ndarray:
    """Weighted median of the observed intensities of each voxel and the prior's, shape (m,).

    The median of whole numbers with the mean mu is about mu - 1/3 where mu is small, so 1/3 photon is added.
    """
    median = np.empty(len(part.voxels))
    _fill_medians((part.signal + 1 / 3) / part.response, weight, part.first, prior, prior_weight, median)
    return median


@njit(cache=True, nogil=True)
def _fill_medians(value, weight, first, prior, prior_weight, median):
    """Weighted medians of runs of values, the prior's among them where it belongs; sorting all at once takes ten times
    as long."""
    for voxel in range(len(prior)):
        begin, end = first[voxel], first[voxel + 1]
        order = begin + np.argsort(value[begin:end])
        half = (weight[begin:end].sum() + prior_weight[voxel]) / 2
        found = prior[voxel]
        place = 0  # of the prior
        for row in order:
            if value[row] > prior[voxel]:
                break
            place += 1
        total = 0.0
        for number in range(len(order) + 1):
            if number == place:
                total += prior_weight[voxel]
                found = prior[voxel]
            else:
                row = order[number - (number > place)]
                total += weight[row]
                found = value[row]
            if total >= half:
                break
        median[voxel] = found


def _robust_means(part: GroupedObservations, prior: LocalPrior, kept: np.ndarray | float = 1.0) -> _Robust:
    """Iteratively reweighted means of voxels; the prior is one more observation, and as open to doubt as the others."""
    u, y = part.response, part.signal
    information = kept * u**2 / part.variance(prior.mean)
    median = _medians(part, information, prior.mean, 1 / prior.variance)
    credibility = prior.variance / (
        prior.variance + 1.57 / np.maximum(part.sum(information), 1e-9 / prior.variance)
    )  # 1.57: a median's variance
    estimate = _positive(prior.mean + credibility * (median - prior.mean), prior)
    for _ in range(ITERATIONS):
        deviate = root_deviate(y + part.noise, u * part.spread(estimate) + part.noise, part.variance(estimate))
        weight = tukey_weight(deviate, CUT) * information
        known, weighted = part.sum(weight), part.sum(weight * y / u)
        estimate = _positive(_with_prior(weighted, known, prior)[0], prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _Robust(weighted / known, 1 / known, weight)


def _with_prior(weighted: np.ndarray, known: np.ndarray, prior: LocalPrior) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the observations and the prior, and its variance; the prior has less weight the farther it is off."""
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(known > 0, (weighted / known - prior.mean) / np.sqrt(prior.variance + 1 / known), 0)
    weight = tukey_weight(off, CUT) / prior.variance
    total = np.maximum(known + weight, 1e-12 / prior.variance)
    return (weighted + weight * prior.mean) / total, 1 / total


def _positive(intensity: np.ndarray, prior: LocalPrior) -> np.ndarray:
    return np.maximum(intensity, 1e-3 * prior.mean)


def _deviates_from_mates(
    part: GroupedObservations, prior: LocalPrior, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Deviates of observations from the mean of the others, and the photons expected; each shape (n,), float32."""
    u, y, spread = part.response, part.signal, part.spread
    information = _robust_means(part, prior, kept).information
    known = spread(part.sum(information)) - information
    weighted = spread(part.sum(information * y / u)) - information * y / u
    alone = known <= 1e-9 * information
    others = LocalPrior(spread(prior.mean), spread(prior.variance))
    mean, variance = _with_prior(np.where(alone, 0, weighted), np.where(alone, 0, known), others)
    mean = _positive(mean, others)
    # The information is that at the prior's mean; the photons are as many as the voxel's own mean makes.
    inflation = part.error_model.variance(u * mean, part.noise) / part.error_model.variance(u * others.mean, part.noise)
    deviate = _deviates(part, u * mean, u**2 * variance * np.maximum(inflation, 1))
    return deviate.astype(np.float32), (u * mean + part.noise).astype(np.float32)


def _deviates(part: GroupedObservations, signal: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Deviates from the expected signal, shape (n,): by the simple formula where they are small for sure.

    Skewness makes the true deviate smaller than (N - mean) / sigma above the mean, and up to twice as large below it.
    """
    mean = signal + part.noise
    counting = part.error_model.variance(np.zeros_like(mean), mean)
    extra = np.maximum(part.error_model.variance(signal, part.noise) - counting, 0) + extra
    deviates = (part.signal - signal) / np.sqrt(counting + extra)
    chosen = (deviates > SMALL) | (deviates < -SMALL / 2)
    photons = part.signal + part.noise
    deviates[chosen] = equivalent_deviate(photons[chosen], mean[chosen], counting[chosen], extra[chosen])
    return deviates


def _improbable(deviate: np.ndarray, mean: np.ndarray, params: libtbx.phil.scope_extract) -> np.ndarray:
    """The codes of observations, shape (n,), int8, from their deviates and expected photons.

    Where outliers are many, those at, say, 4 sigma are more than the good ones there, and together they do more harm
    than those good ones are worth. So a lower limit than ``n_sigma`` is found for observations of like mean, for either
    sign: the least at which outliers are the majority among the observations within a quarter sigma (a local false
    discovery rate below 1/2). Whole numbers lump: the good ones there are at most what a normal distribution has in a
    quarter sigma and the step of one photon. Data without outliers have no such limit.

    Source: Efron (2004) J. Am. Stat. Assoc. 99, 96 (local false discovery rate, and the width from the bulk).
    """
    reason = np.zeros(len(mean), dtype=np.int8)
    classes = np.floor(np.clip(np.log2(np.maximum(mean, 1e-9)), -4, 20)).astype(np.int8)
    for number in np.unique(classes):
        chosen = np.flatnonzero(classes == number)
        z = deviate[chosen] / _width(deviate[chosen], number)
        for code, sign in ((HIGH, 1), (LOW, -1)):
            reason[chosen[sign * z > _limit(sign * z, 2.0 ** -(number / 2), params)]] = code
    return reason


def _limit(deviate: np.ndarray, photon: float, params: libtbx.phil.scope_extract) -> float:
    """The deviate beyond which observations are rejected: n_sigma, or less if outliers are the majority below it.

    ``photon`` is how much one photon changes the deviate.
    """
    steps = np.arange(params.least_n_sigma, params.n_sigma, 0.25)
    good = len(deviate) * (ndtr(-steps) - ndtr(-steps - 0.25 - photon))
    seen = np.array([np.count_nonzero((deviate >= step) & (deviate < step + 0.25)) for step in steps])
    majority = np.flatnonzero(seen > 2 * good + 4 * np.sqrt(good) + 4)
    return steps[majority[0]] if len(majority) else params.n_sigma


def _width(deviate: np.ndarray, class_number: int) -> float:
    """Width of the bulk of the deviates, at least 1: errors that are stated too small make no outliers.

    Of normal deviates within 2.5 sigma half are within 0.6647.
    """
    if class_number < 2:
        return 1.0  # few photons: quantiles say nothing, and what is not counting is small
    bulk, width = np.abs(deviate), 1.0
    for _ in range(5):
        within = bulk[bulk < 2.5 * width]
        width = max(float(np.median(within)) / 0.6647, 1.0) if len(within) else 1.0
    return width


def _bad_voxels(part: GroupedObservations, prior: LocalPrior, kept: np.ndarray, n_sigma: float) -> np.ndarray:
    """Voxels of which the observations that are kept contradict the prior, shape (m,), bool."""
    response, noise, photons = (part.sum(kept * v) for v in (part.response, part.noise, part.signal + part.noise))
    some = response > 0
    mean = response * prior.mean + noise
    counting = part.error_model.variance(np.zeros_like(mean), mean)
    extra = np.maximum(part.sum(kept * part.variance(prior.mean)) - counting, 0) + response**2 * prior.variance
    bad = np.zeros(len(some), dtype=bool)
    bad[some] = np.abs(equivalent_deviate(*(v[some] for v in (photons, mean, counting, extra)))) > n_sigma
    return bad


def _log(outliers: Outliers) -> None:
    counts = outliers.counts()
    logger.info(
        "Outliers: %d of %d observations (%.3f %%): %d high, %d low, %d in voxels unlike their neighbours",
        sum(counts.values()),
        len(outliers.reason),
        100 * sum(counts.values()) / len(outliers.reason),
        *counts.values(),
    )
