"""How alike two maps are, by shells of resolution."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from dials.util import Sorry, tabulate

from dials_diffuse.algorithms.maps.equivalents import Representatives, representatives
from dials_diffuse.algorithms.maps.radial import Shells, shells_of
from dials_diffuse.algorithms.maps.two_maps import check_same_lattice, in_box_of
from dials_diffuse.map_file import DiffuseMap

#: Shells of which the isotropic part is taken.
FINE_SHELLS = 100


@dataclass
class ShellCorrelations:
    """Correlation of the intensities of two maps in shells of resolution, the last row being all voxels.

    Attributes
    ----------
    d_max, d_min : ndarray, shape (n + 1,)
        Angstrom.
    cc : ndarray, shape (n + 1,)
        Pearson's coefficient of the intensities.
    cc_anisotropic : ndarray, shape (n + 1,)
        With each map's mean intensity at the voxel's |q| subtracted: without the fall-off with |q|, which agrees in any
        two maps. In a thin shell both are nearly the same.
    error : ndarray, shape (n + 1,)
        Standard deviation of ``cc_anisotropic``, (1 - cc^2) / sqrt(voxels - 1): Fisher (1921) Metron 1, 3, of normal
        variables.
    voxels : ndarray, shape (n + 1,), int
        Different ones, in both maps.
    """

    d_max: np.ndarray
    d_min: np.ndarray
    cc: np.ndarray
    cc_anisotropic: np.ndarray
    error: np.ndarray
    voxels: np.ndarray

    def __str__(self) -> str:
        header = ["d (A)", "Voxels", "CC", "CC anisotropic", "s.d."]
        rows = [
            [f"{self.d_max[i]:.2f} - {self.d_min[i]:.2f}", f"{self.voxels[i]}"]
            + [f"{values[i]:.4f}" for values in (self.cc, self.cc_anisotropic, self.error)]
            for i in range(len(self.cc))
        ]
        rows[-1][0] = "overall"
        return tabulate(rows, header)

    def write(self, filename: str | os.PathLike) -> None:
        """As a table of comma-separated values; the last line is all voxels together."""
        columns = [getattr(self, name) for name in self.__dataclass_fields__]
        header = ",".join(self.__dataclass_fields__)
        np.savetxt(
            filename, np.transpose(columns), fmt=["%.6g"] * 5 + ["%d"], delimiter=",", header=header, comments=""
        )


def correlation(first: DiffuseMap, second: DiffuseMap, name: str, shells: int) -> ShellCorrelations:
    """Correlation over the voxels that were measured in both maps, one of each set of equivalent ones.

    Voxels that were filled in either are left out.

    Parameters
    ----------
    first, second : DiffuseMap
    name : str
        Of the second, for messages.
    shells : int
        Of equal volume of reciprocal space.

    Raises
    ------
    Sorry
        If the maps have other voxels, or none in common.
    """
    check_same_lattice(first, second, name)
    other = in_box_of(first, second, ("intensity", "filled"))
    chosen = np.isfinite(first.intensity) & np.isfinite(other.intensity)
    chosen &= (first.fields["filled"] | other.fields["filled"]) == 0
    voxels = representatives(other, chosen)
    if len(voxels) == 0:
        raise Sorry(f"{name} has no voxel in common with the first map.")
    x, y = first.intensity[voxels.position].astype(float), voxels.values()
    edges = np.linspace(voxels.q.min() ** 3, voxels.q.max() ** 3, shells + 1) ** (1 / 3)
    number = Shells(edges).number(voxels.q)
    cc, anisotropic, count = [], [], []
    flat = [values - _isotropic(voxels, values) for values in (x, y)]
    for shell in [*range(shells), None]:
        inside = number == shell if shell is not None else slice(None)
        cc.append(pearson(x[inside], y[inside]))
        anisotropic.append(pearson(flat[0][inside], flat[1][inside]))
        count.append(len(x[inside]))
    d = 1 / np.maximum(edges, 1e-9)
    error = (1 - np.square(anisotropic)) / np.sqrt(np.maximum(np.array(count) - 1, 1))
    return ShellCorrelations(
        np.append(d[:-1], d[0]), np.append(d[1:], d[-1]), np.array(cc), np.array(anisotropic), error, np.array(count)
    )


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation coefficient of two arrays of shape (n,); NaN if one does not vary."""
    if len(x) < 3:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def _isotropic(voxels: Representatives, values: np.ndarray) -> np.ndarray:
    """Mean of the values at the voxels' |q|: in fine shells, interpolated linearly."""
    shells = shells_of(voxels.q, FINE_SHELLS)
    number = shells.number(voxels.q)
    total = shells.sums(number, None)
    return np.interp(voxels.q, shells.sums(number, voxels.q) / total, shells.sums(number, values) / total)
