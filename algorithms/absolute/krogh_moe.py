"""The absolute scale by the sum rule of Krogh-Moe and Norman.

Atoms scatter as if each were alone, sum f^2 + incoherent, on the average over a large volume of reciprocal space: the
interferences of pairs of atoms change their sign there. So the integrals over the sphere, in the limit of large cutoffs
Q, of what was measured and of what the unit cell's atoms scatter are the same but for the scale,

    k(Q) = int_q0^Q [sum f^2 + interference + incoherent] q^2 dq / int_q0^Q [Bragg + diffuse] q^2 dq.

Krogh-Moe (1956) Acta Cryst. 9, 951; Norman (1957) Acta Cryst. 10, 370. The integral begins at q0 behind the beam stop.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from dials_diffuse.algorithms.absolute.shells import Shells

logger = logging.getLogger("dials.diffuse.absolute")

#: The plateau is looked for in this last part of the volume that was integrated.
PLATEAU = 0.5
#: A change over the plateau up to this part of the factor is none.
LEVEL = 0.03


@dataclass
class KroghMoe:
    """The factor and how it comes about.

    Attributes
    ----------
    factor, error : float
        Electrons^2 per unit cell for a photon / (s sr), and its standard deviation: of all errors below together.
    counting_error, cutoff_error, shell_error, model_error : float
        By counting; standard deviation of k over the cutoffs of the plateau; standard error by the scatter between the
        shells of the plateau; what the interference is uncertain by.
    q : ndarray, shape (n,)
        Cutoffs in 1/Angstrom.
    factors, counting_errors : ndarray, shape (n,)
        k at the cutoffs, and their errors by counting.
    first : int
        The first cutoff of the plateau.
    drift : float
        Relative change of k over the plateau, of a straight line through it.
    """

    factor: float
    error: float
    counting_error: float
    cutoff_error: float
    shell_error: float
    model_error: float
    q: np.ndarray
    factors: np.ndarray
    counting_errors: np.ndarray
    first: int
    drift: float

    @property
    def is_level(self) -> bool:
        """Whether k no longer depends on the cutoff, as far as its errors tell."""
        return abs(self.drift) <= max(LEVEL, 2 * self.counting_error / self.factor)


def krogh_moe(shells: Shells, expected: np.ndarray, model_error: float = 0.0) -> KroghMoe:
    """Find the factor.

    Parameters
    ----------
    shells : Shells
        n shells without gaps (see :func:`filled`), 4 at least.
    expected : ndarray, shape (n,)
        Means over the shells of what the unit cell's atoms scatter, electrons^2 per unit cell.
    model_error : float
        Relative standard deviation of the sum of these.
    """
    weight = shells.volume
    measured, wanted = np.cumsum(weight * shells.total), np.cumsum(weight * expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        factors = wanted / measured
        counting = factors * np.sqrt(np.cumsum(weight**2 * shells.variance)) / measured
    q = shells.edges[1:]
    first = min(int(np.searchsorted(q**3, (1 - PLATEAU) * q[-1] ** 3)), len(q) - 3)
    plateau = slice(first, None)
    factor = float(factors[-1])
    slope = np.polyfit(q[plateau], factors[plateau], 1)[0]
    cutoff_error = float(np.std(factors[plateau]))
    shell_error = _scatter(expected[plateau], shells.total[plateau], weight[plateau], factor)
    errors = float(counting[-1]), cutoff_error, shell_error, model_error * factor
    error = float(np.sqrt(np.sum(np.square(errors))))
    return KroghMoe(factor, error, *errors, q, factors, counting, first, float(slope * (q[-1] - q[first])) / factor)


def _scatter(expected: np.ndarray, measured: np.ndarray, weight: np.ndarray, factor: float) -> float:
    """Standard error of a ratio of sums by the scatter of its parts: Cochran (1977) Sampling Techniques, eq. 6.13."""
    n = len(measured)
    residual = weight * (expected - factor * measured)
    return float(np.sqrt(n / (n - 1) * np.sum((residual - residual.mean()) ** 2)) / np.sum(weight * measured))


def filled(shells: Shells, least_completeness: float) -> tuple[Shells, list[str]]:
    """Shells without gaps, and what was done to them in words.

    Parameters
    ----------
    shells : Shells
    least_completeness : float
        Shells with a smaller part of the voxels, or of the reflections, count as empty. Empty ones at either end are
        left out; between others, they get what lies on a straight line between their neighbours.
    """
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(shells.total)
            & (shells.completeness >= least_completeness)
            & (shells.bragg_completeness >= least_completeness)
        )
    words = []
    if not good.any():
        return shells.select(slice(0, 0)), words
    first, last = np.flatnonzero(good)[[0, -1]]
    if first > 0:
        words.append(f"below {1 / shells.edges[first]:.1f} A")
    if last < len(good) - 1:
        words.append(f"beyond {1 / shells.edges[last + 1]:.2f} A")
    if words:
        words = [f"Shells {' and '.join(words)} have too few voxels or reflections and are left out."]
    kept, good = shells.select(slice(first, last + 1)), good[first : last + 1]
    for name in ("diffuse", "bragg", "diffuse_variance", "bragg_variance"):
        values = getattr(kept, name).copy()
        values[~good] = np.interp(kept.q[~good], kept.q[good], values[good])
        setattr(kept, name, values)
    if gaps := int(np.sum(~good)):
        words.append(f"{gaps} empty shells are interpolated.")
    return kept, words
