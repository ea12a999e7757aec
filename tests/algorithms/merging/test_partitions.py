"""Merging by partitions: their number, where they are kept, their order and who works on them make no difference."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy

from dials_diffuse.algorithms.merging import merge as merging
from dials_diffuse.algorithms.merging.merge import MergedMap, merge
from dials_diffuse.algorithms.scaling import partitions
from dials_diffuse.algorithms.scaling.regroup import regroup
from dials_diffuse.command_line.diffuse_merge import phil_scope
from dials_diffuse.partitioned_table import PartitionedTable, save_part, write_manifest
from dials_diffuse.table_file import columns_of

ARRAYS = ("intensity", "variance", "half_1", "half_1_variance", "half_2", "half_2_variance")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Scaled observations of three sweeps on disk as frames follow each other, a few of them rejected."""
    dataset, truth = observation_data.make_dataset(1, n_frames=20, samples=25, sweeps=3)
    observation_data.put_scales(dataset.observations, truth.b)
    flags = np.zeros(len(dataset.observations), dtype=np.uint64)
    flags[::50] = int(flex.reflection_table.flags.outlier_in_scaling)
    dataset.observations["flags"] = flumpy.from_numpy(flags)
    return on_disk(dataset.observations, tmp_path_factory.mktemp("table") / "scaled.parts"), dataset


def on_disk(table, folder) -> PartitionedTable:
    """Runs of rows as partitions."""
    folder.mkdir()
    columns, n = columns_of(table), len(table)
    edges = np.linspace(0, n, 5).astype(int)
    parts = [
        save_part(folder, f"part{i}", {name: values[begin:end] for name, values in columns.items()})
        for i, (begin, end) in enumerate(zip(edges[:-1], edges[1:]))
    ]
    write_manifest(folder, parts, dict(table.experiment_identifiers()), {"order": "frame"})
    return PartitionedTable(folder)


def parameters(folder, **options):
    params = phil_scope.extract()
    params.output.map = str(folder / "merged.nxs")
    params.mp.nproc = 1
    for name, value in options.items():
        setattr(params.merging, name, value)
    return params


def assert_same(one: MergedMap, other: MergedMap, rtol: float = 1e-12) -> None:
    for name in ("index", "multiplicity", "pixels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol)
    assert_alike(one.report(), other.report(), 1e3 * rtol)


def assert_alike(one, other, rel: float) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key], rel)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other):
            assert_alike(*pair, rel)
    else:
        assert one == (pytest.approx(other, rel=rel, abs=rel) if isinstance(other, float) else other)


@pytest.mark.parametrize("halves", ["observation", "sweep", "operation", "friedel"])
def test_number_of_partitions(halves, table, tmp_path, monkeypatch):
    _, dataset = table
    params = parameters(tmp_path, halves=halves, test_symmetry=halves == "observation")
    whole = merge(dataset, params)
    monkeypatch.setattr(partitions, "IN_MEMORY", 300)
    monkeypatch.setattr(merging, "AT_A_TIME", 100)
    assert_same(merge(dataset, params), whole)
    params.mp.nproc = 2
    again = merge(dataset, params)
    params.mp.nproc = 1
    assert_same(again, merge(dataset, params), 0)  # threads make no difference at all


@pytest.mark.parametrize("friedel", ["together", "apart"])
def test_on_disk_as_in_memory(friedel, table, tmp_path, monkeypatch):
    monkeypatch.setattr("dials_diffuse.algorithms.scaling.regroup.GOOD_SIZE", 1500)
    table, dataset = table
    params = parameters(tmp_path, friedel=friedel)
    rounded = replace(dataset, observations=table.whole_table())
    in_memory = merge(rounded, params)
    by_frames = merge(replace(dataset, observations=table), params)
    assert_same(by_frames, in_memory)
    assert not list(tmp_path.iterdir())  # nothing is left behind
    grouped = regroup(table, dataset.grid, 1, tmp_path).table
    assert len(grouped.parts) > 3
    params.mp.nproc = 2
    assert_same(merge(replace(dataset, observations=grouped), params), by_frames, 0 if friedel == "together" else 1e-12)


def test_several_tables_as_one(table, tmp_path):
    """A table for each sweep, ids counted from 0."""
    table, dataset = table
    rounded = table.whole_table()
    tables = []
    for i in range(3):
        of_sweep = rounded.select(rounded["id"] == i)
        of_sweep["id"] = flex.int(len(of_sweep), 0)
        tables.append(on_disk(of_sweep, tmp_path / f"sweep{i}.parts"))
    params = parameters(tmp_path)
    wanted = merge(replace(dataset, observations=rounded), params)
    assert_same(merge(replace(dataset, observations=PartitionedTable.joined(tables, (0, 1, 2))), params), wanted)


def test_nothing_to_merge(table, tmp_path):
    table, dataset = table
    rejected = table.whole_table()
    rejected["flags"] = flex.size_t(len(rejected), int(flex.reflection_table.flags.outlier_in_scaling))
    for observations in (rejected, on_disk(rejected, tmp_path / "rejected.parts")):
        with pytest.raises(Sorry, match="no observations"):
            merge(replace(dataset, observations=observations), parameters(tmp_path))


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_full_disk(table, tmp_path, limit):
    """While observations are sorted; while partitions of voxels are made of them."""
    table, dataset = table
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(Sorry, match="Cannot write"):
            merge(replace(dataset, observations=table), parameters(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_dask_as_processes(table, tmp_path):
    table, dataset = table
    params = parameters(tmp_path, test_symmetry=False)
    on_disk = replace(dataset, observations=table)
    wanted = merge(on_disk, params)
    params.mp.method, params.mp.nproc = "dask", 2
    assert_same(merge(on_disk, params), wanted, 0)


def test_rows_in_any_order(table, tmp_path):
    _, dataset = table
    order = np.random.default_rng(0).permutation(len(dataset.observations))
    shuffled = dataset.observations.select(flumpy.from_numpy(order.astype(np.uint64)))
    params = parameters(tmp_path)
    assert_same(merge(replace(dataset, observations=shuffled), params), merge(dataset, params), 1e-11)
