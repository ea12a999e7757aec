"""How good the merged intensities are: by shells of resolution, next to Bragg points and between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dials.util import tabulate

from dials_diffuse.algorithms.merging.completeness import Completeness, completeness, possible_voxels, shell_numbers
from dials_diffuse.algorithms.merging.correlations import Correlation, correlation
from dials_diffuse.algorithms.merging.halo import in_halo
from dials_diffuse.algorithms.merging.scatter import Scatter
from dials_diffuse.grid import GlobalGrid

__all__ = [
    "Agreement",
    "MergingStatistics",
    "Regions",
    "Shell",
    "ShellStatistics",
    "merging_statistics",
    "possible_voxels",
]

#: What statistics of groups (see groups.py) are called.
NAMES = {"observation": "observation", "sweep": "sweep", "operation": "laue", "friedel": "friedel"}


@dataclass
class Agreement:
    """How groups of observations agree with the merged voxels (formulas: scatter.py).

    Attributes
    ----------
    chi_squared : float
        Reduced; 1 if the variances are right.
    degrees_of_freedom : float
    r_meas, r_meas_expected : float
        R_meas, and what the variances let expect of it: at a photon an observation that is above 0.5.
    """

    chi_squared: float
    degrees_of_freedom: float
    r_meas: float
    r_meas_expected: float


@dataclass
class Shell:
    """Statistics of one shell, or of all.

    Attributes
    ----------
    d_max, d_min : float
        Limits in Angstrom; ``d_max`` of the innermost shell is infinite (None in JSON).
    voxels, possible : int
        Voxels of the asymmetric unit that were measured, and that there are in the grid.
    multiplicity : float
        Mean number of observations of a measured voxel.
    mean_intensity, mean_i_over_sigma : float
    correlations : dict of str to Correlation
        ``cc_half``: CC1/2 of half sets of the kind that was asked for. ``cc_half_anisotropic``: the same after the mean
        intensity at the voxel's |q| is subtracted: without the fall-off with resolution, which agrees in any two sets
        of data. ``cc_observation``, ``cc_sweep``, ``cc_laue``, ``cc_friedel``: as ``cc_half_anisotropic``, for half
        sets of each kind (see groups.py). They are on one scale: lower than ``cc_observation`` means that sweeps or
        mates differ.
    agreements : dict of str to Agreement
        The same kinds: ``observation``, ``sweep``, ``laue``, ``friedel``.
    """

    d_max: float
    d_min: float
    voxels: int
    possible: int
    multiplicity: float
    mean_intensity: float
    mean_i_over_sigma: float
    correlations: dict[str, Correlation]
    agreements: dict[str, Agreement]

    @property
    def completeness(self) -> float:
        """Part of the possible voxels that were measured."""
        return self.voxels / self.possible if self.possible else float("nan")

    @property
    def cc_half(self) -> float:
        return self.correlations["cc_half"].value

    @property
    def cc_half_anisotropic(self) -> float:
        return self.correlations["cc_half_anisotropic"].value

    @property
    def chi_squared(self) -> float:
        """Reduced chi-squared of the observations against the merged voxels."""
        return self.agreements["observation"].chi_squared

    def cc(self, kind: str) -> float:
        """Correlation (isotropic part subtracted) by ``sweep``, ``laue``, ``friedel``; NaN if there is none."""
        return self.correlations[f"cc_{kind}"].value if f"cc_{kind}" in self.correlations else float("nan")

    def to_dict(self) -> dict:
        """JSON-ready and flat; what is no number is None."""
        names = ("d_max", "d_min", "voxels", "possible", "multiplicity", "mean_intensity", "mean_i_over_sigma")
        values = {**{name: getattr(self, name) for name in names}, "completeness": self.completeness}
        for name, found in self.correlations.items():
            values |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            values |= {f"{name}_probability": found.probability, f"{name}_voxels": found.voxels}
        for name, of in (("cc_true", "cc_half"), ("cc_true_anisotropic", "cc_half_anisotropic")):
            values |= dict(zip((name, f"{name}_low", f"{name}_high"), self.correlations[of].with_truth()))
        for name, agreement in self.agreements.items():
            ending = "" if name == "observation" else f"_{name}"
            values |= {f"{key}{ending}": value for key, value in vars(agreement).items()}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


@dataclass
class ShellStatistics:
    """Statistics of resolution shells, from the innermost, and of all voxels together."""

    shells: list[Shell]
    overall: Shell

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {"shells": [shell.to_dict() for shell in self.shells], "overall": self.overall.to_dict()}


@dataclass
class MergingStatistics(ShellStatistics):
    """Statistics of all voxels.

    Attributes
    ----------
    halves : str
        The kind of half sets of ``cc_half``.
    halo, between : ShellStatistics
        Of voxels next to Bragg points alone, and of the others.
    completeness : Completeness
        In directions.
    """

    halves: str
    halo: ShellStatistics
    between: ShellStatistics
    completeness: Completeness

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {
            **super().to_dict(),
            "halves": self.halves,
            "halo": self.halo.to_dict(),
            "between": self.between.to_dict(),
            "directions": self.completeness.to_dict(),
        }

    def __str__(self) -> str:
        kinds = [(kind, f"CC {kind}") for kind in ("laue", "friedel") if kind in self.overall.agreements]
        header = ["d (A)", "Voxels", "Compl.", "Mult.", "<I/sigma>", "CC1/2", "aniso", "95 %", "CC true"]
        header += [name for _, name in kinds] + ["R_meas", "chi2"]
        rows = [_row(shell, kinds, _range(shell)) for shell in self.shells]
        parts = (("Overall", self), ("Bragg halos", self.halo), ("Between", self.between))
        rows += [_row(part.overall, kinds, name) for name, part in parts if part.overall.voxels]
        observations = self.overall.agreements["observation"]
        n_voxels = self.overall.correlations["cc_half"].voxels
        return (
            f"{tabulate(rows, header)}\n"
            f"CC1/2: between half sets by {self.halves}, over the {n_voxels} voxels that have both. "
            "From aniso on, the mean intensity at |q| is subtracted.\n"
            "95 %: confidence interval. CC true: sqrt(2 CC / (1 + CC)), the correlation of map and truth.\n"
            f"Overall R_meas is expected to be {observations.r_meas_expected:.3f}.\n"
            f"{self.completeness}"
        )


#: What is summed over the voxels of a region: attributes of Scatter.
SUMMED = ("chi_squared", "degrees_of_freedom", "deviation", "expected_deviation", "photons")


@dataclass(frozen=True)
class Regions:
    """Shells of equal volume up to the grid's d_min, each in two parts: between Bragg points, and next to them.

    Attributes
    ----------
    grid : GlobalGrid
    n_shells : int
    halo_radius : float
        See :func:`dials_diffuse.algorithms.merging.halo.in_halo`.
    """

    grid: GlobalGrid
    n_shells: int
    halo_radius: float = 1.0

    @property
    def edges(self) -> np.ndarray:
        """Limits of the shells in |q|, shape (n_shells + 1,), 1/Angstrom."""
        return (np.arange(self.n_shells + 1) / self.n_shells) ** (1 / 3) / self.grid.d_min

    def of(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the shells of voxels, and whether they are next to a Bragg point, shape (m,) each."""
        return shell_numbers(self.grid.q(index), self.edges), in_halo(self.grid, index, self.halo_radius)

    @property
    def sums_shape(self) -> tuple[int, int, int]:
        return len(SUMMED), self.n_shells, 2

    def sums(self, index: np.ndarray, scatter: Scatter) -> np.ndarray:
        """Sums of :data:`SUMMED` over voxels of the given index, shape (m, 3); shape (5, n_shells, 2)."""
        shell, halo = self.of(index)
        sums = [np.bincount(2 * shell + halo, getattr(scatter, name), 2 * self.n_shells) for name in SUMMED]
        return np.reshape(sums, self.sums_shape)


