"""Expected counts from the mean intensity of resolution shells, by sums that can be added up."""

from __future__ import annotations

import numpy as np

#: Bins of |q|, of equal volume, that shells are made of.
BINS = 1000
#: Rows of the sums.
NUMBER, COUNTS, BACKGROUND, RESPONSE = range(4)

#: Fewer observations, or photons above the background, than this do not make a resolution shell: weights that follow
#: the noise of n photons bias a mean over many such shells (of weak stills, say) by 1 / n.
MIN_SHELL = 100


def radial_bins(q: np.ndarray, q_max: float) -> np.ndarray:
    """Bins, shape (n,), int, of |q|, shape (n,): of equal volume up to ``q_max``; the last one takes what is beyond."""
    return np.minimum((BINS * (q / q_max) ** 3).astype(np.int64), BINS - 1)


def radial_sums(counts: np.ndarray, background: np.ndarray, response: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Sums over the observations in each bin.

    Values of single precision are added in double, which rounds nothing: the sums do not depend on the order.

    Parameters
    ----------
    counts, background, response, bins : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (4, BINS), float
        Numbers, and the sums of the first three.
    """
    columns = (None, counts, background, response)
    return np.array([np.bincount(bins, values, BINS) for values in columns])


def shell_intensity(sums: np.ndarray, shells: int) -> np.ndarray:
    """Mean intensity I = sum (N - B) / sum g of the shell of each bin.

    A shell where the numerator is less than one photon is given one, so that no variance is zero.

    Parameters
    ----------
    sums : ndarray, shape (4, BINS)
        Of one experiment.
    shells : int
        Of about equal numbers of observations, but each of not fewer than :data:`MIN_SHELL`, and of as many photons:
        those that, without background, would be known as well (excess^2 / counts).

    Returns
    -------
    ndarray, shape (BINS,), float
    """
    number = sums[NUMBER].sum()
    counts, background = sums[COUNTS].sum(), sums[BACKGROUND].sum()
    photons = max(counts - background, 0.0) ** 2 / max(counts, 1.0)
    shells = max(min(shells, int(number / MIN_SHELL), int(photons / MIN_SHELL)), 1)
    middle = np.cumsum(sums[NUMBER]) - sums[NUMBER] / 2
    shell = np.minimum((shells * middle / max(number, 1)).astype(np.int64), shells - 1)
    excess = np.bincount(shell, sums[COUNTS] - sums[BACKGROUND], shells)
    total = np.bincount(shell, sums[RESPONSE], shells)
    return np.divide(np.maximum(excess, 1.0), total, out=np.zeros(shells), where=total > 0)[shell]
