"""How the observations of a voxel scatter about its merged intensity, by groups (see groups.py).

Merged over group g, with the weights w of the merging (see scaling/expectation.py), a voxel has I_g = sum w u y / W_g,
W_g = sum w u^2; merged over all of it I = sum p_g I_g, p_g = W_g / sum W_g. From these,

- an unbiased estimate of the variance of I, s = sum p_g^2 (I_g - I)^2 / (1 - p_g). Its expectation is Var(I) if the
  variances of the I_g go as 1 / W_g, and nearly so if they do not: the HC2 estimate of MacKinnon & White (1985)
  J. Econometrics 29, 305, for a weighted mean. No error model enters.
- chi-squared, sum (I_g - I)^2 / v_g, with degrees of freedom sum [1 - 2 p_g + Var(I) / v_g], Var(I) = sum p_g^2 v_g:
  the exact expectation of the sum for variances v_g, groups - 1 where w are their inverses. v_g follow from the
  intensity that the OTHER groups of the voxel let expect, and the prior. With the intensity from all groups,
  chi-squared would come out low for few photons, as an upward fluctuation would enlarge its own variance: by 3 % at
  0.2 photons an observation.
- the sums of R_meas (Diederichs & Karplus (1997) Nat. Struct. Biol. 4, 269), which weighs voxels and observations as
  its photons do: sum U_g |I_g - I| / sqrt(1 - p_g) / sum U_g I with U_g = sum u; for equal weights 1 / sqrt(1 - p)
  is the familiar sqrt(n / (n - 1)). What counting lets expect of it is the mean deviation of a Poisson distribution
  of mean k, 2 k^(m + 1) exp(-k) / m! with m = floor(k) (De Moivre; Johnson, Kemp & Kotz (2005) Univariate Discrete
  Distributions, 4.3), in the ratio of the standard deviation that the error model gives to sqrt(k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy

from dials_diffuse.algorithms.merging.groups import in_chunks
from dials_diffuse.algorithms.scaling.expectation import MergedVoxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations


@dataclass
class Scatter:
    """Of the m voxels, each of shape (m,). Voxels with one group have NaN for the variance and 0 for all else.

    Attributes
    ----------
    variance : ndarray
        s, the variance of the merged intensity by scatter.
    chi_squared, degrees_of_freedom : ndarray
    deviation, expected_deviation, photons : ndarray
        Sums of R_meas: its numerator, what is expected of that, its denominator; photons.
    """

    variance: np.ndarray
    chi_squared: np.ndarray
    degrees_of_freedom: np.ndarray
    deviation: np.ndarray
    expected_deviation: np.ndarray
    photons: np.ndarray


def scatter(observations: GroupedObservations, q: np.ndarray, whole: MergedVoxels, groups: np.ndarray) -> Scatter:
    """The scatter of observations, merged over groups, about the merged voxels.

    Parameters
    ----------
    observations : GroupedObservations
        n observations of m voxels.
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.
    whole : MergedVoxels
        They merged.
    groups : ndarray, shape (n,), int
        Of :func:`dials_diffuse.algorithms.merging.groups.group_of_observations`.
    """
    columns = np.zeros((6, len(q)))
    columns[0] = np.nan
    for voxels, _, part, number, first in in_chunks(observations, groups):
        several = np.diff(first) > 1
        if several.any():
            columns[:, voxels][:, several] = _of_chunk(part, q[voxels], whole.prior, number, first)[:, several]
    return Scatter(*columns)


def _of_chunk(part: GroupedObservations, q: np.ndarray, prior, number: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The columns of :class:`Scatter`, without regard to voxels with one group; shape (6, voxels)."""
    n_groups = np.diff(first)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, n_groups)

    def by_voxel(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, first[:-1])

    mean = prior.mean_at(q)
    response_weight = part.response / part.variance(mean)  # w u
    information = np.bincount(number, response_weight * part.response)
    total = by_voxel(information)
    share = information / spread(total)
    intensity = np.bincount(number, response_weight * part.signal) / information
    merged = by_voxel(share * intensity)
    difference = intensity - spread(merged)
    with np.errstate(divide="ignore", invalid="ignore"):  # where there is one group
        variance = by_voxel(share**2 * difference**2 / (1 - share))
        others = spread(merged) - share / (1 - share) * difference
        between = spread(prior.variance_at(q))
        credibility = between / (between + 1 / (spread(total) - information))
        expected = (1 - credibility) * spread(mean) + credibility * np.maximum(others, 0)
        signal = part.response * expected[number]
        of_observations = part.error_model.variance(signal, part.noise)
        of_groups = np.bincount(number, response_weight**2 * of_observations) / information**2
        of_merged = by_voxel(share**2 * of_groups)
        response = np.bincount(number, part.response)
        photons = np.bincount(number, signal + part.noise)
        expected_deviation = poisson_deviation(photons) * response * np.sqrt(of_groups / photons)
        return np.stack(
            [
                variance,
                by_voxel(difference**2 / of_groups),
                by_voxel(1 - 2 * share + spread(of_merged) / of_groups),
                by_voxel(response * np.abs(difference) / np.sqrt(1 - share)),
                by_voxel(expected_deviation),
                by_voxel(response) * merged,
            ]
        )


def poisson_deviation(mean: np.ndarray) -> np.ndarray:
    """Mean absolute deviation of Poisson counts from their mean, same shape."""
    below = np.floor(mean)
    return 2 * np.exp(xlogy(below + 1, mean) - mean - gammaln(below + 1))
