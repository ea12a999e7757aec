"""Correlation between half sets, and with the truth, from the variances of intensities and of their errors.

With t the variance between voxels of the true intensities and s the mean variance of the merged ones' errors, two
halves of equal weight have errors of 2 s each, and merged intensities vary by S = t + s. So

    CC1/2 = t / (t + 2 s) = (S - s) / (S + s),      CC_true = sqrt(2 CC1/2 / (1 + CC1/2)) = sqrt((S - s) / S)

(Assmann, Brehm & Diederichs (2016) J. Appl. Cryst. 49, 1021, "sigma-tau method"; Karplus & Diederichs (2012) Science
336, 1030). s comes from the scatter within voxels (scatter.py). Against the correlation of one pair of half sets this
has no draw in it: it is the mean over all of them, with 0.7 of the standard deviation at 24 observations a voxel, and
does not suffer where halves can not be made equal. All voxels that were seen more than once count the same: that is
the correlation of what is in the map, whatever its errors.

Intervals are Fisher's: normal in z = artanh(CC). But its standard deviation 1 / sqrt(n - 3) holds for normal variables
of one variance, and voxels are nothing of that kind: some are seen once, some often, halos are bright. So that over
voxels is found, by the infinitesimal jackknife (Efron (1982) The Jackknife, the Bootstrap and Other Resampling Plans,
chapter 6): the bootstrap's, to first order, without draws. Few voxels do not show the tails of their distribution: the
wider of the two is taken. P is the probability of as much by chance if t were 0: Student's t of z over the standard
deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass
class Correlation:
    """A correlation and how well it is known.

    Attributes
    ----------
    value, low, high : float
        And the limits of the 95 % confidence interval. NaN for fewer than 3 voxels.
    probability : float
        Of a value as high if there were no correlation.
    voxels : int
        That it was taken over.
    """

    value: float
    low: float
    high: float
    probability: float
    voxels: int

    def with_truth(self) -> tuple[float, float, float]:
        """CC_true and the limits of its confidence interval; 0 where CC1/2 is negative."""
        halves = np.array([self.value, self.low, self.high])
        with np.errstate(divide="ignore"):
            return tuple(float(cc) for cc in np.sqrt(np.maximum(2 * halves / (1 + halves), 0)))


def correlation(intensity: np.ndarray, variance: np.ndarray) -> Correlation:
    """CC1/2 of merged intensities.

    Parameters
    ----------
    intensity : ndarray, shape (m,)
        Of voxels.
    variance : ndarray, shape (m,)
        Unbiased estimates of their variances, which may be rough; voxels with NaN are left out.
    """
    from scipy.stats import t as student

    known = np.isfinite(intensity) & np.isfinite(variance)
    intensity, variance = intensity[known], variance[known]
    n = len(intensity)
    if n < 3 or intensity.std() == 0:
        return Correlation(*[float("nan")] * 4, n)
    squares = (intensity - intensity.mean()) ** 2
    total, error = squares.sum() / (n - 1), variance.mean()
    cc = (total - error) / (total + error)
    influence = 2 * (error * squares - total * variance) / (total + error) ** 2
    jackknife = np.sqrt(influence @ influence / n / (n - 1)) / max(1 - cc**2, 1e-12)
    deviation = max(jackknife, 1 / np.sqrt(max(n - 3, 1)))
    z = np.arctanh(np.clip(cc, -1 + 1e-12, 1 - 1e-12))
    width = student.ppf((1 + CONFIDENCE) / 2, n - 2) * deviation
    return Correlation(
        float(cc),
        float(np.tanh(z - width)),
        float(np.tanh(z + width)),
        float(student.sf(z / deviation, n - 2)),
        n,
    )