def merging_statistics(
    regions: Regions,
    index: np.ndarray,
    merged: tuple[np.ndarray, np.ndarray, np.ndarray],
    isotropic: np.ndarray,
    variances: dict[str, np.ndarray],
    agreements: dict[str, np.ndarray],
    halves: str,
) -> MergingStatistics:
    """Statistics of merged voxels.

    Parameters
    ----------
    regions : Regions
    index : ndarray, shape (m, 3), int
        The voxels, in the asymmetric unit.
    merged : tuple of 3 ndarray, shape (m,)
        Intensity, its variance, number of observations.
    isotropic : ndarray, shape (m,)
        Mean intensity at the voxels' |q|.
    variances : dict of str to ndarray, shape (m,)
        Variances of the intensities by scatter (:attr:`Scatter.variance`), by kind of groups: ``observation`` and
        others.
    agreements : dict of str to ndarray, shape (5, n_shells, 2)
        By kind of groups, what :meth:`Regions.sums` gives of all voxels.
    halves : str
        The kind that ``cc_half`` is of.
    """
    grid, edges, n_shells = regions.grid, regions.edges, regions.n_shells
    number, halo = regions.of(index)
    possible = completeness(grid, index, edges, regions.halo_radius)

    def of(chosen: np.ndarray, shells: slice, parts: slice, n_possible: int) -> Shell:
        intensity, variance, multiplicity = (array[chosen] for array in merged)
        deviation = intensity - isotropic[chosen]
        by_scatter = {kind: found[chosen].astype(float) for kind, found in variances.items()}
        correlations = {
            "cc_half": correlation(intensity, by_scatter[halves]),
            "cc_half_anisotropic": correlation(deviation, by_scatter[halves]),
            **{f"cc_{NAMES[kind]}": correlation(deviation, found) for kind, found in by_scatter.items()},
        }
        q_min, q_max = edges[shells.start], edges[shells.stop]
        return Shell(
            d_max=1 / q_min if q_min > 0 else float("inf"),
            d_min=1 / q_max,
            voxels=len(intensity),
            possible=int(n_possible),
            multiplicity=_mean(multiplicity),
            mean_intensity=_mean(intensity),
            mean_i_over_sigma=_mean(intensity / np.sqrt(variance)),
            correlations=correlations,
            agreements={
                NAMES[kind]: _agreement(*sums[:, shells, parts].sum(axis=(1, 2))) for kind, sums in agreements.items()
            },
        )

    def by_shell(chosen: np.ndarray, parts: slice, n_possible: np.ndarray) -> tuple[list[Shell], Shell]:
        shells = [of(chosen & (number == i), slice(i, i + 1), parts, n_possible[i]) for i in range(n_shells)]
        return shells, of(chosen, slice(0, n_shells), parts, n_possible.sum())

    return MergingStatistics(
        *by_shell(np.ones(len(index), dtype=bool), slice(0, 2), possible.halo + possible.between),
        halves=halves,
        halo=ShellStatistics(*by_shell(halo, slice(1, 2), possible.halo)),
        between=ShellStatistics(*by_shell(~halo, slice(0, 1), possible.between)),
        completeness=possible,
    )


def _agreement(
    chi_squared: float, freedom: float, deviation: float, expected_deviation: float, photons: float
) -> Agreement:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = chi_squared / freedom, freedom, deviation / photons, expected_deviation / photons
    return Agreement(*(float(x) for x in found))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _range(shell: Shell) -> str:
    return f"{shell.d_max:.2f} - {shell.d_min:.2f}" if np.isfinite(shell.d_max) else f"inf - {shell.d_min:.2f}"


def _row(shell: Shell, kinds: Sequence[tuple[str, str]], name: str) -> list:
    anisotropic = shell.correlations["cc_half_anisotropic"]
    return [
        name,
        shell.voxels,
        f"{shell.completeness:.3f}",
        f"{shell.multiplicity:.1f}",
        f"{shell.mean_i_over_sigma:.2f}",
        f"{shell.cc_half:.3f}",
        f"{anisotropic.value:.3f}",
        f"{anisotropic.low:.2f} to {anisotropic.high:.2f}",
        f"{anisotropic.with_truth()[0]:.3f}",
        *(f"{shell.cc(kind):.3f}" for kind, _ in kinds),
        f"{shell.agreements['observation'].r_meas:.3f}",
        f"{shell.chi_squared:.3f}",
    ]
