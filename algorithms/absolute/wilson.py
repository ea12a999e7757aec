"""Wilson's plot of the Bragg intensities: the scale and the overall B factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Lowest |q| of the straight line, 1/Angstrom: at lower ones solvent and the shapes of molecules show.
LOWEST = 1 / 4.5
#: Shells with a mean of I / sigma below this are left out of the line: what error the background has counts there.
STRONG = 3.0


@dataclass
class Wilson:
    """A straight line through ln(<|F|^2> / sum f^2) over q^2.

    Attributes
    ----------
    factor, error : float
        Electrons^2 per unit cell for a photon / (s sr), and its standard deviation.
    b_factor, b_error : float
        B in Angstrom^2 of <|F|^2> = sum f^2 exp(-B q^2 / 2), and its standard deviation.
    q, logarithm : ndarray, shape (n,)
        |q| of the shells, and ln(sum f^2 / <V J>): ln k + B q^2 / 2 on the line.
    """

    factor: float
    error: float
    b_factor: float
    b_error: float
    q: np.ndarray
    logarithm: np.ndarray

    def line(self, q: np.ndarray) -> np.ndarray:
        """The line at |q|, same shape."""
        return np.log(self.factor) + self.b_factor * np.square(q) / 2


def wilson(
    q: np.ndarray, bragg: np.ndarray, weight: np.ndarray, expected: np.ndarray, strong: np.ndarray
) -> Wilson | None:
    """Fit the line (Wilson (1942) Nature 150, 152).

    Parameters
    ----------
    q : ndarray, shape (n,)
        Middles of shells in 1/Angstrom.
    bragg : ndarray, shape (n,)
        Peaks spread over their shell, photons / (s sr): the mean of J V over the points of a primitive lattice.
    weight : ndarray, shape (n,)
        Proportional to the number of independent reflections.
    expected : ndarray, shape (n,)
        Sum f^2 of the ordered atoms, electrons^2 per unit cell.

    strong : ndarray, shape (n,), bool
        Shells whose reflections are well above the noise; others are left out.

    Returns
    -------
    Wilson or None
        None if fewer than four shells beyond :data:`LOWEST` are left.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        logarithm = np.log(expected / bragg)
    used = (q > LOWEST) & np.isfinite(logarithm) & (weight > 0) & strong
    if used.sum() < 4:
        return None
    x, y, w = q[used] ** 2 / 2, logarithm[used], weight[used]
    design = np.stack([np.ones_like(x), x], axis=1)
    inverse = np.linalg.inv(design.T @ (w[:, None] * design))
    ln_factor, b_factor = inverse @ design.T @ (w * y)
    residual = y - design @ [ln_factor, b_factor]
    covariance = inverse * np.sum(w * residual**2) / (len(x) - 2)
    factor = float(np.exp(ln_factor))
    errors = np.sqrt(np.diag(covariance))
    return Wilson(factor, factor * float(errors[0]), float(b_factor), float(errors[1]), q[used], y)
