"""What the report of scaling shows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from dials_diffuse.algorithms.scaling.detector_plots import panel_plots, response_plots
from dials_diffuse.algorithms.scaling.term_plots import VARIABLES, term_plots
from dials_diffuse.log_levels import DETAILED
from dials_diffuse.plot import Plot, axes, line
from dials_diffuse.report import Section, Table

#: Variables of the error model's tables, with their axes' names.
BINS = {"q": "|q| (1/A)", "counts": "expected photons of an observation", "i_over_sigma": "expected I / sigma"}


def scaling_sections(report: dict) -> list[Section]:
    """Sections of the report of scaling.

    Parameters
    ----------
    report : dict
        What ``dials.diffuse_scale`` writes as JSON (docs/data_model.md); what is missing in it is left out.
    """
    sections = [
        _summary(report),
        _convergence(report.get("cycles") or []),
        *_terms(report),
        _residuals(report.get("residuals") or {}),
        _error_model(report.get("error_model") or {}),
        _outliers(report.get("outliers") or {}),
    ]
    return [section for section in sections if section.tables or section.plots]


def _summary(report: dict) -> Section:
    """The numbers that tell whether all is well, the terms that were tried, the sweeps."""
    sweeps, cycles = report.get("sweeps") or [], report.get("cycles") or []
    terms, model = report.get("terms") or {}, report.get("error_model") or {}
    counts = (report.get("outliers") or {}).get("counts") or {}
    rows = [
        ["Sweeps", len(sweeps)],
        ["Observations", sum(sweep.get("observations", 0) for sweep in sweeps)],
        ["of these used", sum(sweep.get("observations_used", 0) for sweep in sweeps)],
        ["Terms", ", ".join(terms.get("chosen", []))],
        ["Cycles", len(cycles)],
        ["Reduced chi-squared of the last cycle", cycles[-1].get("chi_squared") if cycles else None],
        ["Error model: a", _with_error(model, "a")],
        ["Error model: b", _with_error(model, "b")],
        ["Outliers", sum(counts.values()) if counts else None],
    ]
    tables = [Table([], [row for row in rows if row[1] not in (None, "")])] if report else []
    if trials := terms.get("trials"):
        header = ["Terms", "Gain on held-out observations", "Error", "Accepted"]
        trial_rows = [
            [", ".join(trial["terms"]), trial.get("gain"), trial.get("error"), trial.get("accepted")]
            for trial in trials
        ]
        tables.append(Table(header, trial_rows, "Terms that were tried"))
    if sweeps:
        header = ["Sweep", "Observations", "Used", "Mean b"]
        sweep_rows = [
            [number, sweep.get("observations"), sweep.get("observations_used"), sweep.get("mean")]
            for number, sweep in enumerate(sweeps)
        ]
        tables.append(Table(header, *_first(sweep_rows, "Sweeps")))
    return Section("Summary", tables=tables, is_open=True)


def _convergence(cycles: list[dict]) -> Section:
    """Chi-squared, the objective, shifts and smoothness by cycle."""
    section = Section("Convergence", is_open=True)
    if not cycles:
        return section
    numbers = list(range(1, len(cycles) + 1))

    def curves(keys: Iterable[str], size: bool = False) -> list[dict]:
        found = [(key, [cycle.get(key) for cycle in cycles]) for key in keys]
        return [line(numbers, _sizes(values) if size else values, key.replace("_", "-")) for key, values in found]

    plots = [
        Plot("Reduced chi-squared by cycle", curves(["chi_squared"]), axes("cycle", "reduced chi-squared")),
        Plot("Objective by cycle", curves(["objective"]), axes("cycle", "objective")),
        Plot(
            "Changes",
            curves(["change", "shift"], size=True),
            _logarithmic(axes("cycle", "size")),
            "Of the objective, and the greatest of a parameter; relative. They rise where the fit starts anew: with "
            "other terms, without outliers.",
        ),
    ]
    smooth = list(dict.fromkeys(name for cycle in cycles for name in cycle.get("smoothness") or {}))
    strengths = [
        line(numbers, _sizes([(c.get("smoothness") or {}).get(name) for c in cycles]), name) for name in smooth
    ]
    plots.append(Plot("Strength of the smoothness penalties", strengths, _logarithmic(axes("cycle", "strength"))))
    section.plots = [plot for plot in plots if any(value is not None for trace in plot.data for value in trace["y"])]
    return section


def _terms(report: dict) -> list[Section]:
    """A section for every term."""
    terms: dict[str, dict[int, dict]] = {}
    for number, sweep in enumerate(report.get("sweeps") or []):
        for name, term in (sweep.get("terms") or {}).items():
            if term:
                terms.setdefault(name, {})[number] = term
    sections = [Section(f"Term: {name}", plots=term_plots(name, values)) for name, values in terms.items()]
    if detector := report.get("detector"):
        sections.append(Section("Term: detector", plots=response_plots(detector)))
    return sections


def _residuals(residuals: dict) -> Section:
    """Residuals over the detector, phi and |q|."""
    text = (
        "Residuals are differences between an observation and what the model expects, in units of their standard "
        "deviation. Where model and errors are right, their mean is 0 and their reduced chi-squared is 1 everywhere."
    )
    section = Section("Residuals", text)
    panels = (residuals.get("detector") or {}).get("panels") or []
    by_phi, by_q = residuals.get("phi") or [], residuals.get("q")
    for key, name, centre in (("mean", "Mean residual", 0.0), ("chi_squared", "Reduced chi-squared", 1.0)):
        section.plots += panel_plots(f"{name} over the detector", panels, key, centre)
        if by_phi:
            curves = [line(e["phi"], e[key], f"experiment {e['experiment']}") for e in by_phi[:DETAILED]]
            note = f"The first {DETAILED} of {len(by_phi)} experiments." if len(by_phi) > DETAILED else ""
            section.plots.append(Plot(f"{name} over phi", curves, axes(VARIABLES["phi"], name.lower()), note))
        if by_q:
            curves = [line(by_q["q"], by_q[key])]
            section.plots.append(Plot(f"{name} over |q|", curves, axes(VARIABLES["q"], name.lower())))
    return section


def _error_model(model: dict) -> Section:
    """Chi-squared before and after the refinement of the error model."""
    text = "Variance = a^2 (expected photons + variance of the background + (b I)^2), I in photons."
    section = Section("Error model", text)
    rows = [[name, model.get(name), model.get(f"{name}_error")] for name in "ab" if model.get(name) is not None]
    if rows:
        section.tables.append(Table(["Parameter", "Value", "Standard deviation"], rows))
    for key, label in BINS.items():
        curves = [
            line(
                [_middle(row, logarithmic=key != "q") for row in model[when][key]],
                [row["chi_squared"] for row in model[when][key]],
                when,
                [row.get("error") for row in model[when][key]],
                text=[f"{row.get('observations')} observations" for row in model[when][key]],
            )
            for when in ("before", "after")
            if (model.get(when) or {}).get(key)
        ]
        if curves:
            layout = axes(label, "reduced chi-squared")
            layout["xaxis"]["type"] = "linear" if key == "q" else "log"
            section.plots.append(Plot(f"Reduced chi-squared, by {label}", curves, layout))
    return section


def _outliers(outliers: dict) -> Section:
    """How many observations were rejected and why, where they are, and frames that fit badly."""
    section = Section("Outliers")
    if counts := outliers.get("counts"):
        section.tables.append(Table(["Reason", "Observations"], [list(item) for item in counts.items()]))
    if frames := outliers.get("bad_frames"):
        header = ["Experiment", "First image", "Last image", "Reason", "Observed / expected", "Chi-squared", "Where"]
        keys = ("experiment", "first", "last", "reason", "ratio", "chi_squared", "where")
        rows = [[frame.get(key) for key in keys] for frame in frames]
        section.tables.append(Table(header, *_first(rows, "Frames that fit badly")))
    for reason, panels in (outliers.get("detector") or {}).items():
        if any(np.any(panel["number"]) for panel in panels):
            section.plots += panel_plots(f"Outliers over the detector: {reason}", panels, "number", total=True)
    return section


def _with_error(values: dict, key: str) -> str | None:
    """A value with its standard deviation as text."""
    if values.get(key) is None:
        return None
    error = values.get(f"{key}_error")
    return f"{values[key]:.5g}" + (f" +- {error:.2g}" if error is not None else "")


def _first(rows: list[list], caption: str) -> tuple[list[list], str]:
    """Rows that a reader can look through, and the table's caption."""
    most = DETAILED**2
    return rows[:most], caption + (f" (the first {most} of {len(rows)})" if len(rows) > most else "")


def _sizes(values: list) -> list:
    """Absolute values; None for zero, which has no logarithm."""
    return [abs(value) if value else None for value in values]


def _middle(row: dict, logarithmic: bool) -> float | None:
    """Middle of a bin; of an open bin, its finite end."""
    ends = [row.get("low"), row.get("high")]
    finite = [end for end in ends if end is not None and math.isfinite(end) and (end > 0 or not logarithmic)]
    if len(finite) < 2:
        return finite[0] if finite else None
    return math.sqrt(finite[0] * finite[1]) if logarithmic else sum(finite) / 2


def _logarithmic(layout: dict) -> dict:
    layout["yaxis"]["type"] = "log"
    return layout
