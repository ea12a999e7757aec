"""What is left out of a map, and what is warned of."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.processing.checks import check_cells, check_indexed, check_rmsd, check_stills
from dials_diffuse.algorithms.processing.steps import LeftOut
from dials_diffuse.algorithms.processing.sweeps import Sweep
from dials_diffuse.algorithms.processing.table import table

CHECK = parse("include scope dials_diffuse.phil_scope.process.phil_scope", process_includes=True).extract().check
CELL = [40.0, 50.0, 60.0, 90.0, 90.0, 90.0]


def sweep(name="sweep_1", **numbers):
    return Sweep(Path(name), ExperimentList(), numbers=numbers)


def sweeps(*edges):
    return [sweep(f"sweep_{i}", cells=[[a, *CELL[1:]]]) for i, a in enumerate(edges, 1)]


def test_cells_are_compared_with_the_median():
    three = sweeps(41.5, 40.0, 40.1)
    check_cells(three, CHECK)
    assert "41.50, 50.00, 60.00" in three[0].left_out and "the median of all sweeps, 40.10" in three[0].left_out
    assert three[1].left_out is None and three[2].left_out is None


def test_two_cells_are_compared_with_the_first():
    two = sweeps(40.0, 41.5)
    check_cells(two, CHECK)
    assert two[0].left_out is None and "the first sweep's" in two[1].left_out
    one = sweeps(40.0)
    check_cells(one, CHECK)
    assert one[0].left_out is None


def test_rmsd():
    check_rmsd(sweep(rmsd=[2.9, 2.9, 10.0]), CHECK.rmsd)
    check_rmsd(sweep(), CHECK.rmsd)
    with pytest.raises(LeftOut, match=r"its spots are 1.0, 3.1 pixels \(RMSD in x, y\).*check.rmsd=3"):
        check_rmsd(sweep(rmsd=[1.0, 3.1, 0.1]), CHECK.rmsd)


def test_few_are_indexed(caplog):
    with caplog.at_level(logging.WARNING, "dials.diffuse"):
        check_indexed(sweep(spots=100, indexed=50), CHECK.indexed)
        check_stills(sweep(**{"stills": 10, "indexed stills": 5}), CHECK.indexed)
        assert not caplog.text
        check_indexed(sweep(spots=100, indexed=49), CHECK.indexed)
        check_stills(sweep(**{"stills": 10, "indexed stills": 4}), CHECK.indexed)
    assert "only 49 of 100 spots (49 %) are indexed" in caplog.text
    assert "only 4 of 10 stills" in caplog.text


def test_table():
    full = sweep(
        spots=1000,
        indexed=990,
        rmsd=[0.4, 0.5, 0.1],
        cells=[CELL, CELL],
        mosaicity=0.123,
        observations=7,
        operator="h,k,l",
    )
    text = table([full, sweep("failed")])
    for value in (
        "99.0 %",
        "0.400, 0.500, 0.100",
        "40.00 50.00 60.00  90.0 90.0 90.0 (of 2)",
        "0.123",
        "h,k,l",
        "failed",
    ):
        assert value in text
