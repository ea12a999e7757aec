"""Plots of the terms of the scaling model over their variables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_diffuse.log_levels import DETAILED
from dials_diffuse.plot import Choice, Plot, array, axes, choose, heat_map, limits, line, square_axes

#: Names and units of the terms' variables.
VARIABLES = {
    "phi": "phi (degrees)",
    "q": "|q| (1/A)",
    "x": "ray along the rotation axis (degrees)",
    "y": "ray about the rotation axis (degrees)",
    "fast": "fast (pixels)",
    "slow": "slow (pixels)",
}
#: The terms as the literature calls them; those of plug-ins go by their own names.
TITLES = {
    "scale": "Scale b(phi): beam, illuminated volume, decay",
    "absorption": "Absorption a(x, y, phi) in the crystal",
    "offset": "Isotropic background c(|q|, phi), photons / (s sr)",
}


def term_plots(name: str, values: dict[int, dict]) -> list[Plot]:
    """Plots of one term of all sweeps.

    Parameters
    ----------
    name : str
    values : dict of int to dict
        By number of the sweep: ``value``, maybe ``error``, and the coordinates that ``value`` runs over, the last of
        phi, y, x or phi, q the fastest.

    Returns
    -------
    list of Plot
        The term over its variables, of the first sweeps if there are many; with more than one sweep, or over variables
        that no built-in term has, its mean and range in each.
    """
    title = TITLES.get(name, name.capitalize())
    varying = {number: term for number, term in values.items() if np.size(term["value"]) > 1}
    shown = {number: term for number, term in varying.items() if _kind(term) in _KINDS}
    plots = []
    if shown:
        plots.append(_KINDS[_kind(next(iter(shown.values())))](title, shown))
    if len(values) > 1 or not shown:
        plots.append(_by_sweep(title, values))
    return plots


def _kind(term: dict) -> tuple[str, ...]:
    """The variables of a term."""
    return tuple(sorted(VARIABLES.keys() & term.keys()))


def _by_sweep(title: str, values: dict[int, dict]) -> Plot:
    """Mean of a term in each sweep, with its range, or its error if it is but one number."""
    numbers = list(values)
    mean, low, high = np.array(
        [(np.nanmean(array(term["value"])), *limits(term["value"])) for term in values.values()]
    ).T
    errors = [np.ravel(term.get("error", np.nan))[0] for term in values.values()]
    if all(np.size(term["value"]) == 1 for term in values.values()):
        trace, help = line(numbers, mean, error=errors, mode="markers"), ""
    else:
        trace = line(numbers, mean, error=high - mean, mode="markers")
        trace["error_y"].update(symmetric=False, arrayminus=mean - low)
        help = "The mean of each sweep; bars reach from its least to its greatest value."
    layout = axes("sweep", "value")
    layout["xaxis"].update({"dtick": 1} if len(numbers) <= DETAILED else {})
    return Plot(f"{title}, by sweep", [trace], layout, help)


def _curves(variable: str) -> Callable[[str, dict[int, dict]], Plot]:
    """What plots curves over one variable, so many sweeps at a time as can be told apart."""

    def plot(title: str, values: dict[int, dict]) -> Plot:
        curves = [
            line(term[variable], term["value"], f"sweep {number}", term.get("error"), mode="lines")
            for number, term in values.items()
        ]
        groups = [curves[i : i + DETAILED] for i in range(0, len(curves), DETAILED)][:DETAILED]
        labels = [f"{group[0]['name'].split()[1]} to {group[-1]['name'].split()[1]}" for group in groups]
        return Plot(title, choose("sweeps", labels, groups), axes(VARIABLES[variable], "value"))

    return plot


def _surfaces(title: str, values: dict[int, dict]) -> Plot:
    """The first sweeps' values over |q| and phi."""
    shown = dict(list(values.items())[:DETAILED])
    views = [[heat_map(term["q"], term["phi"], term["value"])] for term in shown.values()]
    return Plot(title, choose("sweep", _labels(shown), views), axes(VARIABLES["q"], VARIABLES["phi"]), _note(values))


def _volumes(title: str, values: dict[int, dict]) -> Plot:
    """The first sweeps' values over x and y, at one phi after the other."""
    shown = dict(list(values.items())[:DETAILED])
    views = [_slices(term) for term in shown.values()]
    layout = square_axes(VARIABLES["x"], VARIABLES["y"])
    return Plot(title, choose("sweep", _labels(shown), views), layout, _note(values))


def _slices(term: dict) -> list[dict] | Choice:
    low, high = limits(term["value"])
    views = [[heat_map(term["x"], term["y"], value, zmin=low, zmax=high)] for value in term["value"]]
    return choose("phi", [f"{phi:.4g}" for phi in term["phi"]], views, slider=True)


def _labels(values: dict[int, dict]) -> list[str]:
    return [str(number) for number in values]


def _note(values: dict[int, dict]) -> str:
    return f"The first {DETAILED} of {len(values)} sweeps." if len(values) > DETAILED else ""


_KINDS = {
    ("phi",): _curves("phi"),
    ("q",): _curves("q"),
    ("phi", "q"): _surfaces,
    ("phi", "x", "y"): _volumes,
}
