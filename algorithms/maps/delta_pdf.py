"""The three-dimensional difference Patterson function (3D-delta-PDF), and whatever else the transform of a map is.

P(r) = integral of I(q) exp(-2 pi i q.r) dq, I per unit cell: of the diffuse intensity, how much more often than in the
average structure atoms are at r from each other, weighted by their electrons (Weber & Simonov (2012) Z. Kristallogr.
227, 238); of the total intensity, the whole pair distribution. A voxel has the volume 1 / (V n_a n_b n_c), so that

    P(r) = sum over voxels I(n) cos(2 pi n.x) / (V n_a n_b n_c),   x: fractional in the supercell n_a a, n_b b, n_c c

in electrons^2 / A^3 per unit cell if I is in electrons^2 per unit cell. It repeats with the supercell, and what is
farther apart than half of it is folded in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import libtbx.phil
import numpy as np
from cctbx import uctbx
from dials.util import Sorry

from dials_diffuse.algorithms.maps.equivalents import Representatives, representatives, slabs
from dials_diffuse.algorithms.maps.radial import profile_of, shells_of
from dials_diffuse.map_file import ABSOLUTE_UNITS, DiffuseMap


@dataclass
class DeltaPdf:
    """A function in direct space.

    Attributes
    ----------
    values : ndarray, shape (n_a, n_b, n_c), float32
        Over one supercell, from its origin: ``values[i, j, k]`` is at (i / n_a, j / n_b, k / n_c) of it. r and -r have
        the same value, and i and i - n_a are the same place.
    supercell : cctbx.uctbx.unit_cell
    units : str
    """

    values: np.ndarray
    supercell: uctbx.unit_cell
    units: str

    def at(self, vector: np.ndarray) -> np.ndarray:
        """Values at the grid points nearest to vectors in Angstrom (cctbx's Cartesian axes), shape (n, 3) to (n,)."""
        fractional = np.asarray(vector) @ np.array(self.supercell.fractionalization_matrix()).reshape(3, 3).T
        place = np.rint(fractional * self.values.shape).astype(int) % self.values.shape
        return self.values[tuple(place.T)]

    def write(self, filename: str | os.PathLike, centred: bool) -> None:
        """As a CCP4 map in P 1, in Angstrom.

        Parameters
        ----------
        filename : path
        centred : bool
            The map extends from -1/2 to 1/2 of the supercell, with the origin in its middle; else from 0 to 1.
        """
        from dials_diffuse.algorithms.export.ccp4 import write_ccp4

        values, start = self.values, (0, 0, 0)
        if centred:
            values, start = np.fft.fftshift(values), [-(n // 2) for n in values.shape]
        labels = ["dials_diffuse: 3D-delta-PDF, origin at grid point 0 0 0", f"{self.units}, per unit cell"]
        write_ccp4(filename, values, self.supercell, start=start, labels=labels)


def delta_pdf(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> DeltaPdf:
    """Fourier transform of a map.

    Parameters
    ----------
    diffuse_map : DiffuseMap
        Usually filled, and the variational part.
    params : libtbx.phil.scope_extract
        The scope ``delta_pdf``: ``apodisation``, ``d_min``, ``missing``, ``shells``, ``spacing``.

    Raises
    ------
    Sorry
        If the map holds no intensity.
    """
    from scipy.fft import irfftn, next_fast_len

    voxels = representatives(diffuse_map)
    if len(voxels) == 0:
        raise Sorry("The map holds no intensity: it has no Fourier transform.")
    grid = diffuse_map.grid
    q_max = voxels.q.max() if params.d_min is None else 1 / params.d_min
    least = [2 * n + 1 for n in np.abs(voxels.index).max(axis=0) * np.abs(grid.rotations).sum(axis=1).max(axis=0)]
    if params.spacing is not None:
        least = [max(n, edge / params.spacing) for n, edge in zip(least, grid.supercell.parameters()[:3])]
    size = tuple(next_fast_len(int(np.ceil(n)), real=True) for n in least)
    total, count = _half_space(voxels, size)
    waves = np.empty(total.shape, dtype=np.complex64)
    axes = [np.fft.fftfreq(n, 1 / n) / ndiv for n, ndiv in zip(size, grid.ndiv)]
    half = replace(diffuse_map, h=axes[0], k=axes[1], l=np.arange(total.shape[2]) / grid.ndiv[2], fields={})
    profile = profile_of(voxels, shells_of(voxels.q, params.shells)) if params.missing == "shell_mean" else None
    for planes in slabs(half):
        q = half.q(planes)
        missing = count[planes] == 0
        values = total[planes] / np.maximum(count[planes], 1)
        if profile is not None:
            values[missing] = profile.at(q[missing])
        waves[planes] = values * apodisation(q / q_max, params.apodisation)
    del total, count
    values = irfftn(waves, s=size, workers=-1, overwrite_x=True)
    values *= np.float32(np.prod(size) / (grid.unit_cell.volume() * np.prod(grid.ndiv)))
    units = "electrons^2/A^3" if diffuse_map.units == ABSOLUTE_UNITS else f"{diffuse_map.units}/A^3"
    return DeltaPdf(values, grid.supercell, units)


def apodisation(x: np.ndarray, kind: str) -> np.ndarray:
    """Weights that let a map end softly, so that its end makes no ripples; by x = |q| / q_max, 0 beyond 1.

    ``gaussian``: exp(-4 x^2), 0.02 at the end. ``hann``: cos^2(pi x / 2). ``none``: 1. They widen every peak: by a
    Gaussian of standard deviation sqrt(2) / (pi q_max) = 0.45 d_min the first.
    """
    weight = {"gaussian": lambda: np.exp(-4 * x**2), "hann": lambda: np.cos(np.pi / 2 * x) ** 2}
    return np.where(x <= 1 + 1e-6, weight[kind]() if kind in weight else np.float32(1), np.float32(0))


def _half_space(voxels: Representatives, size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the intensities of a voxel, its equivalents and their Friedel mates, and how many there are.

    Arrays in the order of an FFT, float32 and uint8, for l >= 0 alone: a function that is the same for r and -r is the
    transform of one that is the same for n and -n.
    """
    shape = (size[0], size[1], size[2] // 2 + 1)
    total, count = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint8)
    rotations = voxels.of.grid.rotations
    mates = {rotation.tobytes() for rotation in rotations}
    intensity = voxels.values().astype(np.float32)
    for rotation in [*rotations, *(-rotation for rotation in rotations if (-rotation).tobytes() not in mates)]:
        l = voxels.index @ rotation[:, 2]
        kept = l >= 0
        h, k = (voxels.index[kept] @ rotation[:, :2]).T
        place = (h % size[0], k % size[1], l[kept])
        total[place] += intensity[kept]
        count[place] += 1
    return total, count
