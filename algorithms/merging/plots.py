"""What the report of merging shows."""

from __future__ import annotations

import math

import numpy as np

from dials_diffuse.plot import Plot, axes, line
from dials_diffuse.report import Section, Table

#: Sets of voxels, by their key in the statistics.
PARTS = {"all": "all voxels", "halo": "next to Bragg points", "between": "between Bragg points"}
#: Kinds of half sets, by the ends of their keys.
KINDS = {"observation": "observations", "sweep": "sweeps", "laue": "Laue mates", "friedel": "Friedel mates"}
#: Columns of the table of shells: key, header.
COLUMNS = {
    "voxels": "Voxels",
    "completeness": "Completeness",
    "multiplicity": "Multiplicity",
    "mean_intensity": "<I>",
    "mean_i_over_sigma": "<I/sigma>",
    "cc_half": "CC1/2",
    "cc_half_anisotropic": "CC1/2 aniso",
    "cc_true_anisotropic": "CC true aniso",
    "cc_laue": "CC Laue",
    "cc_friedel": "CC Friedel",
    "r_meas": "R_meas",
    "r_meas_expected": "R_meas expected",
    "chi_squared": "Chi-squared",
}
#: Least complete directions that are told.
LOWEST = 10


def merging_sections(statistics: dict) -> list[Section]:
    """Sections of the report of merging.

    Parameters
    ----------
    statistics : dict
        What ``dials.diffuse_merge`` writes as JSON (docs/data_model.md); what is missing in it is left out.
    """
    parts = {
        name: statistics if name == "all" else statistics[name]
        for name in PARTS
        if name == "all" or (statistics.get(name) or {}).get("overall", {}).get("voxels")
    }
    sections = [
        _tables(parts),
        _correlations(parts, statistics.get("halves")),
        _measurements(parts),
        _agreements(parts),
        _directions(statistics.get("directions") or {}),
        _symmetry(statistics.get("symmetry") or {}),
    ]
    return [section for section in sections if section.tables or section.plots]


def _tables(parts: dict[str, dict]) -> Section:
    """Everything overall, and by shells."""
    shells = parts["all"].get("shells") or []
    overall = [(PARTS[name], part["overall"]) for name, part in parts.items() if part.get("overall")]
    columns = {
        key: name for key, name in COLUMNS.items() if any(key in row for row in shells + [o for _, o in overall])
    }
    tables = []
    if overall:
        rows = [[name, *(values.get(key) for key in columns)] for name, values in overall]
        tables.append(Table(["Overall", *columns.values()], rows))
    if shells:
        rows = [[_limits(shell), *(shell.get(key) for key in columns)] for shell in shells]
        tables.append(Table(["d (A)", *columns.values()], rows, "Shells"))
    text = "aniso: after the mean intensity at the voxel's |q| is subtracted."
    return Section("Statistics", text, tables, is_open=True)


def _correlations(parts: dict[str, dict], halves: str | None) -> Section:
    """CC1/2, what it says of the correlation with the truth, and by kinds of half sets."""
    text = (
        f"CC1/2: correlation between half sets{f' by {halves}' if halves else ''}. CC true: of the merged map with the "
        "truth, sqrt(2 CC / (1 + CC)). aniso: isotropic part subtracted. Bars are 95 % intervals."
    )
    names = {
        "cc_half": "CC1/2",
        "cc_half_anisotropic": "CC1/2 aniso",
        "cc_true": "CC true",
        "cc_true_anisotropic": "CC true aniso",
    }
    plots = [
        _by_shell("CC1/2", "correlation", [_curve(parts["all"], key, name) for key, name in names.items()]),
        _by_shell(
            "CC1/2 with the isotropic part subtracted, next to and between Bragg points",
            "correlation",
            [_curve(part, "cc_half_anisotropic", PARTS[name]) for name, part in parts.items()],
        ),
        _by_shell(
            "Correlation of mates, isotropic part subtracted",
            "correlation",
            [_curve(parts["all"], f"cc_{kind}", f"by {name}") for kind, name in KINDS.items()],
            "On one scale: where sweeps or mates correlate less than observations do, they differ by more than noise.",
        ),
    ]
    return Section("Correlations", text, plots=_drawn(plots), is_open=True)


def _measurements(parts: dict[str, dict]) -> Section:
    """Multiplicity, completeness, intensity and its precision."""
    quantities = {
        "multiplicity": "Multiplicity",
        "completeness": "Completeness",
        "mean_intensity": "Mean intensity, photons / (s sr)",
        "mean_i_over_sigma": "Mean I / sigma",
    }
    plots = [
        _by_shell(title, title.lower(), [_curve(part, key, PARTS[name]) for name, part in parts.items()])
        for key, title in quantities.items()
    ]
    return Section("Multiplicity, completeness, intensity", plots=_drawn(plots))


