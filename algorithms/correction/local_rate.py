"""The rate of photons round each pixel of a panel, where some pixels measure nothing or nonsense."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.special import betainc

#: A pixel is left out where it counts this many times more (or less) than its neighbours, ...
OUTLIER_RATIO = 2.0
#: ... unless chance explains it with more than this probability.
OUTLIER_PROBABILITY = 1e-7
#: Its neighbours: a box of this half-width in pixels.
OUTLIER_HALF_WIDTH = 2


def smooth_rate(counts: np.ndarray, seconds: np.ndarray, half_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Local mean of the rate over a box of pixels, hot and dead ones left out.

    The mean over a box is the sum of its counts over the sum of its seconds, an unbiased estimate at any level (zeros
    count) and, since the box is symmetric, under any linear trend away from borders and gaps. Its variance is
    sum of counts / (sum of seconds)^2 by Poisson's law, with at least one count, so that a box without counts is not
    taken for exact.

    Parameters
    ----------
    counts : ndarray, shape (slow, fast), float
        Photons summed over frames.
    seconds : ndarray, shape (slow, fast), float
        Time for which each pixel measured; 0 where it never did.
    half_width : int
        The box has 2 half_width + 1 pixels a side.

    Returns
    -------
    rate, variance : ndarray, shape (slow, fast), float
        Photons per pixel and second, and its square; NaN where the box has no measurement.
    """
    good = (seconds > 0) & ~find_outliers(counts, seconds)
    total = box_sum(np.where(good, counts, 0.0), half_width)
    time = box_sum(np.where(good, seconds, 0.0), half_width)
    measured = time > 0.5 * seconds.min(where=good, initial=np.inf)  # a running sum of zeros may end in 1e-16
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(measured, total / time, np.nan)
        variance = np.where(measured, np.maximum(total, 1.0) / time**2, np.nan)
    return rate, variance


def find_outliers(counts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Pixels whose rate is significantly more than twice, or less than half, that of their neighbours.

    Two Poisson rates are compared given the sum of their counts, which makes one of them binomial: exact at any level,
    and without an assumption on the neighbours' true rate. Source: Przyborowski & Wilenski, Biometrika 31 (1940) 313.

    Parameters
    ----------
    counts, seconds : ndarray, shape (slow, fast)
        As in :func:`smooth_rate`.

    Returns
    -------
    ndarray, shape (slow, fast), bool
    """
    bad = np.zeros(counts.shape, dtype=bool)
    for _ in range(5):  # a very hot pixel hides its less hot neighbours
        hot = _deviates(counts, seconds, bad, OUTLIER_RATIO)
        bad |= hot
        if not hot.any():
            break
    return bad | _deviates(counts, seconds, bad, 1 / OUTLIER_RATIO)


def _deviates(counts: np.ndarray, seconds: np.ndarray, bad: np.ndarray, ratio: float) -> np.ndarray:
    """Pixels whose rate is significantly beyond ``ratio`` times that of their neighbours, on the side away from 1."""
    own = np.where(bad, 0.0, np.maximum(counts, 0))
    time = np.where(bad, 0.0, seconds)
    others = np.maximum(box_sum(own, OUTLIER_HALF_WIDTH) - own, 0)
    others_time = box_sum(time, OUTLIER_HALF_WIDTH) - time
    excess = own * others_time - ratio * others * time
    candidates = (time > 0) & (others_time > 0.5 * time) & (excess > 0 if ratio > 1 else excess < 0)
    k, rest = np.maximum(own[candidates], 1e-9), np.maximum(others[candidates], 1e-9)
    share = ratio * time[candidates] / (ratio * time[candidates] + others_time[candidates])
    # X binomial: P(X >= k) on the high side, P(X <= k) on the low side, as incomplete beta functions
    probability = betainc(k, rest + 1, share) if ratio > 1 else betainc(rest, k + 1, 1 - share)
    result = np.zeros(counts.shape, dtype=bool)
    result[candidates] = probability < OUTLIER_PROBABILITY
    return result


def box_sum(image: np.ndarray, half_width: int) -> np.ndarray:
    """Sum over a box of 2 half_width + 1 pixels a side round each pixel; what lies outside the image counts as zero."""
    size = 2 * half_width + 1
    return np.maximum(uniform_filter(image, size, mode="constant"), 0.0) * size**2
