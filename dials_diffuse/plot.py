"""Plots as plain dictionaries, as plotly.js reads them: what the HTML reports show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Significant digits of numbers in a page: more cannot be seen, and a report stays small.
DIGITS = 5


@dataclass
class Choice:
    """Traces of which the reader chooses some: by a list, or by a slider.

    Attributes
    ----------
    name : str
        What is chosen, e.g. ``sweep``.
    labels : list of str
        The choices.
    views : list of (list of dict, or Choice)
        For every label its traces, or a further choice.
    slider : bool
        Whether the choices are steps along one axis.
    """

    name: str
    labels: list[str]
    views: list[list[dict] | Choice]
    slider: bool = False

    def to_dict(self) -> dict:
        views = [view.to_dict() if isinstance(view, Choice) else view for view in self.views]
        return {"name": self.name, "labels": self.labels, "views": views, "slider": self.slider}


@dataclass
class Plot:
    """One plot of a report.

    Attributes
    ----------
    title : str
    data : list of dict, or Choice
        Traces of plotly.js.
    layout : dict
        Layout of plotly.js, without the title.
    help : str
        What is seen, and what it should look like.
    """

    title: str
    data: list[dict] | Choice
    layout: dict = field(default_factory=dict)
    help: str = ""

    def to_dict(self) -> dict:
        """JSON-ready, numbers rounded, what is no number None."""
        data = self.data.to_dict() if isinstance(self.data, Choice) else self.data
        return rounded({"data": data, "layout": self.layout})


def choose(
    name: str, labels: Sequence[str], views: Sequence[list[dict] | Choice], slider: bool = False
) -> list[dict] | Choice:
    """A :class:`Choice`, or the only view there is."""
    return views[0] if len(views) == 1 else Choice(name, list(labels), list(views), slider)


def line(x: Any, y: Any, name: str = "", error: Any = None, **trace: Any) -> dict:
    """Points joined by lines, arrays of shape (n,), with error bars of one standard deviation where given."""
    values = {"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": name, **trace}
    if error is not None:
        values["error_y"] = {"type": "data", "array": error, "visible": True, "thickness": 1, "width": 0}
    return values


def heat_map(x: Any, y: Any, z: Any, label: str = "", **trace: Any) -> dict:
    """Coloured cells: ``z`` of shape (ny, nx), ``x`` and ``y`` their centres, or their edges if longer by one."""
    return {"type": "heatmap", "x": x, "y": y, "z": z, "colorscale": "Viridis", "colorbar": titled(label), **trace}


def titled(text: str, **values: Any) -> dict:
    """An axis or colour bar with a title."""
    return {"title": {"text": text}, "exponentformat": "power", **values}


def axes(x: str, y: str, **layout: Any) -> dict:
    """Layout of a plot with two named axes."""
    return {"xaxis": titled(x), "yaxis": titled(y), "hovermode": "closest", **layout}


def square_axes(x: str, y: str, reverse: bool = False) -> dict:
    """Layout of a map with the same scale on both axes; y downwards, as on a detector, if ``reverse``."""
    layout = axes(x, y)
    layout["xaxis"]["constrain"] = "domain"
    layout["yaxis"].update(scaleanchor="x", constrain="domain", **({"autorange": "reversed"} if reverse else {}))
    return layout


def array(values: Any) -> np.ndarray:
    """Floating-point array of numbers from JSON, where None is none."""
    return np.array(values, dtype=float)


def limits(values: Any) -> tuple[float, float]:
    """Least and greatest of the numbers among the values, an array of any shape; (0, 1) if there is none."""
    numbers = array(values)
    numbers = numbers[np.isfinite(numbers)]
    return (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)


def rounded(values: Any) -> Any:
    """JSON-ready copy of nested lists, dictionaries and arrays: numbers to :data:`DIGITS` digits, NaN and inf None."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(value) for value in values]
    if isinstance(values, (float, np.floating)):
        return float(f"{values:.{DIGITS}g}") if np.isfinite(values) else None
    return values.item() if isinstance(values, np.generic) else values