def _agreements(parts: dict[str, dict]) -> Section:
    """Chi-squared and R_meas."""
    text = "Of observations, and of the same merged by sweeps or mates, against the merged voxels."
    kinds = {"" if kind == "observation" else f"_{kind}": name for kind, name in KINDS.items()}
    plots = [
        _by_shell(
            "Reduced chi-squared",
            "reduced chi-squared",
            [_curve(parts["all"], f"chi_squared{end}", name) for end, name in kinds.items()],
            "1 where the standard deviations are right and the voxels that are merged are the same.",
        ),
        _by_shell(
            "Reduced chi-squared next to and between Bragg points",
            "reduced chi-squared",
            [_curve(part, "chi_squared", PARTS[name]) for name, part in parts.items()],
        ),
        _by_shell(
            "R_meas",
            "R_meas",
            [
                _curve(parts["all"], f"r_meas{of}{end}", f"{name}{of.replace('_', ', ')}")
                for end, name in kinds.items()
                for of in ("", "_expected")
            ],
            "Expected: what the variances let expect; at a photon an observation that is above 0.5.",
        ),
    ]
    return Section("Chi-squared and R_meas", text, plots=_drawn(plots))


def _directions(directions: dict) -> Section:
    """Completeness in directions of reciprocal space."""
    section = Section("Completeness in directions")
    header = ["", "h", "k", "l", "Voxels", "Possible", "Completeness"]

    def rows(found: list[dict]) -> list[list]:
        return [[d["name"], *d["hkl"], d["voxels"], d["possible"], d["completeness"]] for d in found]

    if named := directions.get("axes"):
        section.tables.append(Table(header, rows(named), "Cones around axes"))
    if cells := directions.get("cells"):
        lowest = sorted(cells, key=lambda cell: cell["completeness"])[:LOWEST]
        section.tables.append(Table(header, rows(lowest), "Least complete directions of the asymmetric unit"))
        section.plots.append(_direction_map(cells))
    return section


def _direction_map(cells: list[dict]) -> Plot:
    h, k, l = np.array([cell["hkl"] for cell in cells]).T
    completeness = [cell["completeness"] for cell in cells]
    marker = {"color": completeness, "colorscale": "Viridis", "cmin": 0, "cmax": 1, "size": 10, "colorbar": {}}
    trace = line(
        np.degrees(np.arctan2(k, h)),
        np.degrees(np.arctan2(l, np.hypot(h, k))),
        mode="markers",
        marker=marker,
        text=[f"{c:.3f} around {', '.join(f'{x:.2f}' for x in cell['hkl'])}" for c, cell in zip(completeness, cells)],
    )
    note = "Of the asymmetric unit; directions as if h, k, l were at right angles and of one length."
    return Plot("Completeness by direction", [trace], axes("from h to k (degrees)", "towards l (degrees)"), note)


def _symmetry(test: dict) -> Section:
    """The symmetry that the data themselves support."""
    section = Section("Symmetry of the diffuse scattering", test.get("warning") or "")
    titles = {"elements": "Symmetry elements of the lattice", "subgroups": "Laue groups, the likeliest first"}
    for key, caption in titles.items():
        if found := test.get(key):
            header = [name for name, value in found[0].items() if not isinstance(value, list)]
            names = [name.replace("_", " ").capitalize().replace("Cc", "CC") for name in header]
            section.tables.append(Table(names, [[row.get(name) for name in header] for row in found], caption))
    return section


def _curve(part: dict, key: str, name: str) -> dict | None:
    """A statistic over the middles of the shells in |q|, with its 95 % interval where there is one."""
    shells = [shell for shell in part.get("shells") or [] if shell.get(key) is not None]
    if not shells:
        return None
    values = np.array([shell[key] for shell in shells], dtype=float)
    trace = line([_middle(shell) for shell in shells], values, name, text=[f"{_limits(shell)} A" for shell in shells])
    if all(shell.get(f"{key}_{end}") is not None for shell in shells for end in ("low", "high")):
        low, high = (np.array([shell[f"{key}_{end}"] for shell in shells], dtype=float) for end in ("low", "high"))
        trace["error_y"] = {"type": "data", "symmetric": False, "array": high - values, "arrayminus": values - low}
        trace["error_y"].update(visible=True, thickness=1, width=0)
    return trace


def _by_shell(title: str, quantity: str, curves: list[dict | None], help: str = "") -> Plot:
    return Plot(title, [curve for curve in curves if curve], axes("|q| (1/A)", quantity), help)


def _drawn(plots: list[Plot]) -> list[Plot]:
    """Those that have something to show."""
    return [plot for plot in plots if plot.data]


def _middle(shell: dict) -> float:
    """Middle of a shell in |q|, 1/Angstrom."""
    return ((1 / shell["d_max"] if _is_finite(shell["d_max"]) else 0) + 1 / shell["d_min"]) / 2


def _limits(shell: dict) -> str:
    d_max = f"{shell['d_max']:.2f}" if _is_finite(shell["d_max"]) else "inf"
    return f"{d_max} - {shell['d_min']:.2f}"


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
