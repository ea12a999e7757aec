"""How the observations of a voxel scatter about its merged intensity, by groups (see groups.py).

Merged over group g, with the weights w of the merging (see scaling/expectation.py), a voxel has I_g = sum w u y / W_g,
W_g = sum w u^2; merged over all of it I = sum p_g I_g, p_g = W_g / sum W_g. From these,

- an unbiased estimate of the variance of I, s = sum p_g^2 (I_g - I)^2 / (1 - p_g). Its expectation is Var(I) if the
  variances of the I_g go as 1 / W_g, and nearly so if they do not: the HC2 estimate of MacKinnon & White (1985)
  J. Econometrics 29, 305, for a weighted mean. No error model enters.
- chi-squared, sum (I_g - I)^2 / m_g, and what is expected of it, the degrees of freedom: sum [(1 - 2 p_g) v_g + Var(I)]
  / m_g, Var(I) = sum p_g^2 v_g. v_g is the variance of I_g in the voxel as it is, m_g in one of mean intensity at that
  |q|; where voxels are alike, it is the number of groups - 1. The variance of counts is linear in I, so the merged I,
  which is unbiased, gives an unbiased expectation at any count; and m_g depends on no count of the voxel. With v_g for
  m_g an upward fluctuation would enlarge its own variance: chi-squared would be 3 % low at 0.2 photons an observation.
- the sums of R_meas (Diederichs & Karplus (1997) Nat. Struct. Biol. 4, 269), which weighs voxels and observations as
  its photons do: sum U_g |I_g - I| / sqrt(1 - p_g) / sum U_g I with U_g = sum u; for equal weights 1 / sqrt(1 - p) is
  the familiar sqrt(n / (n - 1)). What is expected of it: of the n photons of a voxel, group g holds a binomial number,
  whose mean deviation is 2 (k + 1) C(n, k + 1) p^(k + 1) (1 - p)^(n - k), k = floor(n p) (De Moivre; Johnson, Kemp &
  Kotz (2005) Univariate Discrete Distributions, 3.3): that over its standard deviation, times the one of I_g - I.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy

from dials_diffuse.algorithms.merging.groups import number_groups
from dials_diffuse.algorithms.scaling.expectation import MergedVoxels, RadialPrior
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
    number, first = number_groups(observations, groups)
    several = np.diff(first) > 1
    columns = np.zeros((6, len(q)))
    columns[0] = np.nan
    if several.any():
        columns[:, several] = _of_voxels(observations, q, whole.prior, number, first)[:, several]
    return Scatter(*columns)


def _of_voxels(
    part: GroupedObservations, q: np.ndarray, prior: RadialPrior, number: np.ndarray, first: np.ndarray
) -> np.ndarray:
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
    response = np.bincount(number, part.response)

    def variances(of_voxels: np.ndarray) -> np.ndarray:
        """Of the groups, in voxels of these intensities."""
        photons = part.error_model.variance(part.response * part.spread(of_voxels), part.noise)
        return np.bincount(number, response_weight**2 * photons) / information**2

    of_groups, of_mean = variances(merged), variances(mean)
    expected = (1 - 2 * share) * of_groups + spread(by_voxel(share**2 * of_groups))
    photons = np.bincount(number, part.response * part.spread(np.maximum(merged, 0)) + part.noise)
    deviation = relative_deviation(spread(by_voxel(photons)), photons) * np.sqrt(np.maximum(expected, 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # where there is one group
        return np.stack(
            [
                by_voxel(share**2 * difference**2 / (1 - share)),
                by_voxel(difference**2 / of_mean),
                by_voxel(expected / of_mean),
                by_voxel(response * np.abs(difference) / np.sqrt(1 - share)),
                by_voxel(response * deviation / np.sqrt(1 - share)),
                by_voxel(response) * merged,
            ]
        )


def relative_deviation(total: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean absolute over standard deviation of binomial numbers; 0 where there is nothing.

    Parameters
    ----------
    total, mean : ndarray, same shape
        n, taken as the nearest whole number, and n p.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.clip(mean / total, 0, 1)
        n = np.rint(total)
        k = np.floor(n * p)
        log_ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k)
        found = 2 * np.exp(log_ways + xlogy(k + 1, p) + xlogy(n - k, 1 - p)) / np.sqrt(n * p * (1 - p))
    return np.where((n > 0) & (p > 0) & (p < 1), found, 0)
