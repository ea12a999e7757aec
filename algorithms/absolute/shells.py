"""Mean total scattering in shells of |q|: diffuse between the Bragg peaks and in them, photons / (s sr)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cctbx import crystal, miller
from dxtbx import flumpy

from dials_diffuse.algorithms.absolute.bragg_intensities import BraggIntensities
from dials_diffuse.algorithms.scaling.expectation import MergedVoxels
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy


@dataclass
class Shells:
    """Means over n shells; what was not measured counts as the mean of what was. NaN where nothing was.

    Attributes
    ----------
    edges : ndarray, shape (n + 1,)
        Limits in |q|, 1/Angstrom.
    diffuse, diffuse_variance : ndarray, shape (n,)
        Mean over the voxels, photons / (s sr), and its variance by counting.
    completeness : ndarray, shape (n,)
        Part of the voxels that was measured.
    bragg, bragg_variance : ndarray, shape (n,)
        Sum of the peaks' integrals over the volume of the shell, photons / (s sr): what they would be on the mean if
        they were spread out.
    bragg_completeness : ndarray, shape (n,)
        Part of the reflections that was measured; 1 in shells that have none.
    bragg_strength : ndarray, shape (n,)
        Mean of J / sigma of the reflections.
    """

    edges: np.ndarray
    diffuse: np.ndarray
    diffuse_variance: np.ndarray
    completeness: np.ndarray
    bragg: np.ndarray
    bragg_variance: np.ndarray
    bragg_completeness: np.ndarray
    bragg_strength: np.ndarray

    @property
    def q(self) -> np.ndarray:
        """Middles in |q|, shape (n,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def volume(self) -> np.ndarray:
        """Volumes in 1/Angstrom^3, shape (n,)."""
        return 4 / 3 * np.pi * np.diff(self.edges**3)

    @property
    def total(self) -> np.ndarray:
        """Diffuse and Bragg together, shape (n,)."""
        return self.diffuse + self.bragg

    @property
    def variance(self) -> np.ndarray:
        """Of the total, by counting, shape (n,)."""
        return self.diffuse_variance + self.bragg_variance

    def mean_of(self, function, nodes: int = 5) -> np.ndarray:
        """Means over the shells' volumes of a function of |q|, shape (n,)."""
        x, weight = np.polynomial.legendre.leggauss(nodes)
        half = np.diff(self.edges)[:, None] / 2
        q = self.q[:, None] + half * x
        weight = 4 * np.pi * q**2 * half * weight
        return np.sum(weight * function(q.ravel()).reshape(q.shape), axis=1) / self.volume

    def select(self, chosen: slice) -> Shells:
        """Some that follow each other."""
        first, last, _ = chosen.indices(len(self.q))
        arrays = {name: values[chosen] for name, values in vars(self).items() if name != "edges"}
        return Shells(self.edges[first : last + 1], **arrays)


def diffuse_shells(
    grid: GlobalGrid, index: np.ndarray, voxels: MergedVoxels, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean diffuse intensity in shells, its variance, and the part of the voxels that was measured.

    Parameters
    ----------
    grid : GlobalGrid
    index : ndarray, shape (m, 3), int
        Measured voxels of the asymmetric unit; each counts as many times as it has equivalents.
    voxels : MergedVoxels
        Their intensities.
    edges : ndarray, shape (n + 1,)
        Limits of the shells in |q|, 1/Angstrom.

    Returns
    -------
    mean, variance, completeness : ndarray, shape (n,)
    """
    q = grid.q(index)
    shell = np.searchsorted(edges, q, side="left") - 1
    inside = (shell >= 0) & (shell < len(edges) - 1)
    shell, n = shell[inside], len(edges) - 1
    point_group = grid.equivalence_group.build_derived_point_group()
    weight = _multiplicities(grid.supercell, point_group, index[inside], grid.friedel_apart)
    total = np.bincount(shell, weight, n)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(shell, weight * voxels.intensity[inside], n) / total
        variance = np.bincount(shell, weight**2 * voxels.variance[inside], n) / total**2
    possible = 4 / 3 * np.pi * np.diff(edges**3) * grid.supercell.volume()
    return mean, variance, np.minimum(total / possible, 1)


def bragg_shells(
    grid: GlobalGrid, bragg: BraggIntensities, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bragg peaks spread over the shells that they are in; missing reflections count as the mean of the measured.

    Parameters
    ----------
    grid : GlobalGrid
    bragg : BraggIntensities
    edges : ndarray, shape (n + 1,)
        Limits of the shells in |q|, 1/Angstrom.

    Returns
    -------
    mean, variance, completeness, strength : ndarray, shape (n,)
        As of :class:`Shells`.
    """
    cell, group, n = grid.unit_cell, grid.space_group, len(edges) - 1
    symmetry = crystal.symmetry(unit_cell=cell, space_group=group)
    possible = miller.build_set(symmetry, anomalous_flag=False, d_min=1 / edges[-1], d_max=_d_max(edges))
    possible = possible.select(~possible.sys_absent_flags().data())
    q = np.sqrt(flumpy.to_numpy(possible.d_star_sq().data()))
    shell = np.clip(np.searchsorted(edges, q, side="left") - 1, 0, n - 1)
    number = np.bincount(shell, flumpy.to_numpy(possible.multiplicities().data()), n)
    q = np.sqrt(flumpy.to_numpy(cell.d_star_sq(miller_index_from_numpy(bragg.index))))
    shell = np.searchsorted(edges, q, side="left") - 1
    inside = (shell >= 0) & (shell < n)
    shell = shell[inside]
    weight = _multiplicities(cell, grid.laue_group, bragg.index[inside], False)
    measured = np.bincount(shell, weight, n)
    volume = 4 / 3 * np.pi * np.diff(edges**3)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = number / volume / measured
        mean = np.bincount(shell, weight * bragg.integral[inside], n) * share
        variance = np.bincount(shell, weight**2 * bragg.variance[inside], n) * share**2
        completeness = np.minimum(measured / number, 1)
        in_sigma = (bragg.integral / np.sqrt(bragg.variance))[inside]
        strength = np.bincount(shell, in_sigma, n) / np.bincount(shell, minlength=n)
    empty = number == 0
    mean[empty], variance[empty], completeness[empty] = 0, 0, 1
    return mean, variance, completeness, strength


def _d_max(edges: np.ndarray) -> float | None:
    return 1 / edges[0] if edges[0] > 0 else None


def _multiplicities(cell, group, index: np.ndarray, anomalous: bool) -> np.ndarray:
    """Numbers of equivalents of Miller indices, shape (m,), float; Friedel mates among them unless ``anomalous``."""
    symmetry = crystal.symmetry(unit_cell=cell, space_group=group, assert_is_compatible_unit_cell=False)
    indices = miller.set(symmetry, miller_index_from_numpy(index), anomalous_flag=anomalous)
    return flumpy.to_numpy(indices.multiplicities().data()).astype(float)
