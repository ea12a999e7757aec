from __future__ import annotations

import numpy as np
import pytest
from cctbx import miller, sgtbx
from dials.util import Sorry
from grids import make_grid
from smooth_maps import CELLS, all_voxels, grid_of, map_of, voxels_of

from dials_diffuse.algorithms.maps.symmetrise import symmetrise
from dials_diffuse.parameters import parameters


def params(*assignments):
    return parameters("map", *assignments).symmetrise


def lower(symbol, **options):
    """A map without the symmetry of its cell, of random intensities; some voxels not measured."""
    grid = make_grid(CELLS[symbol], "P 1", d_min=6.0, **options)
    index = all_voxels(grid)
    random = np.random.default_rng(1)
    index = index[random.random(len(index)) < 0.8]
    n = len(index)
    columns = {"intensity": random.normal(size=n) + 10, "errors": random.uniform(1, 2, n)}
    return grid, map_of(grid, columns["intensity"], index=index, expand=False, pixels=random.integers(1, 50, n))


@pytest.mark.parametrize("symbol", ["P 41", "P 41 21 2", "P 6", "P 21 21 21"])
def test_mean_of_the_mates(symbol):
    """Against a loop over cctbx's equivalent indices; symmetrised again, nothing changes."""
    grid, diffuse_map = lower(symbol, friedel_apart=True)
    found = symmetrise(diffuse_map, params(f"symmetrise.group={symbol.replace(' ', '')}"))
    group = sgtbx.space_group_info(symbol).group().build_derived_laue_group()
    assert found.grid.laue_group == group and not found.grid.friedel_apart
    measured = {tuple(n): None for n in voxels_of(diffuse_map).tolist()}
    for voxel in list(measured)[::101]:
        mates = {mate.h() for mate in miller.sym_equiv_indices(group, voxel).indices()}
        there = np.array([mate for mate in mates if mate in measured])
        weight = diffuse_map.at(there, "pixels")
        mean = np.average(diffuse_map.at(there), weights=weight)
        error = np.sqrt(np.sum(weight**2 * diffuse_map.at(there, "intensity_errors") ** 2)) / weight.sum()
        everywhere = np.array(sorted(mates))
        assert found.at(everywhere) == pytest.approx(np.full(len(mates), mean), rel=1e-5)
        assert found.at(everywhere, "intensity_errors") == pytest.approx(np.full(len(mates), error), rel=1e-5)
        assert (found.at(everywhere, "pixels") == weight.sum()).all()
        assert (found.at(everywhere, "observations") == 3 * len(there)).all()
    again = symmetrise(found, params())
    assert (again.lowest == found.lowest).all() and again.grid == found.grid
    for name, values in found.fields.items():
        np.testing.assert_array_equal(again.fields[name], values, err_msg=name)


def test_own_group_alone_expands():
    grid = grid_of("P 41", d_min=6.0)
    part = map_of(grid, expand=False)
    np.testing.assert_allclose(symmetrise(part, params()).intensity, map_of(grid).intensity, rtol=1e-6)


def test_filled_voxels_give_way_to_measured_ones():
    grid, diffuse_map = lower("P 41")
    voxel = np.array([[3, 2, 1], [-2, 3, 1], [2, -3, 1], [-3, -2, 1]])
    place = tuple((np.concatenate([voxel, -voxel]) - diffuse_map.lowest).T)
    for name, value in {"intensity": 5.0, "intensity_errors": 1.0, "pixels": 0, "filled": 1}.items():
        diffuse_map.fields[name][place] = value
    all_filled = symmetrise(diffuse_map, params("symmetrise.group=P4"))
    assert all_filled.at(voxel, "filled").all() and all_filled.at(voxel) == pytest.approx(np.full(4, 5.0))
    one = tuple((voxel[:1] - diffuse_map.lowest).T), tuple((-voxel[:1] - diffuse_map.lowest).T)
    for where in one:
        for name, value in {"intensity": 8.0, "pixels": 7, "filled": 0}.items():
            diffuse_map.fields[name][where] = value
    found = symmetrise(diffuse_map, params("symmetrise.group=P4"))
    assert not found.at(voxel, "filled").any() and found.at(voxel) == pytest.approx(np.full(4, 8.0))


def test_half_maps_and_centring():
    grid, diffuse_map = lower("P 41")
    n = np.isfinite(diffuse_map.intensity)
    diffuse_map.fields["half_1"] = np.where(n, diffuse_map.intensity + 1, np.nan)
    diffuse_map.fields["half_1_errors"] = diffuse_map.intensity_errors * 2
    diffuse_map.fields["half_1"][:3] = np.nan
    found = symmetrise(diffuse_map, params("symmetrise.group=P4"))
    both = np.isfinite(found.fields["half_1"])
    assert both.sum() > 0.9 * np.isfinite(found.intensity).sum()
    inner = np.s_[5:-5, 5:-5, 5:-5]
    difference = (found.fields["half_1"] - found.intensity)[inner]
    assert np.nanmedian(difference) == pytest.approx(1, abs=1e-5)

    centred = grid_of("C 2", d_min=6.0)
    found = symmetrise(map_of(centred), params("symmetrise.group=P2"))
    assert found.grid.space_group == centred.space_group or found.grid.space_group.order_z() >= 2


@pytest.mark.parametrize(
    "symbol, ndiv, group, message",
    [
        ("P 1", (2, 2, 2), "P4", "unit cell .* does not fit symmetrise.group=P 4"),
        ("P 41", (2, 2, 2), "P23", "unit cell .* does not fit"),
        ("P 41", (2, 2, 2), "P6", "do not go together"),
        ("P 21 21 21", (2, 3, 2), "P4", "grid.ndiv=2,3,2 does not fit Laue group"),
    ],
)
def test_what_does_not_fit_is_refused(symbol, ndiv, group, message):
    with pytest.raises(Sorry, match=message):
        symmetrise(map_of(grid_of(symbol, ndiv, 8.0)), params(f"symmetrise.group={group}"))
