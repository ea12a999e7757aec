from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from smooth_maps import grid_of, map_of, voxels_of, waves

from dials_diffuse.algorithms.maps.fill import fill
from dials_diffuse.algorithms.maps.punch import punch
from dials_diffuse.parameters import parameters

PARAMS = parameters("map")
EMPTY = {"intensity": np.nan, "intensity_errors": np.nan, "observations": 0, "pixels": 0}


def with_holes(diffuse_map, holes):
    for name, empty in EMPTY.items():
        diffuse_map.fields[name][holes] = empty


@pytest.mark.parametrize("symbol", ["P 1", "P 41", "P 6", "C 2"])
def test_a_smooth_map_is_reproduced(symbol):
    """Bragg voxels punched out and filled, to 0.3 % of the map's spread; Laue mates stay equal."""
    grid = grid_of(symbol, (3, 3, 3), 3.2)
    whole, filled = map_of(grid), map_of(grid)
    measured = np.isfinite(whole.intensity)
    punch(filled, parameters("map", "punch.hkl=0.34,0.34,0.34").punch)
    holes = np.isnan(filled.intensity) & measured
    index = np.argwhere(measured) + whole.lowest
    point = np.rint(index / 3)
    near = ((index / 3 - point) ** 2).sum(axis=1) < 0.35**2
    if symbol == "C 2":
        near &= point[:, :2].sum(axis=1) % 2 == 0
    if symbol == "P 6":  # with the images of the six neighbours
        near |= (np.abs(index[:, 2] % 3) == 0) & np.isin((index[:, :2] % 3) @ [1, 3], [2 + 3, 1 + 6])
    assert (holes[measured] == near).all() and near.sum() > 1000
    assert (filled.fields["pixels"][holes] == 0).all() and np.isnan(filled.intensity_errors[holes]).all()
    fill(filled, PARAMS.fill)
    done = filled.fields["filled"] == 1
    inner = holes & (whole.q() < 0.85 / 3.2)
    assert (done[inner]).all() and not (done & ~holes).any()
    error = (filled.intensity - whole.intensity)[inner]
    assert np.sqrt((error**2).mean()) < 0.003 * whole.intensity[measured].std()
    assert (filled.fields["observations"][done] == 0).all()
    chosen = np.argwhere(done)[::97] + filled.lowest
    for rotation in grid.rotations:
        assert (filled.at(chosen @ rotation) == filled.at(chosen)).all()


def test_what_is_not_surrounded_stays_empty():
    grid = grid_of("P 1", d_min=2.5)
    diffuse_map = map_of(grid)
    distance = np.sqrt(((np.argwhere(np.ones(diffuse_map.shape)) + diffuse_map.lowest) ** 2).sum(axis=1))
    cavity = distance.reshape(diffuse_map.shape) < 6.5
    with_holes(diffuse_map, cavity)
    with_holes(diffuse_map, np.s_[:, :, : diffuse_map.shape[2] // 3])
    before = len(voxels_of(diffuse_map))
    fill(diffuse_map, PARAMS.fill)
    done = diffuse_map.fields["filled"] == 1
    centre = tuple(-diffuse_map.lowest)
    assert np.isnan(diffuse_map.intensity[centre]) and done[cavity].any()
    assert len(voxels_of(diffuse_map)) == before + done.sum()
    assert not done[:, :, : diffuse_map.shape[2] // 3].any()


def test_errors():
    """Filled values deviate from the truth by what their errors say, for good neighbours and bad ones."""
    grid = grid_of("P 1", (3, 3, 3), 3.5)
    random = np.random.default_rng(5)
    diffuse_map = map_of(grid)
    truth = diffuse_map.intensity.copy()
    pixels = random.choice([4, 400], diffuse_map.shape)
    sigma = 10 / np.sqrt(pixels)
    diffuse_map.fields["pixels"] = np.where(np.isfinite(truth), pixels, 0)
    diffuse_map.fields["intensity"] += (random.normal(size=sigma.shape) * sigma).astype(np.float32)
    diffuse_map.fields["intensity_errors"][:] = sigma
    punch(diffuse_map, PARAMS.punch)
    fill(diffuse_map, PARAMS.fill)
    done = (diffuse_map.fields["filled"] == 1) & (diffuse_map.q() < 0.22)
    deviation = (diffuse_map.intensity - truth)[done] / diffuse_map.intensity_errors[done]
    assert 0.7 < deviation.std() < 1.1 and done.sum() > 200
    assert diffuse_map.intensity_errors[done].mean() < 0.5  # of eighty voxels, half of them with an error of 0.5


def test_punch_by_distance_and_by_default():
    grid = grid_of("P 1", (4, 4, 4), 5.0)
    by_q = punch(map_of(grid), parameters("map", "punch.q=0.015").punch)
    orthogonal = np.array(grid.unit_cell.fractionalization_matrix()).reshape(3, 3)
    index = voxels_of(map_of(grid)) / 4
    distance = np.linalg.norm((index - np.rint(index)) @ orthogonal, axis=1)
    assert len(voxels_of(by_q)) == (distance > 0.015).sum() < len(index)
    alone = punch(map_of(grid), PARAMS.punch)
    assert len(voxels_of(alone)) == (index % 1 != 0).any(axis=1).sum()
    with pytest.raises(Sorry, match=r"punch.q=0.03 .*less than 0.02"):
        punch(map_of(grid), parameters("map", "punch.q=0.03").punch)


def test_maps_without_pixels():
    grid = grid_of("P 41")
    diffuse_map = punch(map_of(grid), PARAMS.punch)
    del diffuse_map.fields["pixels"]
    fill(diffuse_map, PARAMS.fill)
    index = np.array([[4, 2, 2], [2, -4, 0]])
    assert diffuse_map.at(index) == pytest.approx(waves(grid, index), rel=0.02)
