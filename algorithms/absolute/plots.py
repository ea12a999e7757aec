"""What the report of the absolute scale shows."""

from __future__ import annotations

from dials_diffuse.plot import Plot, array, axes, line
from dials_diffuse.report import Section, Table

#: Columns of the table of shells: key, header.
COLUMNS = {
    "completeness": "Voxels measured",
    "bragg_completeness": "Reflections measured",
    "diffuse": "Diffuse",
    "bragg": "Bragg",
    "incoherent": "Incoherent",
    "coherent": "Sum f^2",
    "interference": "Interference",
}
#: Other factors are drawn beside that of the sum rule if they are within this part of it.
NEAR = 0.3
METHODS = {
    "krogh_moe": "Krogh-Moe (sum rule)",
    "bragg": "calculated Bragg intensities",
    "wilson": "Wilson's plot",
    "factor": "given",
}


def absolute_sections(report: dict) -> list[Section]:
    """Sections of the report.

    Parameters
    ----------
    report : dict
        What ``dials.diffuse_absolute`` writes as JSON (docs/data_model.md).
    """
    return [
        section
        for section in (_scale(report), _shells(report), _bragg(report), _contents(report), _table(report))
        if section.tables or section.plots
    ]


def _scale(report: dict) -> Section:
    """The factors, and the factor over the cutoff."""
    rows = [
        [METHODS[name], value["factor"], value["error"], "taken" if name == report["method"] else ""]
        for name, value in report["factors"].items()
    ]
    table = Table(["By", "Electrons^2 per unit cell for a photon / (s sr)", "Error", ""], rows)
    section = Section("Scale", "\n\n".join(report["remarks"]), [table], is_open=True)
    if rule := report["krogh_moe"]:
        q, factors = 1 / array(rule["d_min"]), array(rule["factors"])
        begin = 1 / rule["plateau"][0]
        level = [report["factors"]["krogh_moe"]["factor"]] * 2
        traces = [
            line(q, factors, "sum rule", array(rule["counting_errors"])),
            line([begin, q[-1]], level, "plateau", mode="lines", line={"dash": "dash"}),
        ]
        for name, value in report["factors"].items():
            if name != "krogh_moe" and abs(value["factor"] / level[0] - 1) < NEAR:
                traces.append(line([q[-1]], [value["factor"]], METHODS[name], [value["error"]], mode="markers"))
        help = (
            "The factor by the sum rule if the integral ends at |q|. It should become level: what rises or falls "
            "towards the end is background, a wrong composition, or a resolution that is too low. Over the plateau it "
            f"changes by {100 * rule['drift']:.1f} %."
        )
        section.plots.append(Plot("Factor and cutoff", traces, axes("cutoff |q| (1/A)", "factor"), help))
        parts = [[name, value, 100 * value / level[0]] for name, value in rule["errors"].items()]
        section.tables.append(Table(["Error of the sum rule by", "", "%"], parts))
    return section


def _shells(report: dict) -> Section:
    """Measured and expected scattering by shells."""
    shells = report["shells"]
    q = [((1 / shell["d_max"] if shell["d_max"] else 0) + 1 / shell["d_min"]) / 2 for shell in shells]
    values = {key: array([shell[key] for shell in shells]) for key in (*COLUMNS, "diffuse_error", "bragg_error")}
    total = values["diffuse"] + values["bragg"] + values["incoherent"]
    expected = values["coherent"] + values["incoherent"]
    traces = [
        line(q, total, "measured, total"),
        line(q, values["diffuse"], "diffuse, coherent", values["diffuse_error"]),
        line(q, values["bragg"], "Bragg", values["bragg_error"]),
        line(q, values["incoherent"], "incoherent", mode="lines"),
        line(q, expected, "single atoms", mode="lines"),
        line(q, expected + values["interference"], "with interference", mode="lines"),
    ]
    layout = axes("|q| (1/A)", "electrons^2 per unit cell")
    layout["yaxis"]["type"] = "log"
    plot = Plot("Measured and expected", traces, layout, "The total should follow what single atoms scatter.")
    return Section("Total scattering", plots=[plot], is_open=True)


def _table(report: dict) -> Section:
    """The same as numbers."""
    rows = [[_limits(shell), *(shell[key] for key in COLUMNS)] for shell in report["shells"]]
    table = Table(["d (A)", *COLUMNS.values()], rows, "Means over shells, electrons^2 per unit cell")
    return Section("Shells", tables=[table])


def _bragg(report: dict) -> Section:
    """Wilson's plot and the comparison with calculated intensities."""
    section = Section("Bragg intensities")
    titles = {"wilson": "Wilson's plot", "comparison": "Calculated and measured Bragg intensities"}
    for key, title in titles.items():
        if found := report[key]:
            x = array(found["q"]) ** 2
            traces = [
                line(x, found["logarithm"], "shells", mode="markers"),
                line(x, found["line"], f"B = {found['b_factor']:.2f} +- {found['b_error']:.2f} A^2", mode="lines"),
            ]
            wanted = "sum f^2" if key == "wilson" else "calculated |F|^2"
            help = f"ln of {wanted} over the measured mean, with V: at |q| = 0 it is ln of the factor."
            section.plots.append(Plot(title, traces, axes("q^2 (1/A^2)", "ln k + B q^2 / 2"), help))
    return section


def _contents(report: dict) -> Section:
    rows = [
        [part["name"], ", ".join(f"{name} {number:.5g}" for name, number in part["numbers"].items()), part["electrons"]]
        + [100 * part["volume"] / report["cell_volume"] if part["volume"] else None]
        for part in report["inventory"]
    ]
    rows.append(["all", "", sum(part["electrons"] for part in report["inventory"]), None])
    return Section("Unit cell", "", [Table(["Part", "Atoms", "Electrons", "% of the volume"], rows)])


def _limits(shell: dict) -> str:
    return f"{shell['d_max']:.2f} - {shell['d_min']:.2f}" if shell["d_max"] else f"inf - {shell['d_min']:.2f}"
