"""Plots over the detector: the response, residuals, outliers."""

from __future__ import annotations

from typing import Any

import numpy as np

from dials_diffuse.log_levels import DETAILED
from dials_diffuse.plot import Plot, array, axes, choose, heat_map, limits, line, square_axes

PIXELS = ("fast (pixels)", "slow (pixels)")


def response_plots(detector: dict) -> list[Plot]:
    """Plots of the detector's response d: over ``fast`` and ``slow``, or by tile where it has ``tiles``."""
    title = "Detector response d"
    if "tiles" in detector:
        return _tile_plots(title, detector["tiles"])
    trace = heat_map(detector["fast"], detector["slow"], detector["value"])
    return [Plot(title, [trace], square_axes(*PIXELS, reverse=True))]


def panel_plots(
    title: str, panels: list[dict], key: str, centre: float | None = None, total: bool = False
) -> list[Plot]:
    """Maps of something over the panels, and with several panels its mean in each.

    Parameters
    ----------
    title : str
    panels : list of dict
        ``panel``; ``fast`` and ``slow``, centres or edges of bins in pixels; ``key``, shape (slow, fast);
        ``observations`` of the same shape, if the means are to be weighted.
    key : str
    centre : float, optional
        The value in the middle of the colours, which reach to where all but 1 % of the values are (tiles with few
        observations deviate most); without it, they run from the least to the greatest.
    total : bool
        Whether panels are compared by sums, not by means.
    """
    if not panels:
        return []
    ours = np.array([_of_panel(panel, key, total) for panel in panels])
    strangest = np.argsort(-np.abs(ours - np.nanmedian(ours)), kind="stable")[:DETAILED]
    shown = [panels[i] for i in np.sort(strangest)]
    values = np.concatenate([np.ravel(array(panel[key])) for panel in shown])
    low, high = limits(values)
    colours: dict[str, Any] = {"zmin": low, "zmax": high}
    if centre is not None and np.isfinite(values).any():
        most = np.nanquantile(np.abs(values - centre), 0.99)
        colours = {"zmin": centre - most, "zmax": centre + most, "colorscale": "RdBu"}
    views = [[heat_map(panel["fast"], panel["slow"], panel[key], **colours)] for panel in shown]
    note = f"The {DETAILED} of {len(panels)} panels that differ most." if len(panels) > DETAILED else ""
    labels = [str(panel["panel"]) for panel in shown]
    plots = [Plot(title, choose("panel", labels, views), square_axes(*PIXELS, reverse=True), note)]
    if len(panels) > 1:
        numbers = [panel["panel"] for panel in panels]
        layout = axes("panel", "total" if total else "mean")
        plots.append(Plot(f"{title}, by panel", [line(numbers, ours, mode="markers")], layout))
    return plots


def _of_panel(panel: dict, key: str, total: bool) -> float:
    values = array(panel[key])
    if total:
        return float(np.nansum(values))
    weight = np.where(np.isfinite(values), array(panel.get("observations", np.ones_like(values))), 0)
    return float(np.nansum(values * weight) / weight.sum()) if weight.sum() else float("nan")


def _tile_plots(title: str, tiles: list[dict]) -> list[Plot]:
    """The response of every tile by its number, and where it is."""
    values = [tile["value"] for tile in tiles]
    places = [
        f"panel {t['panel']}, fast {t['fast'][0]}-{t['fast'][1]}, slow {t['slow'][0]}-{t['slow'][1]}" for t in tiles
    ]
    errors = [tile.get("error", np.nan) for tile in tiles]
    curve = line(list(range(len(tiles))), values, error=errors, mode="markers", text=places)
    plots = [Plot(f"{title}, by tile", [curve], axes("tile", "value"))]
    panels = [_panel_of_tiles([t for t in tiles if t["panel"] == n]) for n in dict.fromkeys(t["panel"] for t in tiles)]
    if len(panels) < len(tiles):
        plots += panel_plots(title, panels, "value", centre=1.0)[:1]
    return plots


def _panel_of_tiles(tiles: list[dict]) -> dict:
    """Tiles of one panel as cells between all their edges; NaN in gaps."""
    fast, slow = (np.unique([edge for tile in tiles for edge in tile[name]]) for name in ("fast", "slow"))
    cells = np.full((len(slow) - 1, len(fast) - 1), np.nan)
    for tile in tiles:
        columns, rows = (slice(*np.searchsorted(e, tile[n])) for e, n in ((fast, "fast"), (slow, "slow")))
        cells[rows, columns] = np.nan if tile["value"] is None else tile["value"]
    return {"panel": tiles[0]["panel"], "fast": fast, "slow": slow, "value": cells}
