"""What a map is as a function of |q| alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.equivalents import Representatives, representatives
from dials_diffuse.map_file import DiffuseMap

#: A shell with fewer different voxels is joined to the next one: it would tell of these, not of its |q|.
LEAST_VOXELS = 10
#: At most so many voxels a shell are sorted to find its percentile.
MOST_SORTED = 100_000


@dataclass
class Shells:
    """Shells of |q|.

    Attributes
    ----------
    edges : ndarray, shape (n + 1,)
        In 1/A, ascending.
    """

    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.edges) - 1

    def number(self, q: np.ndarray) -> np.ndarray:
        """Of each |q|, from 0; what lies outside belongs to the first or the last."""
        return np.clip(np.searchsorted(self.edges, q, side="right") - 1, 0, len(self) - 1).astype(np.int16)

    def sums(self, number: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums of values over shells, shape (n,)."""
        return np.bincount(number, weights=values, minlength=len(self))


def shells_of(q: np.ndarray, count: int) -> Shells:
    """Shells of equal width, joined where they hold fewer than :data:`LEAST_VOXELS` voxels.

    Parameters
    ----------
    q : ndarray, shape (m,)
        |q| of the voxels, 1/A.
    count : int
        Shells before any are joined.

    Raises
    ------
    Sorry
        If there is no voxel.
    """
    if len(q) == 0:
        raise Sorry("The map holds no intensity: nothing can be said of its shells.")
    edges = np.linspace(q.min(), q.max(), count + 1)
    inside = np.cumsum(np.histogram(q, edges)[0])
    kept = [0]
    for i, total in enumerate(inside):
        if total - (inside[kept[-1] - 1] if kept[-1] else 0) >= LEAST_VOXELS:
            kept.append(i + 1)
    kept = kept[: max(len(kept) - 1, 1)] + [count]  # what is left over at the end joins the last one
    return Shells(edges[kept])


@dataclass
class RadialProfile:
    """Statistics of shells of |q|.

    Attributes
    ----------
    q : ndarray, shape (n,)
        Mean |q| of the voxels in the shell, 1/A.
    mean, error : ndarray, shape (n,)
        Mean intensity, each voxel counting the same, and its standard deviation. By the voxels' errors, equivalent
        voxels being one measurement.
    deviation : ndarray, shape (n,)
        Standard deviation of the voxels' intensities, their errors included.
    noise : ndarray, shape (n,)
        Root mean square of their errors.
    voxels : ndarray, shape (n,), int
        Of the map.
    """

    q: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    deviation: np.ndarray
    noise: np.ndarray
    voxels: np.ndarray

    def at(self, q: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """The mean, or other values of the shells, interpolated; of the shape of ``q``, float32.

        By monotone cubic pieces (Fritsch & Butland (1984) SIAM J. Sci. Stat. Comput. 5, 300), which do not overshoot;
        constant outside.
        """
        from scipy.interpolate import PchipInterpolator

        values = self.mean if values is None else values
        if len(self.q) == 1:
            return np.full(np.shape(q), values[0], dtype=np.float32)
        smooth = PchipInterpolator(self.q, values)
        return smooth(np.clip(q, self.q[0], self.q[-1])).astype(np.float32)

    def write(self, filename: str | os.PathLike) -> None:
        """As a table of comma-separated values, a shell a line."""
        columns = [self.q, 1 / np.maximum(self.q, 1e-9), self.mean, self.error, self.deviation, self.noise, self.voxels]
        header = "q,d,mean,mean_error,standard_deviation,rms_error,voxels"
        np.savetxt(
            filename, np.transpose(columns), fmt=["%.6g"] * 6 + ["%d"], delimiter=",", header=header, comments=""
        )


def radial_profile(diffuse_map: DiffuseMap, shells: int) -> RadialProfile:
    """Statistics of a map in shells of equal width in |q|.

    All voxels with an intensity count, and count the same: weights by errors would favour the dark parts of a shell,
    whose errors are smaller.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    shells : int
    """
    voxels = representatives(diffuse_map)
    return profile_of(voxels, shells_of(voxels.q, shells))


def profile_of(voxels: Representatives, shells: Shells) -> RadialProfile:
    """The same of voxels and shells that are known."""
    number, share = shells.number(voxels.q), voxels.multiplicity.astype(float)
    intensity, variance = voxels.values(), voxels.values("intensity_errors") ** 2
    total = shells.sums(number, share)
    mean = shells.sums(number, share * intensity) / total
    return RadialProfile(
        q=shells.sums(number, share * voxels.q) / total,
        mean=mean,
        error=np.sqrt(shells.sums(number, share**2 * variance)) / total,
        deviation=np.sqrt(shells.sums(number, share * (intensity - mean[number]) ** 2) / total),
        noise=np.sqrt(shells.sums(number, share * variance) / total),
        voxels=total.astype(np.int64),
    )


def low_percentiles(voxels: Representatives, shells: Shells, profile: RadialProfile, percentile: float) -> np.ndarray:
    """The percentile of the true intensities in each shell, shape (n,).

    Errors of mean variance v widen the distribution of the intensities from the variance t to t + v, so that their
    percentile P lies too far from the mean m. m + sqrt(t / (t + v)) (P - m) is that of the true ones, exactly if both
    distributions are normal.
    """
    number, intensity = shells.number(voxels.q), voxels.values()
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(shells) + 1))
    found = np.empty(len(shells))
    for i, (begin, end) in enumerate(zip(ends[:-1], ends[1:])):
        step = (end - begin) // MOST_SORTED + 1
        found[i] = np.percentile(intensity[order[begin:end:step]], percentile)
    variance, noise = profile.deviation**2, np.nan_to_num(profile.noise) ** 2
    shrink = np.sqrt(
        np.divide(np.maximum(variance - noise, 0), variance, out=np.zeros(len(shells)), where=variance > 0)
    )
    return profile.mean + shrink * (found - profile.mean)
