from __future__ import annotations

import json

import observation_data
import pytest

from dials_diffuse.algorithms.merging.merge import merge
from dials_diffuse.algorithms.merging.plots import merging_sections
from dials_diffuse.parameters import parameters

SHELLS = [
    {"d_max": None, "d_min": 4.0, "cc_half": 0.9, "cc_half_low": 0.8, "cc_half_high": 0.95, "multiplicity": 8.0},
    {"d_max": 4.0, "d_min": 2.0, "cc_half": 0.5, "cc_half_low": 0.3, "cc_half_high": 0.6, "multiplicity": 4.0},
    {"d_max": 2.0, "d_min": 1.0, "cc_half": None, "cc_half_low": None, "cc_half_high": None, "multiplicity": 2.0},
]


def plots(statistics: dict) -> dict:
    return {plot.title: plot for section in merging_sections(statistics) for plot in section.plots}


def test_what_merging_writes_is_all_shown():
    dataset, truth = observation_data.make_dataset(1, n_frames=30)
    observation_data.put_scales(dataset.observations, truth.b)
    statistics = json.loads(json.dumps(merge(dataset, parameters("merge")).report()))
    sections = {section.title: section for section in merging_sections(statistics)}
    assert list(sections) == [
        "Statistics",
        "Correlations",
        "Multiplicity, completeness, intensity",
        "Chi-squared and R_meas",
        "Completeness in directions",
        "Symmetry of the diffuse scattering",
    ]
    assert [len(section.plots) for section in sections.values()][1:4] == [3, 4, 3]
    overall, shells = sections["Statistics"].tables
    assert [row[0] for row in overall.rows] == ["all voxels", "next to Bragg points", "between Bragg points"]
    assert overall.rows[0][overall.header.index("CC1/2")] == statistics["overall"]["cc_half"]
    assert len(shells.rows) == len(statistics["shells"])
    curves = {trace["name"]: trace for trace in plots(statistics)["CC1/2"].data}
    assert list(curves["CC true aniso"]["y"]) == [shell["cc_true_anisotropic"] for shell in statistics["shells"]]


def test_shells_are_over_their_middles_with_their_intervals():
    (cc_half,) = plots({"shells": SHELLS})["CC1/2"].data
    assert cc_half["x"] == pytest.approx([0.125, 0.375])  # the last shell has none
    assert cc_half["error_y"]["array"] == pytest.approx([0.05, 0.1])
    assert cc_half["error_y"]["arrayminus"] == pytest.approx([0.1, 0.2])
    (multiplicity,) = plots({"shells": SHELLS})["Multiplicity"].data
    assert multiplicity["x"] == pytest.approx([0.125, 0.375, 0.75]) and "error_y" not in multiplicity


def test_what_is_missing_is_left_out():
    assert merging_sections({}) == []
    assert [section.title for section in merging_sections({"shells": SHELLS})] == [
        "Statistics",
        "Correlations",
        "Multiplicity, completeness, intensity",
    ]


def test_the_symmetry_of_the_data_is_told():
    element = {"operation": "-h,-k,l", "order": 2, "pairs": 100, "cc": 0.9, "p": None}
    group = {"symbol": "2/m", "operations": ["-h,-k,l"], "cc_in": 0.9, "likelihood": 0.99}
    (section,) = merging_sections({"symmetry": {"elements": [element], "subgroups": [group], "warning": "Beware."}})
    elements, groups = section.tables
    assert section.text == "Beware." and elements.header == ["Operation", "Order", "Pairs", "CC", "P"]
    assert groups.rows == [["2/m", 0.9, 0.99]]
