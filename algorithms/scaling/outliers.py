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

All this is done partition by partition, in six looks at the observations. In one place there are numbers of voxels (for
a voxel's neighbours may be in another partition), about 150 bytes each, and histograms of deviates.

Sources: Beaton & Tukey (1974) Technometrics 16, 147 (biweight); Cook & Weisberg (1982) Residuals and Influence in
Regression, section 2.2 (deleted residuals).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import libtbx.phil
import numpy as np
from dxtbx.model import Detector
from scipy.special import ndtr

from dials_diffuse.algorithms.scaling.expectation import radial_bins
from dials_diffuse.algorithms.scaling.local_prior import LocalPrior, local_prior, neighbour_keys
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.panel_tiles import PanelTiles
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions, total
from dials_diffuse.algorithms.scaling.robust_means import means_of_others, medians, robust_means
from dials_diffuse.algorithms.scaling.tails import equivalent_deviate
from dials_diffuse.grid import GlobalGrid

logger = logging.getLogger("dials.diffuse.scaling")

#: What the codes of observations mean.
REASONS = ("kept", "high", "low", "voxel")
HIGH, LOW, VOXEL = 1, 2, 3
#: Name by which the codes are kept with a partition: int8, one for each of the observations that were looked at.
REASON = "reason"
#: Rounds of robust means and expectations from neighbours.
ROUNDS = 2
#: Deviates below this are not worth the exact formula.
SMALL = 2.0
#: Tiles along the longest edge of a detector in :func:`outlier_maps`.
TILES = 48
#: Observations that are worked on at once.
CHUNK = 50_000
#: Observations of like mean are judged together: from one power of 2 to the next, and what is beyond these.
LEAST_POWER, MOST_POWER = -4, 20
N_CLASSES = MOST_POWER - LEAST_POWER + 1
#: Bins of deviates, and their edges: fine enough to be as good as the deviates themselves.
BINS_PER_SIGMA, N_BINS = 64, 4096
EDGES = (np.arange(N_BINS + 1) - N_BINS // 2) / BINS_PER_SIGMA
#: Names of what is kept with a partition in between: of voxels their keys, those of their neighbours, means with
#: variances, the prior; of observations the deviates and the classes, each time under other names, for a worker that
#: is lost may have written the new ones.
KEYS, NEIGHBOURS, MEANS, PRIOR = (f"outlier-{name}" for name in ("keys", "neighbours", "means", "prior"))
DEVIATES, CLASSES = (tuple(f"outlier-{name}-{time}" for time in range(2)) for name in ("deviates", "classes"))


@dataclass
class Outliers:
    """How many outliers were found.

    Attributes
    ----------
    observations : int
        Looked at.
    counts : dict of str to int
        Rejected, by reason.
    """

    observations: int
    counts: dict[str, int]

    @classmethod
    def none(cls, observations: int) -> Outliers:
        return cls(observations, dict.fromkeys(REASONS[1:], 0))


def find_outliers(partitions: VoxelPartitions, grid: GlobalGrid, params: libtbx.phil.scope_extract) -> Outliers:
    """Find the outliers among scaled observations.

    Parameters
    ----------
    partitions : VoxelPartitions
        Looked at as scaled, with their error model. Each gets the codes (the indices in :data:`REASONS`; 0 of what is
        kept) of the observations that it shows, in their order, by the name :data:`REASON`.
    grid : GlobalGrid
    params : libtbx.phil.scope_extract
        The ``outlier`` scope of :mod:`dials_diffuse.phil_scope.outliers`.
    """
    looks = list(partitions.map(partial(_first_look, grid), "Medians"))
    if any(look.photons for look in looks):
        _put_priors(partitions, grid, max(look.response for look in looks))
        limits = None
        for time in range(2):  # the second time without what the first has found
            compare = partial(_deviates_from_mates, time, limits)
            limits = _limits(total(partitions.map(compare, "Deviates")), params)
        numbers = total(partitions.map(partial(_reject, limits, params.voxel_n_sigma), "Outliers"))
    else:
        numbers = total(partitions.map(_keep_all, "Outliers"))
    for partition in partitions.partitions:
        for name in (KEYS, NEIGHBOURS, MEANS, PRIOR, *DEVIATES, *CLASSES):
            partition.drop(name)
    outliers = Outliers(int(numbers.sum()), {name: int(n) for name, n in zip(REASONS[1:], numbers[1:])})
    _log(outliers)
    return outliers


def outlier_maps(partitions: VoxelPartitions, detector: Detector) -> list[dict]:
    """Where on the detector outliers are: JSON-ready, an entry for each panel.

    Parameters
    ----------
    partitions : VoxelPartitions
        As they were looked at for outliers.
    detector : Detector

    Returns
    -------
    list of dict
        ``x`` and ``y``, the edges of tiles in pixels; and for ``observations`` (all) and each reason the numbers in the
        tiles, a list of rows (slow axis) of tiles.
    """
    tiles = PanelTiles.of(detector, TILES)
    numbers = total(partitions.map(partial(_numbers_in_tiles, tiles), "Outliers"))
    numbers = np.concatenate([numbers.sum(axis=0, keepdims=True), numbers[1:]])
    return [
        {"panel": panel, "x": x.tolist(), "y": y.tolist()}
        | {
            name: tiles.of_panel(values, panel).tolist()
            for name, values in zip(("observations", *REASONS[1:]), numbers)
        }
        for panel, (x, y) in enumerate(tiles.edges)
    ]


def _numbers_in_tiles(tiles: PanelTiles, partition: Partition, observations: GroupedObservations) -> np.ndarray:
    """By reason and tile, shape (reasons, tiles)."""
    try:
        reason = partition.get(REASON).astype(np.int64)
    except KeyError:
        reason = np.zeros(len(observations), dtype=np.int64)
    n = len(tiles) + 1
    return np.bincount(reason * n + tiles.number(observations), minlength=len(REASONS) * n).reshape(-1, n)


@dataclass
class _Look:
    """Whether a partition has any photon, and its largest response."""

    photons: bool
    response: float


def _first_look(grid: GlobalGrid, partition: Partition, observations: GroupedObservations) -> _Look:
    """Put the voxels' keys, and medians in place of their means, with the partition."""
    means = np.zeros((2, len(observations.voxels)))
    for voxels, _, part in observations.parts(CHUNK):
        means[0, voxels] = medians(part)
    partition.put(MEANS, means)
    partition.put(KEYS, grid.index2key(observations.voxels))
    partition.put(NEIGHBOURS, neighbour_keys(observations.voxels, grid))
    return _Look(bool((observations.signal > 0).any()), float(observations.response.max(initial=0)))


def _put_priors(partitions: VoxelPartitions, grid: GlobalGrid, response: float) -> None:
    """Put what to expect of the voxels with the partitions; ``response`` is the largest of an observation."""
    keys = _of_all(partitions, KEYS)
    q = _q(keys, grid)
    prior = _first_prior(_of_all(partitions, MEANS)[0], q, response)
    for _ in range(ROUNDS):
        _put_prior(partitions, prior)
        for _ in partitions.map(_put_robust_means, "Robust means"):
            pass
        neighbours = (partition.get(NEIGHBOURS) for partition in partitions.partitions)
        prior = local_prior(*_of_all(partitions, MEANS), keys, neighbours, grid, q)
    _put_prior(partitions, prior)


def _of_all(partitions: VoxelPartitions, name: str) -> np.ndarray:
    return np.concatenate([partition.get(name) for partition in partitions.partitions], axis=-1)


def _q(keys: np.ndarray, grid: GlobalGrid) -> np.ndarray:
    """|q| of voxels, a chunk at a time."""
    q = np.empty(len(keys))
    for begin in range(0, len(keys), CHUNK):
        q[begin : begin + CHUNK] = grid.q(grid.key2index(keys[begin : begin + CHUNK]))
    return q


def _put_prior(partitions: VoxelPartitions, prior: LocalPrior) -> None:
    begin = 0
    for partition in partitions.partitions:
        end = begin + partition.get(KEYS).shape[-1]
        partition.put(PRIOR, np.stack([prior.mean[begin:end], prior.variance[begin:end]]))
        begin = end


def _put_robust_means(partition: Partition, observations: GroupedObservations) -> None:
    prior = LocalPrior(*partition.get(PRIOR))
    means = np.empty((2, len(observations.voxels)))
    for voxels, _, part in observations.parts(CHUNK):
        means[:, voxels] = robust_means(part, _of(prior, voxels))
    partition.put(MEANS, means)


def _of(prior: LocalPrior, voxels: slice) -> LocalPrior:
    return LocalPrior(prior.mean[voxels], prior.variance[voxels])


def _first_prior(medians: np.ndarray, q: np.ndarray, response: float) -> LocalPrior:
    """Something to begin with that no outlier moves: medians of voxels' medians at like |q|, and 100 % about them."""
    bins = radial_bins(q)
    order = np.argsort(bins, kind="stable")
    edges = np.searchsorted(bins[order], np.arange(bins.max() + 2))
    mean = np.array([np.median(medians[order[begin:end]]) for begin, end in zip(edges[:-1], edges[1:])])
    mean = np.maximum(mean, 1e-3 * max(mean.max(), 1 / response))[bins]
    return LocalPrior(mean, mean**2)


def _deviates_from_mates(
    time: int, limits: np.ndarray | None, partition: Partition, observations: GroupedObservations
) -> np.ndarray:
    """Put deviates and classes of like mean with the partition; return their histogram, shape (classes, bins + 2).

    The observations are compared with mates that do not themselves exceed the ``limits`` of the time before.
    """
    prior = LocalPrior(*partition.get(PRIOR))
    good = np.ones(len(observations), dtype=bool) if limits is None else _codes(limits, partition, time - 1) == 0
    deviate, number = np.empty(len(observations), dtype=np.float32), np.empty(len(observations), dtype=np.int8)
    histogram = np.zeros((N_CLASSES, N_BINS + 2), dtype=np.int32)
    for voxels, chosen, part in observations.parts(CHUNK):
        found, mean = _compare(part, _of(prior, voxels), good[chosen])
        deviate[chosen] = np.where(np.isnan(found), 0, found)  # nothing is known that would contradict it
        number[chosen] = _class(mean)
        histogram += _histogram(deviate[chosen], number[chosen])
    partition.put(DEVIATES[time], deviate)
    partition.put(CLASSES[time], number)
    return histogram


def _compare(part: GroupedObservations, prior: LocalPrior, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deviates of observations from the mean of the others that are kept, and the photons expected; each shape (n,)."""
    u = part.response
    mean, variance = means_of_others(part, prior, kept)
    # The information is that at the prior's mean; the photons are as many as the voxel's own mean makes.
    inflation = part.error_model.variance(u * mean, part.noise) / part.variance(prior.mean)
    deviate = _deviates(part, u * mean, u**2 * variance * np.maximum(inflation, 1))
    return deviate, u * mean + part.noise


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


def _class(mean: np.ndarray) -> np.ndarray:
    """Classes of like mean: whole powers of 2, numbered from 0."""
    return np.clip(np.frexp(np.maximum(mean, 1e-9))[1] - 1, LEAST_POWER, MOST_POWER) - LEAST_POWER


def _histogram(deviate: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Numbers of deviates by class and bin, shape (N_CLASSES, N_BINS + 2); first and last: what is beyond."""
    half = N_BINS // 2
    bins = np.floor(np.clip(deviate * BINS_PER_SIGMA, -half - 1, half)).astype(np.int64) + half + 1
    shape = (N_CLASSES, N_BINS + 2)
    return np.bincount(number.astype(np.int64) * shape[1] + bins, minlength=shape[0] * shape[1]).reshape(shape)


def _codes(limits: np.ndarray, partition: Partition, time: int) -> np.ndarray:
    """The codes of observations, shape (n,), int8, from the deviates kept with the partition."""
    deviate, number = partition.get(DEVIATES[time]), partition.get(CLASSES[time])
    reason = np.zeros(len(deviate), dtype=np.int8)
    reason[deviate > limits[number, 0]] = HIGH
    reason[-deviate > limits[number, 1]] = LOW
    return reason


def _limits(histogram: np.ndarray, params: libtbx.phil.scope_extract) -> np.ndarray:
    """Deviates above and below beyond which observations are rejected, shape (classes, 2).

    Where outliers are many, those at, say, 4 sigma are more than the good ones there, and together they do more harm
    than those good ones are worth. So a lower limit than ``n_sigma`` is found for observations of like mean, for either
    sign: the least at which outliers are the majority among the observations within a quarter sigma (a local false
    discovery rate below 1/2). Whole numbers lump: the good ones there are at most what a normal distribution has in a
    quarter sigma and the step of one photon. Data without outliers have no such limit.

    Source: Efron (2004) J. Am. Stat. Assoc. 99, 96 (local false discovery rate, and the width from the bulk).
    """
    limits = np.empty((N_CLASSES, 2))
    for number, counts in enumerate(histogram):
        power = number + LEAST_POWER
        below = np.cumsum(counts, dtype=np.int64)[:-1]  # how many are below the edges
        width = _width(below, power)
        for side, seen in enumerate((below, below[-1] + counts[-1] - below[::-1])):
            limits[number, side] = width * _limit(seen, width, 2.0 ** -(power / 2), params)
    return limits


def _limit(below: np.ndarray, width: float, photon: float, params: libtbx.phil.scope_extract) -> float:
    """The deviate, over the width, beyond which observations are rejected: n_sigma, or less if outliers are the
    majority below it.

    ``below``: numbers of deviates below the :data:`EDGES`; ``photon``: how much one photon changes the deviate.
    """
    steps = np.arange(params.least_n_sigma, params.n_sigma, 0.25)
    good = below[-1] * (ndtr(-steps) - ndtr(-steps - 0.25 - photon))
    low, high = (np.interp(width * edge, EDGES, below) for edge in (steps, steps + 0.25))
    majority = np.flatnonzero(high - low > 2 * good + 4 * np.sqrt(good) + 4)
    return steps[majority[0]] if len(majority) else params.n_sigma


def _width(below: np.ndarray, power: int) -> float:
    """Width of the bulk of the deviates, at least 1: errors that are stated too small make no outliers.

    Of normal deviates within 2.5 sigma half are within 0.6647.
    """
    if power < 2:
        return 1.0  # few photons: quantiles say nothing, and what is not counting is small
    half = N_BINS // 2
    above_0, width = EDGES[half:], 1.0
    within = below[half:] - below[half::-1]
    for _ in range(5):
        middle = np.interp(2.5 * width, above_0, within) / 2
        if middle == 0:
            return 1.0
        # Where nothing is in the middle the median is half way between its ends.
        ends = np.interp(middle, within, above_0), -np.interp(-middle, -within[::-1], -above_0[::-1])
        width = max(float(np.mean(ends)) / 0.6647, 1.0)
    return width


def _reject(
    limits: np.ndarray, voxel_n_sigma: float | None, partition: Partition, observations: GroupedObservations
) -> np.ndarray:
    """Put the codes with the partition; return their numbers."""
    reason = _codes(limits, partition, time=1)
    if voxel_n_sigma is not None:
        prior = LocalPrior(*partition.get(PRIOR))
        for voxels, chosen, part in observations.parts(CHUNK):
            good = reason[chosen] == 0
            bad = part.spread(_bad_voxels(part, _of(prior, voxels), good, voxel_n_sigma))
            reason[chosen][bad & good] = VOXEL
    partition.put(REASON, reason)
    return np.bincount(reason, minlength=len(REASONS))


def _keep_all(partition: Partition, observations: GroupedObservations) -> np.ndarray:
    partition.put(REASON, np.zeros(len(observations), dtype=np.int8))
    return np.array([len(observations), 0, 0, 0])


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
    rejected = sum(outliers.counts.values())
    logger.info(
        "Outliers: %d of %d observations (%.3f %%): %d high, %d low, %d in voxels unlike their neighbours",
        rejected,
        outliers.observations,
        100 * rejected / max(outliers.observations, 1),
        *outliers.counts.values(),
    )
