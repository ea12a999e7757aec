"""Correlation and difference."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from cctbx import sgtbx, uctbx
from dials.util import Sorry
from smooth_maps import all_voxels, grid_of, map_of, voxels_of, waves

from dials_diffuse.algorithms.maps.correlation import correlation
from dials_diffuse.algorithms.maps.difference import difference, relative_scale
from dials_diffuse.algorithms.maps.two_maps import common_grid, in_box_of
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import ABSOLUTE_UNITS
from dials_diffuse.parameters import parameters

GRID = grid_of("P 41", d_min=3.0)
INDEX = np.unique(GRID.map_to_asu(all_voxels(GRID)), axis=0)


def params(*assignments):
    return parameters("map", *assignments).difference


def test_boxes():
    whole = map_of(GRID)
    part = map_of(GRID, index=INDEX[INDEX[:, 2] > 3], expand=False)
    moved = in_box_of(whole, part, ("intensity", "filled"))
    assert moved.shape == whole.shape and (moved.lowest == whole.lowest).all()
    found = voxels_of(part)
    np.testing.assert_array_equal(moved.at(found), part.at(found))
    assert np.isfinite(moved.intensity).sum() == len(found)
    back = in_box_of(part, whole, ("intensity",))
    np.testing.assert_array_equal(back.at(found), whole.at(found))
    apart = map_of(GRID, index=INDEX[INDEX[:, 2] < 2], expand=False)
    assert np.isnan(in_box_of(part, apart, ("intensity",)).intensity).all()


def test_symmetry_that_both_have():
    other = GlobalGrid(GRID.unit_cell, sgtbx.space_group_info("P222").group(), (2, 2, 2), 3.0)
    assert common_grid(GRID, other).laue_symbol == "2/m"
    assert common_grid(other, GRID).laue_symbol == "2/m"
    assert common_grid(GRID, GRID) == GRID
    assert common_grid(GRID, replace(GRID, friedel_apart=True)).friedel_apart


def test_correlation_of_equal_maps_is_1(tmp_path):
    first = map_of(GRID)
    scaled = map_of(GRID, 3 * waves(GRID, INDEX) + 7)
    table = correlation(first, scaled, "other.nxs", 6)
    assert len(table.cc) == 7
    assert table.cc == pytest.approx(np.ones(7)) and table.cc_anisotropic == pytest.approx(np.ones(7))
    assert table.voxels[-1] == len(INDEX) == table.voxels[:-1].sum()
    assert "overall" in str(table)
    table.write(tmp_path / "cc.csv")
    read = np.genfromtxt(tmp_path / "cc.csv", delimiter=",", names=True)
    assert read["cc"] == pytest.approx(np.ones(7)) and read["d_min"][-1] == pytest.approx(read["d_min"][-2])


def test_correlation_without_the_isotropic_part():
    """Two maps that have nothing but their fall-off in common; and of noise the expected value."""
    fall_off = 50 * np.exp(-30 * GRID.q(INDEX) ** 2)
    random = np.random.default_rng(0)
    noise = random.normal(size=(2, len(INDEX)))
    signal = random.normal(size=len(INDEX))
    table = correlation(map_of(GRID, fall_off + noise[0]), map_of(GRID, fall_off + noise[1]), "b", 4)
    assert table.cc[-1] > 0.9 and abs(table.cc_anisotropic[-1]) < 4 * table.error[-1] < 0.2
    table = correlation(map_of(GRID, signal + noise[0]), map_of(GRID, signal + noise[1]), "b", 4)
    assert table.cc == pytest.approx(np.full(5, 0.5), abs=0.12)
    assert table.cc[-1] == pytest.approx(0.5, abs=0.05)


def test_filled_voxels_do_not_correlate():
    filled = np.zeros(len(INDEX), dtype=int)
    filled[: len(INDEX) // 2] = 1
    assert correlation(map_of(GRID), map_of(GRID, filled=filled), "b", 2).voxels[-1] == (filled == 0).sum()


def test_difference_of_a_map_and_its_double_is_0(caplog):
    first = map_of(GRID, noise=0.5)
    second = copy.deepcopy(first)
    for name in ("intensity", "intensity_errors"):
        second.fields[name] *= 2
    with caplog.at_level("INFO", "dials.diffuse.maps"):
        rest = difference(first, second, "double.nxs", params())
    assert np.nanmax(np.abs(rest.intensity)) < 1e-4
    assert rest.intensity_errors[np.isfinite(rest.intensity)] == pytest.approx(0.1 * np.sqrt(2))
    assert "First map = 0.5 " in caplog.text


def test_scale_with_errors_in_both():
    """The factor is not drawn to 0 by the noise of the second map, as weights of the first alone would do."""
    random = np.random.default_rng(4)
    true = waves(GRID, INDEX)
    true *= 3 / true.std()
    factors, pulls = [], []
    for _ in range(12):
        noise = random.normal(size=(2, len(INDEX))) * 2
        first = map_of(GRID, 1.7 * true + noise[0], errors=2.0)
        second = map_of(GRID, true + noise[1], errors=2.0)
        scale = relative_scale(first, second, "b", params())
        factors.append(scale.factor)
        pulls.append((scale.factor - 1.7) / scale.error)
        assert scale.chi_squared == pytest.approx(1, abs=0.1)
    assert np.mean(factors) == pytest.approx(1.7, abs=0.03)
    assert 0.4 < np.std(pulls) < 1.7


def test_offset_by_shells_and_what_differs():
    """A feature that one map alone has is what is left; its errors are of both."""
    feature = 3 * np.exp(-((INDEX - [4, 3, 2]) ** 2).sum(axis=1) / 4)
    offset = 5 * np.exp(-40 * GRID.q(INDEX) ** 2)
    second = map_of(GRID, errors=0.1)
    first = map_of(GRID, 2.5 * waves(GRID, INDEX) + feature + offset, errors=0.2)
    half = first.intensity.copy()
    first.fields["half_1"] = half
    rest = difference(first, second, "b", params("difference.offset=True", "difference.shells=20"))
    at = rest.at(INDEX)
    far = (feature < 0.01) & (GRID.q(INDEX) > 0.1)
    assert np.abs(at[far]).max() < 0.4  # linear pieces between shells
    assert at[feature.argmax()] == pytest.approx(3, abs=0.4)
    assert rest.at(INDEX, "intensity_errors") == pytest.approx(np.hypot(0.2, 2.5 * 0.1), rel=0.02)
    assert "half_1" not in rest.fields


def test_given_scale_and_what_only_one_has():
    first, second = map_of(GRID), map_of(GRID, index=INDEX[INDEX[:, 2] < 4], filled=INDEX[INDEX[:, 2] < 4][:, 2] == 0)
    rest = difference(first, second, "b", params("difference.scale=0.25"))
    both = INDEX[INDEX[:, 2] < 4]
    np.testing.assert_allclose(rest.at(both), 0.75 * waves(GRID, both), rtol=1e-5)
    assert np.isnan(rest.at(INDEX[INDEX[:, 2] >= 4])).all()
    assert (rest.at(INDEX[INDEX[:, 2] >= 4], "pixels") == 0).all()
    assert (rest.at(INDEX, "filled") == (INDEX[:, 2] == 0)).all()


def test_other_maps_are_refused():
    first = map_of(GRID)
    longer = GlobalGrid(uctbx.unit_cell((21, 21, 25, 90, 90, 90)), GRID.space_group, (2, 2, 2), 3.0)
    for other, message in (
        (map_of(grid_of("P 41", (3, 3, 2), 4.0)), "b.nxs has ndiv=3,3,2, the first map 2,2,2"),
        (map_of(longer), "b.nxs has the unit cell"),
        (replace(map_of(GRID), units=ABSOLUTE_UNITS), "b.nxs is in electrons"),
    ):
        with pytest.raises(Sorry, match=message):
            correlation(first, other, "b.nxs", 5)
        with pytest.raises(Sorry, match=message):
            difference(first, other, "b.nxs", params())
    nothing = map_of(GRID, index=INDEX[:5])
    nothing.fields["filled"][:] = 1
    with pytest.raises(Sorry, match="no voxel"):
        correlation(first, nothing, "b.nxs", 5)
    with pytest.raises(Sorry, match="no voxel"):
        difference(first, nothing, "b.nxs", params())
