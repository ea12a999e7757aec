from __future__ import annotations

import numpy as np
import pytest
from smooth_maps import CELLS, all_voxels, grid_of, map_of

from dials_diffuse.algorithms.maps.equivalents import representatives, slabs


@pytest.mark.parametrize("symbol", CELLS)
def test_representatives(symbol):
    """Against the asymmetric unit of cctbx: every voxel is counted once, with all those that it stands for."""
    grid = grid_of(symbol, d_min=6.0)
    whole, part = map_of(grid), map_of(grid, expand=False)
    voxels = representatives(whole)
    mapped, number = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0, return_counts=True)
    order = np.lexsort(grid.map_to_asu(voxels.index).T[::-1])
    np.testing.assert_array_equal(grid.map_to_asu(voxels.index)[order], mapped)
    np.testing.assert_array_equal(voxels.multiplicity[order], number)
    np.testing.assert_allclose(voxels.q, grid.q(voxels.index))
    np.testing.assert_array_equal(voxels.values(), whole.at(voxels.index))
    alone = representatives(part)
    assert len(alone) == len(mapped) and (alone.multiplicity == 1).all()


def test_of_some_voxels():
    diffuse_map = map_of(grid_of("P 41", d_min=6.0))
    lowest = diffuse_map.lowest
    chosen = np.zeros(diffuse_map.shape, dtype=bool)
    for voxel in ([3, 2, 1], [-2, 3, 1], [-2, 3, -1], [0, 0, 4]):
        chosen[tuple(np.array(voxel) - lowest)] = True
    assert sorted(representatives(diffuse_map, chosen).multiplicity) == [1, 3]


def test_slabs_cover_the_map(monkeypatch):
    diffuse_map = map_of(grid_of("P 1", d_min=8.0))
    monkeypatch.setattr("dials_diffuse.algorithms.maps.equivalents.SLAB", 100)
    planes = [i for part in slabs(diffuse_map) for i in range(diffuse_map.shape[0])[part]]
    assert planes == list(range(diffuse_map.shape[0]))
