r"""Intensities of voxels merged from their observations, and what to expect of them before and after counting.

An observation's photons N are Poisson with mean u I + o + B, where u is its response times its scale (a d b), o the
excess background and B the background, so y = N - B - o has variance u I + n with the true I, which nobody knows, and
n = o + B + var(B); or what an error model makes of it. To put the observed N in its place biases
the merged intensity low (a zero would get the greatest weight of all, or be thrown away); so every variance here is an
EXPECTED one:

- Weights w = 1 / (u m + n), with m(|q|) the mean intensity of the voxels at that resolution. They are all but
  independent of the observation's own noise, so I = sum(w u y) / sum(w u^2) is unbiased at any count, and by
  Gauss-Markov it is the best linear estimate for a voxel like its neighbours. Without background the common factor m
  cancels and I is sum(N) / sum(u): the maximum of the Poisson likelihood.
- The variance that is reported is that of this very estimate for the best guess of the voxel's own intensity,
  sum w^2 u^2 (u E + n) / (sum w u^2)^2, E being the posterior mean of I under a Gamma prior with the mean m and
  the between-voxel variance t of that resolution: E = (1 - Z) m + Z I, Z = t / (t + v), v = 1 / sum(w u^2). For B = 0
  this is exactly the posterior mean of Poisson counts under a Gamma prior; with background it is the best linear
  (credibility) estimate. A voxel with no photon so has the error that a few photons could have hidden in, not 0.

Sources: Clayton & Kaldor (1987) Biometrics 43, 671, eqs. 2-4 (Gamma prior of Poisson rates and its moments);
Buehlmann (1967) ASTIN Bulletin 4, 199 (linear credibility); DerSimonian & Laird (1986) Controlled Clinical Trials 7,
177 (moment estimate of the between-voxel variance).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions, total
from dials_diffuse.grid import GlobalGrid

#: Bins of |q|, and voxels that each is to hold.
FINE_BINS, LEAST = 100, 50


@dataclass
class RadialPrior:
    """Mean intensity and variance between voxels as functions of |q|.

    Attributes
    ----------
    q : ndarray, shape (k,)
        Nodes in 1/Angstrom, increasing; values between them are interpolated, beyond them constant.
    mean, variance : ndarray, shape (k,)
        Of the true intensities of voxels (the noise is not in the variance). The mean is above 0.
    """

    q: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def mean_at(self, q: np.ndarray) -> np.ndarray:
        """Mean intensity at |q|, same shape."""
        return np.interp(q, self.q, self.mean)

    def variance_at(self, q: np.ndarray) -> np.ndarray:
        """Variance between voxels at |q|, same shape."""
        return np.interp(q, self.q, self.variance)


@dataclass
class MergedVoxels:
    """Merged intensities of the m voxels of a :class:`GroupedObservations`, each of shape (m,).

    Attributes
    ----------
    intensity, variance : ndarray
        I and its expected variance.
    expected : ndarray
        E, the posterior mean of the intensity; never below 0.
    prior : RadialPrior
        What was known of the voxels together.
    """

    intensity: np.ndarray
    variance: np.ndarray
    expected: np.ndarray
    prior: RadialPrior


def merge_voxels(observations: GroupedObservations, q: np.ndarray) -> MergedVoxels:
    """Merge the observations of every voxel (the module's docstring has the formulas).

    Parameters
    ----------
    observations : GroupedObservations
        n scaled observations of m voxels.
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.
    """
    u = observations.response
    bins = radial_bins(q)
    nodes = np.bincount(bins, q) / np.bincount(bins)
    mean = _ratio_of_sums(bins, observations.sum(observations.signal), observations.sum(u))
    prior = RadialPrior(nodes, mean, np.zeros(len(mean)))
    intensity, noise = weighted_means(observations, q, prior)
    prior.variance = between_voxel_variance(bins, intensity - prior.mean_at(q), noise, mean)
    return merge_with_prior(observations, q, prior)


def merge_with_prior(observations: GroupedObservations, q: np.ndarray, prior: RadialPrior) -> MergedVoxels:
    """As :func:`merge_voxels`, for some of the voxels that the prior is of."""
    weight = _weights(observations, q, prior)
    intensity, noise = _weighted_mean(observations, weight)
    expected = posterior_mean(intensity, noise, q, prior)
    return MergedVoxels(intensity, _variance(observations, weight, expected), expected, prior)


def merge_part(
    observations: GroupedObservations, q: np.ndarray, whole: MergedVoxels, part: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merge a part of the observations, with the expectations that come from all of them.

    Parameters
    ----------
    part : ndarray, shape (n,), bool
        Which observations to merge.

    Returns
    -------
    intensity, variance : ndarray, shape (m,)
        NaN in voxels that have no observation in the part.
    """
    weight = np.where(part, _weights(observations, q, whole.prior), 0)
    intensity, _ = _weighted_mean(observations, weight)
    return intensity, _variance(observations, weight, whole.expected)


def weighted_means(
    observations: GroupedObservations, q: np.ndarray, prior: RadialPrior
) -> tuple[np.ndarray, np.ndarray]:
    """For each voxel I, and its variance by counting at the prior's mean, shape (m,) each."""
    return _weighted_mean(observations, _weights(observations, q, prior))


def _weights(observations: GroupedObservations, q: np.ndarray, prior: RadialPrior) -> np.ndarray:
    """One over the variance of the signals in voxels of mean intensity, shape (n,)."""
    return 1 / observations.variance(prior.mean_at(q))


def _weighted_mean(observations: GroupedObservations, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each voxel I, and its variance if the weights are the inverse variances of the signals."""
    information = observations.sum(weight * observations.response**2)
    information[information == 0] = np.nan
    return observations.sum(weight * observations.response * observations.signal) / information, 1 / information


def _variance(observations: GroupedObservations, weight: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Variance, shape (m,), of the weighted mean in voxels of the expected intensities."""
    squares = (weight * observations.response) ** 2 * observations.variance(expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        return observations.sum(squares) / observations.sum(weight * observations.response**2) ** 2


def posterior_mean(intensity: np.ndarray, variance: np.ndarray, q: np.ndarray, prior: RadialPrior) -> np.ndarray:
    """Expected intensity of voxels after counting, each shape (m,); ``variance`` is that at the prior's mean."""
    between = prior.variance_at(q)
    credibility = between / (between + variance)
    return (1 - credibility) * prior.mean_at(q) + credibility * np.maximum(intensity, 0)


def radial_bins(q: np.ndarray, n_bins: int = FINE_BINS, least: int = LEAST) -> np.ndarray:
    """Bins of equal width in |q|, neighbours put together until each holds ``least`` voxels (or all there are).

    Returns
    -------
    ndarray, shape (m,), int
        Number of each voxel's bin, from 0.
    """
    bins = RadialBins.equal(max(float(q.max()), 1e-12), n_bins)
    return RadialBins.with_least(bins.q_max, np.bincount(bins.of(q), minlength=n_bins), least).of(q)


@dataclass(frozen=True)
class RadialBins:
    """Bins of |q|, each of one or several of equal width.

    Attributes
    ----------
    q_max : float
        End of the last one, 1/Angstrom.
    numbers : ndarray, shape (k,), int
        Number of the bin that each of the equal ones belongs to.
    """

    q_max: float
    numbers: np.ndarray

    @classmethod
    def equal(cls, q_max: float, n_bins: int = FINE_BINS) -> RadialBins:
        """Bins of one width."""
        return cls(q_max, np.arange(n_bins))

    @classmethod
    def with_least(cls, q_max: float, counts: np.ndarray, least: int = LEAST) -> RadialBins:
        """Neighbours put together until each bin holds ``least`` of the ``counts``, shape (k,)."""
        number, held, numbers = 0, 0, []
        for i, count in enumerate(counts):
            numbers.append(number)
            held += count
            if held >= least and counts[i + 1 :].sum() >= least:
                number, held = number + 1, 0
        return cls(q_max, np.array(numbers))

    def of(self, q: np.ndarray) -> np.ndarray:
        """The bin of each |q|, same shape, int."""
        k = len(self.numbers)
        return self.numbers[np.minimum((q / self.q_max * k).astype(np.int64), k - 1)]

    def __len__(self) -> int:
        return int(self.numbers[-1]) + 1


@dataclass
class RadialSums:
    """Sums over the voxels of bins of |q|, shape (k,) each, of which a :class:`RadialPrior` is made.

    Attributes
    ----------
    voxels, q : ndarray
        Numbers of voxels, sums of their |q|.
    signal, response : ndarray
        Sums over their observations.
    deviation, weight : ndarray
        Weighted sums of squared deviations beyond the noise, from the mean of another prior, and of the weights.
    """

    voxels: np.ndarray
    q: np.ndarray
    signal: np.ndarray
    response: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, bins: RadialBins, observations: GroupedObservations, q: np.ndarray, prior: RadialPrior | None = None
    ) -> RadialSums:
        """Of scaled observations; without a prior there are no deviations."""
        number, k = bins.of(q), len(bins)
        signal, response = observations.sum(observations.signal), observations.sum(observations.response)
        means = [np.bincount(number, values, k) for values in (np.ones(len(q)), q, signal, response)]
        if prior is None:
            return cls(*means, *np.zeros((2, k)))
        intensity, noise = weighted_means(observations, q, prior)
        return cls(*means, *deviations(bins, q, intensity, noise, prior))

    @classmethod
    def none(cls, k: int) -> RadialSums:
        """Of no observations."""
        return cls(*np.zeros((6, k)))

    def __add__(self, other: RadialSums) -> RadialSums:
        return RadialSums(*(one + two for one, two in zip(vars(self).values(), vars(other).values())))

    def prior(self) -> RadialPrior:
        """Mean intensities of these observations; that of one photon where less has been counted."""
        mean = np.maximum(self.signal, 1) / self.response
        variance = np.divide(self.deviation, self.weight, out=np.zeros(len(mean)), where=self.weight > 0)
        return RadialPrior(self.q / self.voxels, mean, np.maximum(variance, 0))


def deviations(
    bins: RadialBins, q: np.ndarray, intensity: np.ndarray, noise: np.ndarray, prior: RadialPrior
) -> tuple[np.ndarray, np.ndarray]:
    """What :class:`RadialSums` has of deviations, by moments: E(I - m)^2 = t + v.

    Parameters
    ----------
    q, intensity, noise : ndarray, shape (m,)
        |q| of voxels, I, and v, its variance by counting.
    prior : RadialPrior
        Its mean is m.

    Returns
    -------
    deviation, weight : ndarray, shape (k,)
        Voxels weigh as 1 / (m^2 + v)^2, nearly the inverse variance of what is averaged.
    """
    number, k, mean = bins.of(q), len(bins), prior.mean_at(q)
    weight = 1 / (mean**2 + noise) ** 2
    deviation = weight * ((intensity - mean) ** 2 - noise)
    return np.bincount(number, deviation, k), np.bincount(number, weight, k)


def radial_prior(partitions: VoxelPartitions, grid: GlobalGrid) -> RadialPrior:
    """What the voxels of scaled observations are expected to be, by two looks at all of them."""
    q_max = 1 / grid.d_min
    fine = RadialBins.equal(q_max)
    counts = sum(partitions.map(partial(_count_voxels, fine, grid), "Voxels"))
    bins = RadialBins.with_least(q_max, counts)
    prior = None
    for _ in range(2):
        prior = total(partitions.map(partial(_radial_sums, bins, grid, prior), "Mean intensities")).prior()
    return prior


def _count_voxels(
    bins: RadialBins, grid: GlobalGrid, partition: Partition, observations: GroupedObservations
) -> np.ndarray:
    return np.bincount(bins.of(grid.q(observations.voxels)), minlength=len(bins))


def _radial_sums(
    bins: RadialBins,
    grid: GlobalGrid,
    prior: RadialPrior | None,
    partition: Partition,
    observations: GroupedObservations,
) -> RadialSums:
    return RadialSums.of(bins, observations, grid.q(observations.voxels), prior)


def between_voxel_variance(bins: np.ndarray, deviation: np.ndarray, noise: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Variance of the true intensities about their mean, by moments: E(I - m)^2 = t + v.

    Parameters
    ----------
    bins : ndarray, shape (m,), int
    deviation : ndarray, shape (m,)
        I - m.
    noise : ndarray, shape (m,)
        v, the variance of I by counting.
    mean : ndarray, shape (k,)
        m of the bins.

    Returns
    -------
    ndarray, shape (k,)
        t, not below 0. Voxels weigh as 1 / (m^2 + v)^2, nearly the inverse variance of what is averaged.
    """
    weight = 1 / (mean[bins] ** 2 + noise) ** 2
    return np.maximum(np.bincount(bins, weight * (deviation**2 - noise)) / np.bincount(bins, weight), 0)


def _ratio_of_sums(bins: np.ndarray, signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Mean intensity of bins; that of one photon where less has been counted, for a variance can not be 0."""
    return np.maximum(np.bincount(bins, signal), 1) / np.bincount(bins, response)
