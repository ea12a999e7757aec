"""Merged voxels held against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dials_diffuse.algorithms.simulation.truth import Truth


@dataclass
class Comparison:
    """How merged voxels agree with the truth.

    Attributes
    ----------
    voxels : int
        Compared.
    scale : float
        Of the map over that of the truth, by least squares weighted with the map's variances.
    mean : float
        Sum of the intensities over that of the truth.
    chi_squared : float
        Mean squared difference from the scaled truth in units of the variance.
    correlation : float
        Pearson's, after the mean of each resolution shell has been subtracted from both.
    """

    voxels: int
    scale: float
    mean: float
    chi_squared: float
    correlation: float

    def __str__(self) -> str:
        return (
            f"{self.voxels} voxels: correlation {self.correlation:.4f} (shell means subtracted), "
            f"reduced chi-squared {self.chi_squared:.3f}, scale {self.scale:.4f}, mean {self.mean:.4f} of the truth"
        )


def compare(
    truth: Truth,
    index: np.ndarray,
    ndiv: tuple[int, int, int],
    intensity: np.ndarray,
    variance: np.ndarray,
    shells: int = 20,
) -> Comparison:
    """Compare merged voxels with the mean diffuse intensity that the truth has in them.

    Parameters
    ----------
    truth : Truth
    index : ndarray, shape (n, 3), int
        Voxels: centres at index / ndiv in fractional Miller indices.
    ndiv : tuple of 3 int
    intensity, variance : ndarray, shape (n,)
        Photons / (s sr), and squared.
    shells : int
        Resolution shells of equal numbers of voxels for the correlation.
    """
    expected = truth.voxel_mean(index, ndiv)
    weight = 1 / variance
    scale = float(np.sum(weight * intensity * expected) / np.sum(weight * expected**2))
    q = np.linalg.norm(index / np.array(ndiv) @ np.array(truth.cell.fractionalization_matrix()).reshape(3, 3), axis=1)
    residues = []
    for shell in np.array_split(np.argsort(q), shells):
        residues.append([values[shell] - values[shell].mean() for values in (intensity, expected)])
    measured, true = np.concatenate(residues, axis=1)
    return Comparison(
        voxels=len(index),
        scale=scale,
        mean=float(intensity.sum() / expected.sum()),
        chi_squared=float(np.mean((intensity - scale * expected) ** 2 / variance)),
        correlation=float(np.corrcoef(measured, true)[0, 1]),
    )
