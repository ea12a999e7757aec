"""How much observations scatter beyond counting statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ErrorModel:
    """Variance of an observation's photons: a^2 (expected photons + var(B) + (b s)^2), s the part that I makes.

    The form of DIALS's error model (dials/algorithms/scaling/error_model/error_model.py), with the variance by counting
    taken from expected, not observed, counts.
    """

    a: float = 1.0
    b: float = 0.0

    def variance(self, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Variance of N - B in photons^2, shape (n,).

        Parameters
        ----------
        signal : ndarray, shape (n,)
            Photons s that the voxel's own intensity is expected to give.
        noise : ndarray, shape (n,)
            Photons that are expected from everything else, plus the variance of what is subtracted for them.
        """
        return self.a**2 * (signal + noise + (self.b * signal) ** 2)
