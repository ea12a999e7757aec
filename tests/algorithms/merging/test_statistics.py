from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from cctbx import miller, sgtbx, uctbx

from dials_diffuse.algorithms.merging.statistics import (
    chance_of,
    correlation,
    possible_voxels,
    shell_statistics,
)
from dials_diffuse.grid import GlobalGrid

CELLS = {
    "P 1": (11, 12, 13, 85, 95, 100),
    "P 21": (11, 12, 13, 90, 100, 90),
    "C 2": (14, 12, 13, 90, 100, 90),
    "P 41 21 2": (11, 11, 14, 90, 90, 90),
    "P 3": (11, 11, 14, 90, 90, 120),
    "I 2 3": (13, 13, 13, 90, 90, 90),
}


@pytest.mark.parametrize("symbol", CELLS)
def test_possible_voxels_are_the_orbits(symbol):
    """Against cctbx's orbits of every voxel in the box: one voxel for each, centring or not."""
    grid = GlobalGrid(uctbx.unit_cell(CELLS[symbol]), sgtbx.space_group_info(symbol).group(), (2, 2, 2), 4.0)
    edges = np.array([0, 0.15, 0.2, 0.25])
    group = grid.laue_group.build_derived_point_group()
    orbits = set()
    for index in itertools.product(*(range(-n, n + 1) for n in grid.n_max)):
        if grid.contains(np.array([index]))[0]:
            orbits.add(max(mate.h() for mate in miller.sym_equiv_indices(group, index).indices()))
    q = grid.q(np.array(list(orbits)))
    wanted = [((q > low) & (q <= high)).sum() for low, high in zip(edges[:-1], edges[1:])]
    wanted[0] += 1  # the origin
    assert possible_voxels(grid, edges).tolist() == wanted


def test_correlation_and_its_chance():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = 0.15 * a + rng.normal(size=200)
    a[:5], b[190:] = np.nan, np.nan
    cc, n = correlation(a, b)
    expected = scipy.stats.pearsonr(a[5:190], b[5:190], alternative="greater")
    assert n == 185
    assert cc == pytest.approx(expected.statistic)
    assert chance_of(cc, n) == pytest.approx(expected.pvalue)
    assert chance_of(1.0, 50) == pytest.approx(0)
    assert np.isnan(correlation(a[:6], b[:6])[0])
    assert np.isnan(chance_of(float("nan"), 2))


def test_shells():
    grid = GlobalGrid(uctbx.unit_cell((20, 20, 20, 90, 90, 90)), sgtbx.space_group_info("P 1").group(), (1, 1, 1), 4.0)
    index = np.array(list(itertools.product(range(-5, 6), repeat=3)))
    index = np.unique(grid.map_to_asu(index[grid.contains(index)]), axis=0)
    q = grid.q(index)
    rng = np.random.default_rng(0)
    truth = rng.gamma(5, 2, len(q))
    halves = (truth + rng.normal(0, 1, len(q)), truth + rng.normal(0, 1, len(q)))
    merged = (np.mean(halves, axis=0), np.full(len(q), 0.5), np.full(len(q), 4))
    statistics = shell_statistics(grid, q, merged, np.full(len(q), 10.0), halves, halves, 4)
    assert [shell.completeness for shell in statistics.shells] == [1, 1, 1, 1]
    assert statistics.overall.voxels == len(q) == sum(shell.voxels for shell in statistics.shells)
    counts = [shell.voxels for shell in statistics.shells]
    assert max(counts) < 1.5 * min(counts)  # equal volumes
    assert statistics.shells[0].d_max == np.inf and statistics.shells[-1].d_min == pytest.approx(4)
    assert statistics.overall.cc_half == pytest.approx(np.corrcoef(*halves)[0, 1])
    assert statistics.overall.mean_i_over_sigma == pytest.approx(np.mean(merged[0] / np.sqrt(0.5)))
    assert statistics.overall.multiplicity == 4
    report = json.loads(json.dumps(statistics.to_dict(), allow_nan=False))
    assert report["shells"][0]["d_max"] is None
    assert str(statistics).count("\n") == 8


def test_empty_shells_are_no_error():
    grid = GlobalGrid(uctbx.unit_cell((20, 20, 20, 90, 90, 90)), sgtbx.space_group_info("P 1").group(), (1, 1, 1), 4.0)
    one = np.array([1.0])
    statistics = shell_statistics(grid, np.array([0.1]), (one, one, one), one, (one, one), (one, one), 5)
    assert sum(shell.voxels for shell in statistics.shells) == 1
    json.dumps(statistics.to_dict(), allow_nan=False)
