"""How good the merged intensities are, by shells of resolution."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from cctbx import miller
from dials.util import tabulate

from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy


@dataclass
class Shell:
    """Statistics of one shell, or of all voxels.

    Attributes
    ----------
    d_max, d_min : float
        Limits in Angstrom; ``d_max`` of the innermost shell is infinite (None in JSON).
    voxels, possible : int
        Voxels of the asymmetric unit that were measured, and that there are in the grid.
    multiplicity : float
        Mean number of observations of a measured voxel.
    mean_intensity, mean_i_over_sigma : float
    cc_half : float
        Pearson's correlation of the intensities from two random halves of the observations, over the voxels that both
        halves hold. Every voxel counts the same: at low counts that is the correlation of what is in the map, poorly
        measured voxels included.
    cc_half_anisotropic : float
        The same after the mean intensity at the voxel's |q| is subtracted: without the fall-off with resolution, which
        agrees in any two sets of data.
    cc_half_probability : float
        Probability of a ``cc_half_anisotropic`` as high by chance, by Student's t test with n - 2 degrees of freedom
        (as iotbx/merging_statistics.py does for CC1/2).
    cc_laue : float
        As ``cc_half_anisotropic``, but the two sets are different, symmetry-equivalent voxels: what agrees here is not
        due to the same pixels or the same region of reciprocal space being seen twice.
    """

    d_max: float
    d_min: float
    voxels: int
    possible: int
    multiplicity: float
    mean_intensity: float
    mean_i_over_sigma: float
    cc_half: float
    cc_half_anisotropic: float
    cc_half_probability: float
    cc_laue: float

    @property
    def completeness(self) -> float:
        """Part of the possible voxels that were measured."""
        return self.voxels / self.possible if self.possible else float("nan")


@dataclass
class ShellStatistics:
    """Statistics of resolution shells, from the innermost, and of all voxels together."""

    shells: list[Shell]
    overall: Shell

    def to_dict(self) -> dict:
        """JSON-ready: what is no number is None."""
        return {
            "shells": [_jsonable(shell) for shell in self.shells],
            "overall": _jsonable(self.overall),
        }

    def __str__(self) -> str:
        header = ["d (A)", "Voxels", "Compl.", "Mult.", "<I>", "<I/sigma>", "CC1/2", "CC1/2 aniso", "P", "CC Laue"]
        rows = [_row(shell) for shell in self.shells]
        return tabulate([*rows, ["Overall", *_row(self.overall)[1:]]], header)


def shell_statistics(
    grid: GlobalGrid,
    q: np.ndarray,
    merged: tuple[np.ndarray, np.ndarray, np.ndarray],
    isotropic: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
    mates: tuple[np.ndarray, np.ndarray],
    n_shells: int,
) -> ShellStatistics:
    """Statistics of merged voxels.

    Parameters
    ----------
    grid : GlobalGrid
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.
    merged : tuple of 3 ndarray, shape (m,)
        Intensity, its variance, number of observations.
    isotropic : ndarray, shape (m,)
        Mean intensity at the voxels' |q|.
    halves, mates : tuple of 2 ndarray, shape (m,)
        Intensities from random halves, and from symmetry-equivalent voxels; NaN where there is none.
    n_shells : int
        Shells of equal volume up to the grid's d_min.
    """
    edges = (np.arange(n_shells + 1) / n_shells) ** (1 / 3) / grid.d_min
    number = np.clip(np.searchsorted(edges, q, side="left") - 1, 0, n_shells - 1)
    possible = possible_voxels(grid, edges)

    def of(chosen: np.ndarray, q_min: float, q_max: float, n_possible: int) -> Shell:
        intensity, variance, multiplicity = (array[chosen] for array in merged)
        pairs = [(a[chosen], b[chosen]) for a, b in (halves, mates)]
        mean = isotropic[chosen]
        anisotropic, n_pairs = correlation(pairs[0][0] - mean, pairs[0][1] - mean)
        return Shell(
            d_max=1 / q_min if q_min > 0 else float("inf"),
            d_min=1 / q_max,
            voxels=len(intensity),
            possible=int(n_possible),
            multiplicity=_mean(multiplicity),
            mean_intensity=_mean(intensity),
            mean_i_over_sigma=_mean(intensity / np.sqrt(variance)),
            cc_half=correlation(*pairs[0])[0],
            cc_half_anisotropic=anisotropic,
            cc_half_probability=chance_of(anisotropic, n_pairs),
            cc_laue=correlation(pairs[1][0] - mean, pairs[1][1] - mean)[0],
        )

    shells = [of(number == i, edges[i], edges[i + 1], possible[i]) for i in range(n_shells)]
    return ShellStatistics(shells, of(np.ones(len(q), dtype=bool), 0.0, edges[-1], possible.sum()))


def possible_voxels(grid: GlobalGrid, edges: np.ndarray) -> np.ndarray:
    """Voxels of the asymmetric unit in shells between the given |q|, shape (k + 1,); int64, shape (k,)."""
    point_group = grid.laue_group.build_derived_point_group()  # centring leaves out Bragg points, not voxels
    indices = miller.index_generator(grid.supercell, point_group.type(), False, grid.d_min * (1 - 1e-9)).to_array()
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    counts[0] = 1  # the origin, which the generator passes over
    for begin in range(0, len(indices), 1_000_000):
        q = grid.q(miller_index_to_numpy(indices[begin : begin + 1_000_000]))
        q = q[q <= 1 / grid.d_min]
        number = np.clip(np.searchsorted(edges, q, side="left") - 1, 0, len(counts) - 1)
        counts += np.bincount(number, minlength=len(counts))
    return counts


def correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Pearson's correlation over the entries where both are numbers, and their number; NaN for fewer than 3."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return float("nan"), len(a)
    return float(np.corrcoef(a, b)[0, 1]), len(a)


def chance_of(cc: float, n: int) -> float:
    """Probability that n uncorrelated pairs correlate as much or more: t = r sqrt((n - 2) / (1 - r^2))."""
    from scipy.stats import t

    if not np.isfinite(cc):
        return float("nan")
    return float(t.sf(cc * np.sqrt((n - 2) / max(1 - cc**2, 1e-300)), n - 2))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _row(shell: Shell) -> list:
    d_max = f"{shell.d_max:.2f}" if np.isfinite(shell.d_max) else "inf"
    correlations = [f"{cc:.4f}" for cc in (shell.cc_half, shell.cc_half_anisotropic)]
    return [
        f"{d_max} - {shell.d_min:.2f}",
        shell.voxels,
        f"{shell.completeness:.3f}",
        f"{shell.multiplicity:.1f}",
        f"{shell.mean_intensity:.4g}",
        f"{shell.mean_i_over_sigma:.2f}",
        *correlations,
        f"{shell.cc_half_probability:.1e}",
        f"{shell.cc_laue:.4f}",
    ]


def _jsonable(shell: Shell) -> dict:
    values = {**asdict(shell), "completeness": shell.completeness}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
