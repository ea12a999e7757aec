"""How improbable a number of photons is, said as a normal deviate."""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, gammainc, gammaincc, ndtri

#: Below this the rate's own variance is negligible against that of counting, and the distribution Poisson.
NEGLIGIBLE = 1e-6


def equivalent_deviate(photons: np.ndarray, mean: np.ndarray, counting: np.ndarray, extra: np.ndarray) -> np.ndarray:
    r"""Normal deviates with the tail probabilities of the numbers of photons, each shape (n,).

    Few photons are skewed about their mean: a cut at equal distances above and below would take more of the high ones
    and shift the mean. So the probability itself of as many or more, or as few or fewer, is what counts. The photons
    are Poisson, times ``counting / mean`` if an error model makes them scatter more, about a rate that is itself known
    only with the variance ``extra``: the rate as a Gamma variate makes them negative binomial, of size
    r = mean^2 / extra. With x and m in units of counting / mean,

    P(X >= x) = I_{m / (m + r)}(x, r),  P(X <= x) = I_{r / (m + r)}(r, x + 1),

    I the regularised incomplete beta function (continuous in x); for r to infinity Poisson's P(x, m) and Q(x + 1, m).
    The tail includes x itself, so whole numbers are never called less probable than they are.

    Source: Johnson, Kemp & Kotz (2005) Univariate Discrete Distributions, eqs. 4.20 and 5.31.

    Parameters
    ----------
    photons : ndarray
        Observed; below 0 counts as 0.
    mean : ndarray
        Expected, above 0.
    counting, extra : ndarray
        Variance by counting, and of the expected value itself, photons^2.
    """
    unit = counting / mean
    x, m = np.maximum(photons, 0) / unit, mean / unit
    more, fewer = np.empty_like(x), np.empty_like(x)
    poisson = extra <= NEGLIGIBLE * counting
    more[poisson], fewer[poisson] = gammainc_at_0(x[poisson], m[poisson]), gammaincc(x[poisson] + 1, m[poisson])
    x, m, r = x[~poisson], m[~poisson], mean[~poisson] ** 2 / extra[~poisson]
    more[~poisson] = np.where(x > 0, betainc(np.maximum(x, 1e-300), r, m / (m + r)), 1)
    fewer[~poisson] = betainc(r, x + 1, r / (m + r))
    return np.where(more < fewer, np.maximum(-ndtri(more), 0), np.minimum(ndtri(fewer), 0))


def gammainc_at_0(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Regularised lower incomplete gamma function P(x, m), 1 for x = 0."""
    return np.where(x > 0, gammainc(np.maximum(x, 1e-300), m), 1)


def root_deviate(photons: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Nearly the same by square roots, 2 (sqrt(x + 3/8) - sqrt(m + 1/8)): quick, and good to 10 % up to 5 sigma.

    Source: Anscombe (1948) Biometrika 35, 246 (the 3/8); that with 1/8 the deviate of the mean itself is nearly 0.
    """
    unit = variance / mean
    return 2 * (np.sqrt(np.maximum(photons, 0) / unit + 0.375) - np.sqrt(mean / unit + 0.125))


def tukey_weight(deviate: np.ndarray, cut: float) -> np.ndarray:
    """Tukey's biweight: (1 - (z / cut)^2)^2, 0 beyond the cut."""
    return np.maximum(1 - (deviate / cut) ** 2, 0) ** 2
