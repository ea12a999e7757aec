from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dials.util import Sorry
from example_maps import CELLS, example_map

from dials_diffuse.algorithms.view.coarsen import coarsen
from dials_diffuse.algorithms.view.packed_map import FILLED, pack


def unpacked(packed, diffuse_map):
    """Intensities of all voxels of the map, as they are packed."""
    axes = (diffuse_map.h, diffuse_map.k, diffuse_map.l)
    return packed.values[packed.at(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))]


def assert_as_it_was(packed, diffuse_map, name="intensity"):
    values = diffuse_map.fields[name].astype(float)
    got = unpacked(packed, diffuse_map)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(values))
    unit = max(np.nanmedian(np.abs(values)) / 20, np.nanmedian(diffuse_map.intensity_errors))
    assert np.nanmax(np.abs(got - values) / (np.abs(values) + unit)) < 0.0072
    assert (got[values == 0] == 0).all()


@pytest.mark.parametrize("symbol", CELLS)
@pytest.mark.parametrize("expand", [True, False])
def test_all_voxels_come_back_from_the_asymmetric_unit(symbol, expand):
    whole, index, _ = example_map(symbol)
    packed = pack(example_map(symbol, expand=expand)[0], "intensity")
    assert_as_it_was(packed, whole)
    assert len(packed.rotations) == whole.grid.laue_group.order_p() and (packed.codes > 0).sum() == len(index)


def test_friedel_mates_apart():
    whole, index, _ = example_map("P 6", friedel_apart=True)
    packed = pack(whole, "intensity")
    assert_as_it_was(packed, whole)
    assert len(packed.rotations) == 6


def test_errors_are_coarser():
    whole, index, columns = example_map("C 1 2 1")
    packed = pack(whole, "intensity")
    places = index @ packed.rotations - packed.lowest
    inside = ((places >= 0) & (places < packed.codes.shape)).all(axis=-1)
    errors = np.broadcast_to(columns["intensity_errors"], inside.shape)[inside]
    places = tuple(places[inside].T)
    kept = packed.codes[places] > 0
    assert kept.sum() >= len(index)  # some are their own mates
    np.testing.assert_allclose(packed.errors[packed.error_codes[places]][kept], errors[kept], rtol=0.052)


def test_a_map_without_the_symmetry_of_its_grid_is_kept_whole():
    whole, *_ = example_map("P 6")
    intensity = whole.intensity.copy()
    position = tuple(np.argwhere(np.isfinite(intensity))[17])
    for value, operations in ((2 * intensity[position] + 50, 1), (np.nan, 1)):
        changed = dataclasses.replace(whole, fields={**whole.fields, "intensity": intensity.copy()})
        changed.intensity[position] = value
        packed = pack(changed, "intensity")
        assert_as_it_was(packed, changed)
        assert len(packed.rotations) == operations
        changed.intensity[tuple(np.array(intensity.shape) - 1 - position)] = value  # Friedel's law alone is left
        packed = pack(changed, "intensity")
        assert_as_it_was(packed, changed)
        assert len(packed.rotations) == 2


def test_part_of_a_map_and_fields_that_count():
    whole, *_ = example_map("P 2 2 2")
    part = dataclasses.replace(
        whole, l=whole.l[-9:-4], fields={name: field[..., -9:-4] for name, field in whole.fields.items()}
    )
    packed = pack(part, "intensity")
    assert_as_it_was(packed, part)
    assert not packed.at(np.zeros(3)).any()
    assert packed.reach == pytest.approx(whole.grid.q(np.argwhere(np.isfinite(part.intensity)) + part.lowest).max())
    whole.fields["observations"] = np.where(np.isfinite(whole.intensity), 3, 0).astype(np.int32)
    packed = pack(whole, "observations")
    got = unpacked(packed, whole)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(whole.intensity))
    assert np.nanmin(got) == pytest.approx(3, rel=0.01) == np.nanmax(got)
    whole.fields["observations"][:] = 0
    with pytest.raises(Sorry, match="no observations"):
        pack(whole, "observations")


def test_filled_voxels_are_told_apart():
    whole, *_ = example_map("P 2 2 2")
    whole.fields["filled"] = (whole.intensity == 0).astype(np.int8)
    packed = pack(whole, "intensity")
    filled = packed.error_codes == FILLED
    assert filled.any() and (packed.values[packed.codes[filled]] == 0).all()
    assert np.isnan(packed.errors[[0, FILLED]]).all()


def test_coarse_voxels_are_means_over_what_they_cover():
    """Against the same by brute force: every fine voxel cut into eighths, which are given to coarse voxels."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 8, 5)).astype(np.float32)
    errors = rng.uniform(1, 2, values.shape).astype(np.float32)
    values[2:5, 3:6, 1:3] = np.nan
    lowest = np.array([-3, -4, 2])
    total, variance, volume = {}, {}, {}
    for position in np.argwhere(np.isfinite(values)):
        shares = {}
        for eighth in np.ndindex(2, 2, 2):
            coarse = tuple(np.floor((position + lowest + (np.array(eighth) - 0.5) / 2 + 1) / 2).astype(int))
            shares[coarse] = shares.get(coarse, 0) + 1 / 8
        for coarse, share in shares.items():
            total[coarse] = total.get(coarse, 0) + share * values[tuple(position)]
            variance[coarse] = variance.get(coarse, 0) + (share * errors[tuple(position)]) ** 2
            volume[coarse] = volume.get(coarse, 0) + share
    got, got_errors, first = coarsen(values, errors, lowest, np.eye(3, dtype=int)[None])
    assert first.tolist() == [-1, -2, 1] and got.shape == (3, 4, 3)
    for position in np.ndindex(got.shape):
        coarse = tuple(position + first)
        if volume.get(coarse, 0) < 8 / 3:
            assert np.isnan(got[position])
        else:
            assert got[position] == pytest.approx(total[coarse] / volume[coarse], rel=1e-5)
            assert got_errors[position] == pytest.approx(np.sqrt(variance[coarse]) / volume[coarse], rel=1e-5)


def test_a_coarse_map_is_the_same_map():
    whole, *_ = example_map("P 6", ndiv=4)
    q = whole.q()
    whole.intensity[:] = np.where(q < 1 / whole.grid.d_min, 1000 - 2000 * q, np.nan)
    packed = pack(whole, "intensity", coarse=1)
    assert packed.step.tolist() == [0.5] * 3 and len(packed.rotations) == 12
    hkl = np.array([[1.5, 2, -3], [-3.5, 1.5, 3], [0.5, 0, 4]])
    expected = 1000 - 2000 * whole.grid.q(hkl * 4)
    np.testing.assert_allclose(packed.values[packed.at(hkl)], expected, rtol=0.02)
