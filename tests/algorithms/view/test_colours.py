from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from dials.util import Sorry
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm

from dials_diffuse.algorithms.view.colours import ColourScale, nice_numbers

VALUES = np.concatenate([[np.nan], np.linspace(-20, 100, 2001)])
CODES = np.arange(1, 2002).astype(np.uint16)  # every value once


def make(name="linear", colour_map=None, limits=None, values=VALUES):
    return ColourScale.make(name, colour_map, limits, values, CODES)


@pytest.mark.parametrize(
    "name, colour_map, limits, norm",
    [
        ("linear", "viridis", (-10, 70), Normalize(-10, 70, clip=True)),
        ("linear", "RdBu_r", (-10, 70), TwoSlopeNorm(0, -10, 70)),
        ("linear", "RdBu_r", (10, 70), Normalize(10, 70, clip=True)),
        ("log", "inferno", (1, 70), LogNorm(1, 70, clip=True)),
    ],
)
def test_colours_are_those_of_matplotlib(name, colour_map, limits, norm):
    values = VALUES[1:] if name != "log" else VALUES[VALUES > 0]
    expected = matplotlib.colormaps[colour_map](norm(values).filled(), bytes=True)[:, :3].astype(int)
    got = make(name, colour_map, limits).colours(values).astype(int)
    assert np.abs(got - expected).max() <= 3  # that of the next colour


def test_percentiles_use_every_colour_as_often():
    values = np.concatenate([[np.nan], np.exp(np.linspace(0, 9, 2001))])
    scale = make("percentile", "viridis", values=values)
    colours, count = np.unique(scale.colours(values[1:]), axis=0, return_counts=True)
    assert len(colours) > 250 and np.percentile(count, 5) >= 6 and np.percentile(count, 95) <= 10
    np.testing.assert_allclose(scale.fraction(scale.ticks()), np.linspace(0, 1, 6), atol=1e-6)
    middle = make("percentile", "RdBu_r").fraction(np.zeros(1))
    assert middle == pytest.approx(0.5, abs=1e-3)


def test_maps_with_negative_values_get_a_middle_at_zero():
    assert make().colour_map == "viridis"
    scale = make(values=VALUES - 40)
    assert scale.colour_map == "RdBu_r" and scale.low == -scale.high
    assert (make("log").low, make("linear").low) == (pytest.approx(0.0988, rel=0.01), pytest.approx(-18.8, rel=0.01))


def test_limits_show_98_percent():
    scale = make(values=np.concatenate([[np.nan], np.linspace(100, 200, 2001)]))
    assert (scale.low, scale.high) == (pytest.approx(101, abs=0.1), pytest.approx(199, abs=0.1))
    with pytest.raises(Sorry, match="the second must be larger"):
        make(limits=(3, 3))
    with pytest.raises(Sorry, match="above 0"):
        make("log", limits=(-1, 3))


def test_ticks():
    assert make("linear", limits=(-7, 61)).ticks().tolist() == [0, 10, 20, 30, 40, 50, 60]
    np.testing.assert_allclose(make("log", limits=(0.9, 30)).ticks(), [1, 2, 5, 10, 20])
    np.testing.assert_allclose(make("log", limits=(1e-3, 10)).ticks(), [1e-3, 1e-2, 0.1, 1, 10])
    np.testing.assert_allclose(nice_numbers(-0.52, 0.31, 8), np.arange(-5, 4) / 10, atol=1e-12)
