"""Scaled observations in partitions on disk, and the same in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.observations import COLUMNS, GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import InMemory, Partition, VoxelPartitions
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.partitioned_table import PartitionedTable, save_part, write_manifest


def on_disk(dataset: Dataset, b: np.ndarray, folder: Path, n_parts: int, mp) -> VoxelPartitions:
    """Observations with the scales ``b``, shape (n,), in about so many partitions of whole voxels."""
    table, grid = dataset.observations, dataset.grid
    columns = {name: flumpy.to_numpy(table[name]) for name in COLUMNS} | {"inverse_scale_factor": b}
    columns["miller_index"] = miller_index_to_numpy(table["miller_index"])
    keys = grid.asu_keys(columns["miller_index"])
    rows = np.argsort(keys, kind="stable")
    new = np.flatnonzero(np.diff(keys[rows])) + 1
    limits = np.concatenate([[0], new[len(new) // n_parts :: len(new) // n_parts], [len(rows)]])
    place, scratch = folder / "table.parts", folder / "scratch"
    place.mkdir()
    scratch.mkdir()
    parts = [
        save_part(place, str(i), {name: values[rows[begin:end]] for name, values in columns.items()})
        for i, (begin, end) in enumerate(zip(limits[:-1], limits[1:]))
    ]
    write_manifest(place, parts, dict(table.experiment_identifiers()), {"order": "voxel"})
    return VoxelPartitions.of_table(PartitionedTable(place), grid, mp, scratch).viewed(scaled)


def in_memory(partitions: VoxelPartitions) -> VoxelPartitions:
    """The same partitions, with what is seen of them."""
    return VoxelPartitions([InMemory(seen) for seen in partitions.map(_seen)], 1)


def scaled(partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    """View: with the scales."""
    return observations.scaled(
        partition.column("inverse_scale_factor"), np.zeros(len(observations)), ErrorModel(1.1, 0.02)
    )


def _seen(partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    return observations
