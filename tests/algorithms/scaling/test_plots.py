from __future__ import annotations

import observation_data
import pytest
from report_data import scaling_report

from dials_diffuse.algorithms.scaling.plots import scaling_sections
from dials_diffuse.algorithms.scaling.scale import scale
from dials_diffuse.parameters import parameters
from dials_diffuse.plot import Choice, rounded


def plots(report: dict) -> dict:
    return {plot.title: plot for section in scaling_sections(report) for plot in section.plots}


def test_what_scaling_writes_is_all_shown():
    dataset, _ = observation_data.make_dataset(1, n_frames=20, samples=30)
    terms = ["scale", "absorption", "offset", "detector"]
    params = parameters("scale", f"scaling.terms={','.join(terms)}", "scaling.max_cycles=3")
    report = scale(dataset, params)
    sections = {section.title: section for section in scaling_sections(report)}
    assert {"Summary", "Convergence", "Residuals", "Error model", *(f"Term: {term}" for term in terms)} <= set(sections)
    assert len(sections["Convergence"].plots) == 4
    assert len(sections["Residuals"].plots) == 6
    assert len(sections["Error model"].plots) == 3
    summary = dict(sections["Summary"].tables[0].rows)
    assert summary["Terms"] == "scale, absorption, offset, detector"
    assert summary["Observations"] == sum(sweep["observations"] for sweep in report["sweeps"])
    for section in sections.values():
        for plot in section.plots:
            data = plot.data
            while isinstance(data, Choice):
                assert len(data.labels) == len(data.views)
                data = data.views[0]
            for trace in data:
                drawn = rounded(trace)
                if trace["type"] == "heatmap":
                    assert len(drawn["z"]) in (len(drawn["y"]), len(drawn["y"]) - 1), plot.title
                    assert len(drawn["z"][0]) in (len(drawn["x"]), len(drawn["x"]) - 1), plot.title
                else:
                    assert len(drawn["x"]) == len(drawn["y"]) > 0, plot.title


def test_terms_are_shown_over_their_variables():
    report = scaling_report(sweeps=45)
    shown = plots(report)
    curves = shown["Scale b(phi): beam, illuminated volume, decay"].data
    assert curves.labels == ["0 to 19", "20 to 39", "40 to 44"]
    assert curves.views[1][3]["y"] == report["sweeps"][23]["terms"]["scale"]["value"]
    maps = shown["Absorption a(x, y, phi) in the crystal"]
    assert maps.data.labels == [str(i) for i in range(20)] and maps.help == "The first 20 of 45 sweeps."
    assert maps.data.views[7].slider
    assert maps.data.views[7].views[4][0]["z"] == report["sweeps"][7]["terms"]["absorption"]["value"][4]
    by_sweep = shown["Scale b(phi): beam, illuminated volume, decay, by sweep"].data[0]
    value = report["sweeps"][44]["terms"]["scale"]["value"]
    assert by_sweep["y"][44] + by_sweep["error_y"]["array"][44] == pytest.approx(max(value))
    assert by_sweep["y"][44] - by_sweep["error_y"]["arrayminus"][44] == pytest.approx(min(value))


def test_stills_are_shown_by_number():
    sweeps = [{"terms": {"scale": {"value": [1.0 + i], "error": [0.1]}}} for i in range(1000)]
    shown = plots({"sweeps": sweeps})
    assert list(shown) == ["Scale b(phi): beam, illuminated volume, decay, by sweep"]
    (trace,) = shown.popitem()[1].data
    assert trace["y"][999] == 1000 and trace["error_y"]["array"][999] == 0.1


def test_a_term_of_a_plug_in_is_shown():
    decay = {"phi": [0, 1, 2], "value": [0.1, 0.2, 0.3], "error": [0.01, 0.01, 0.01]}
    assert list(plots({"sweeps": [{"terms": {"decay": decay}}]})) == ["Decay"]
    stripes = {"fast": [0, 1], "phi": [0, 1], "value": [[0.9, 1.1], [1.0, 1.2]]}
    assert list(plots({"sweeps": [{"terms": {"stripes": stripes}}]})) == ["Stripes, by sweep"]


def test_tiles_lie_where_they_are_on_the_panel():
    cells = plots(scaling_report())["Detector response d"].data[0]
    fast, slow = list(cells["x"]), list(cells["y"])
    assert cells["z"][slow.index(212), fast.index(494)] == pytest.approx(1 + 1e-4 * (494 - 212))
    assert cells["z"].shape == (23, 9)
    gap = cells["z"][:, fast.index(487)]
    assert (gap != gap).all()


def test_of_many_panels_those_that_differ_are_shown():
    report = scaling_report(panels=64)
    report["residuals"]["detector"]["panels"][50]["chi_squared"] = [[9.0] * 40] * 42
    shown = plots(report)
    labels = shown["Reduced chi-squared over the detector"].data.labels
    assert len(labels) == 20 and "50" in labels
    assert shown["Reduced chi-squared over the detector, by panel"].data[0]["y"][50] == pytest.approx(9)


def test_what_is_missing_is_left_out():
    assert scaling_sections({}) == []
    assert [s.title for s in scaling_sections({"cycles": [{"objective": 2.0, "chi_squared": 1.0}]})] == [
        "Summary",
        "Convergence",
    ]
