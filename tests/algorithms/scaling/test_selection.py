from __future__ import annotations

import observation_data
import pytest
from scalers import scale_counting


@pytest.mark.parametrize("seed,level,pixels", [(1, 1, 40), (2, 1, 40), (3, 1, 40), (4, 0.05, 40), (5, 0.05, 5)])
def test_scale_alone_where_there_is_nothing_else(seed, level, pixels):
    dataset, _ = observation_data.make_dataset(level, n_frames=40, samples=30, seed=seed, pixels=pixels)
    report = scale_counting(dataset, "Auto")
    assert report["terms"]["chosen"] == ["scale"]
    assert {trial["terms"][-1] for trial in report["terms"]["trials"]} == {"absorption", "offset", "detector"}
    assert not any(trial["accepted"] for trial in report["terms"]["trials"])


@pytest.mark.parametrize(
    "strengths,wanted",
    [
        ({"a": 0.15}, {"absorption"}),
        ({"c": 1}, {"offset"}),
        ({"d": 0.1}, {"detector"}),
        ({"a": 0.15, "c": 1, "d": 0.1}, {"absorption", "offset"}),  # d might as well be in a of few sweeps
    ],
)
def test_terms_that_are_there_are_chosen(strengths, wanted):
    """And no others."""
    dataset, _ = observation_data.make_dataset(3, n_frames=45, samples=30, **strengths)
    report = scale_counting(dataset, "Auto")
    allowed = {"scale", *wanted} | ({"detector"} if "d" in strengths else set())
    assert {"scale", *wanted} <= set(report["terms"]["chosen"]) <= allowed
    assert all(trial["gain"] > 4 * trial["error"] for trial in report["terms"]["trials"] if trial["accepted"])
    assert [trial["terms"][-1] for trial in report["terms"]["trials"] if trial["accepted"]] == report["terms"][
        "chosen"
    ][1:]
    assert report["cycles"][-1]["chi_squared"] == pytest.approx(1, abs=0.05)
