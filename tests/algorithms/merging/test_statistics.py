from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from cctbx import sgtbx, uctbx

from dials_diffuse.algorithms.merging.scatter import Scatter
from dials_diffuse.algorithms.merging.statistics import MergingStatistics, Regions, merging_statistics
from dials_diffuse.grid import GlobalGrid

GRID = GlobalGrid(uctbx.unit_cell((20, 20, 20, 90, 90, 90)), sgtbx.space_group_info("P 1").group(), (2, 2, 2), 4.0)


def scatter_of(variance: np.ndarray) -> Scatter:
    one = np.ones(len(variance))
    return Scatter(variance, 3.3 * one, 3 * one, 2 * one, 2.2 * one, 10 * one)


def statistics_of(index, merged, isotropic, scatters, n_shells) -> MergingStatistics:
    regions = Regions(GRID, n_shells)
    variances = {kind: found.variance for kind, found in scatters.items()}
    agreements = {kind: regions.sums(index, found) for kind, found in scatters.items()}
    return merging_statistics(regions, index, merged, isotropic, variances, agreements, "observation")


def test_shells():
    index = np.array(list(itertools.product(range(-10, 11), repeat=3)))
    index = np.unique(GRID.map_to_asu(index[GRID.contains(index)]), axis=0)
    n = len(index)
    rng = np.random.default_rng(0)
    truth = rng.gamma(5, 2, n)
    halves = (truth + rng.normal(0, 1, n), truth + rng.normal(0, 1, n))
    merged = (np.mean(halves, axis=0), np.full(n, 0.5), np.full(n, 4))
    scatters = {
        "observation": scatter_of((halves[0] - halves[1]) ** 2 / 4),
        "operation": scatter_of(np.full(n, np.nan)),
    }
    statistics = statistics_of(index, merged, np.full(n, 10.0), scatters, 4)
    assert [shell.completeness for shell in statistics.shells] == [1, 1, 1, 1]
    counts = [shell.voxels for shell in statistics.shells]
    assert statistics.overall.voxels == n == sum(counts)
    assert max(counts) < 1.1 * min(counts)  # equal volumes
    for number, shell in enumerate(statistics.shells):
        parts = (statistics.halo.shells[number], statistics.between.shells[number])
        assert shell.voxels == sum(part.voxels for part in parts)
        assert shell.possible == sum(part.possible for part in parts)
    assert statistics.halo.overall.voxels / n == pytest.approx(4 / 8, abs=0.05)  # the point and half of six neighbours
    assert statistics.shells[0].d_max == np.inf and statistics.shells[-1].d_min == pytest.approx(4)
    overall = statistics.overall
    assert overall.cc_half == pytest.approx(np.corrcoef(*halves)[0, 1], abs=1e-3)
    assert overall.mean_i_over_sigma == pytest.approx(np.mean(merged[0] / np.sqrt(0.5)))
    assert overall.multiplicity == 4
    assert overall.chi_squared == pytest.approx(1.1)
    assert overall.agreements["observation"].r_meas == pytest.approx(0.2)
    assert overall.agreements["observation"].r_meas_expected == pytest.approx(0.22)
    report = json.loads(json.dumps(statistics.to_dict(), allow_nan=False))
    assert report["shells"][0]["d_max"] is None
    assert report["overall"]["cc_laue"] is None and report["overall"]["cc_laue_voxels"] == 0
    assert report["overall"]["cc_half_low"] < overall.cc_half < report["overall"]["cc_half_high"]
    assert report["overall"]["cc_true"] == pytest.approx(np.corrcoef(merged[0], truth)[0, 1], abs=0.01)
    assert report["halo"]["overall"]["voxels"] + report["between"]["overall"]["voxels"] == n
    assert [axis["name"] for axis in report["directions"]["axes"]] == ["a*", "b*", "c*"]
    table = str(statistics).splitlines()
    assert sum(line.startswith("|") for line in table) == 2 + 4 + 3
    assert max(map(len, table)) < 150


def test_empty_shells_are_no_error():
    one = np.array([1.0])
    scatters = {"observation": scatter_of(one)}
    statistics = statistics_of(np.array([[2, 0, 0]]), (one, one, one), one, scatters, 5)
    assert sum(shell.voxels for shell in statistics.shells) == 1
    json.dumps(statistics.to_dict(), allow_nan=False)
    assert "nan" in str(statistics)
