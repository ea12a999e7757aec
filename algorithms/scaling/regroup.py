"""Observations put into the order of their voxels, however many there are: a merge sort on disk.

Every partition of the table is sorted by itself, by the keys of its voxels in the asymmetric unit. The keys are then
divided so that about as many observations come between two limits, and what all sorted partitions have between these
makes one partition of the result: whole voxels. No process holds more than two partitions, and what travels are the
paths of files, and a few keys.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex

from dials_diffuse.algorithms.scaling.exclude_images import COLUMNS as OF_BATCHES
from dials_diffuse.algorithms.scaling.exclude_images import BatchExtents, ExcludedImages
from dials_diffuse.algorithms.scaling.observations import usable
from dials_diffuse.algorithms.scaling.partitions import total
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.large_function import through_file
from dials_diffuse.parallel import parallel_map
from dials_diffuse.partitioned_table import (
    GOOD_SIZE,
    MANIFEST,
    Part,
    PartitionedTable,
    finished_part,
    save_part,
    write_manifest,
)
from dials_diffuse.table_file import Columns

#: Keys by which a sorted partition tells how its observations are distributed.
MARKS = 256
KEY, FLAGS = "asu_key", "flags"
#: Attributes of the manifest: the first and last images of batches, and numbers of observations.
EXTENTS, EXCLUDED, LEFT_OUT = "batch_images", "excluded", "left_out"


@dataclass
class Regrouped:
    """The result.

    Attributes
    ----------
    table : PartitionedTable
        Its partitions hold whole voxels; ``flags`` tell which observations are of excluded images.
    extents : BatchExtents
        Of the batches.
    excluded, left_out : int
        Observations of excluded images, and those without response or beyond the grid, which are not in the table.
    """

    table: PartitionedTable
    extents: BatchExtents
    excluded: int
    left_out: int


def regroup(
    table: PartitionedTable,
    grid: GlobalGrid,
    mp: libtbx.phil.scope_extract | int,
    folder: Path,
    excluded: ExcludedImages | None = None,
) -> Regrouped:
    """Order observations by their voxels.

    Parameters
    ----------
    table : PartitionedTable
        Corrected or scaled observations, in any order.
    grid : GlobalGrid
        Voxels that its Laue group makes equivalent come together.
    mp : libtbx.phil.scope_extract or int
        The scope ``mp``.
    folder : Path
        Where the result is written, in a folder ``regrouped``, and what is only needed on the way. The workers see it.
        What an earlier run has finished there is not made again.
    excluded : dict, optional
        Images of which the observations get a flag.

    Raises
    ------
    Sorry
        If there are no observations, or the disk is full.
    """
    result = folder / "regrouped"
    if not (result / MANIFEST).exists():
        _regroup(table, grid, mp, folder, excluded or {}, result)
    regrouped = PartitionedTable(result)
    attributes = regrouped.attributes
    return Regrouped(regrouped, BatchExtents.from_json(attributes[EXTENTS]), attributes[EXCLUDED], attributes[LEFT_OUT])


def _regroup(
    table: PartitionedTable,
    grid: GlobalGrid,
    mp: libtbx.phil.scope_extract | int,
    folder: Path,
    excluded: ExcludedImages,
    result: Path,
) -> None:
    def run(function: Callable, tasks: Sequence, description: str) -> list:
        with through_file(function, folder, mp) as work:
            return list(parallel_map(work, tasks, mp, description))

    numbers = range(len(table.parts))
    extents = total(run(partial(_extents, table), numbers, "Batches"))
    ordered = folder / "sorted"
    for path in (ordered, result):
        path.mkdir(exist_ok=True)
    sorted_parts = run(partial(_sort, table, grid, extents, excluded, ordered), numbers, "Sorting")
    limits = _limits(sorted_parts)
    bounds = list(zip(range(len(limits) - 1), limits[:-1], limits[1:]))
    parts = run(partial(_gather, ordered, sorted_parts, result), bounds, "Grouping")
    counts = {name: sum(getattr(part, name) for part in sorted_parts) for name in (EXCLUDED, LEFT_OUT)}
    write_manifest(result, parts, table.identifiers, {"order": "voxel", EXTENTS: extents.to_json(), **counts})
    shutil.rmtree(ordered)


@dataclass
class _Sorted:
    """A sorted partition: its number, columns (name, type, shape of a row), and how its keys are distributed."""

    number: int
    rows: int
    columns: list[tuple[str, str, tuple[int, ...]]]
    marks: np.ndarray
    excluded: int
    left_out: int


def _extents(table: PartitionedTable, number: int) -> BatchExtents:
    return BatchExtents.of(table.read(number, [name for name in OF_BATCHES if name in table.columns]))


def _sort(
    table: PartitionedTable,
    grid: GlobalGrid,
    extents: BatchExtents,
    excluded: ExcludedImages,
    folder: Path,
    number: int,
) -> _Sorted:
    """Sort a partition by keys, and write its columns as they are in memory, for pieces of them will be read."""
    columns = table.read(number)
    if FLAGS not in columns:
        columns[FLAGS] = np.zeros(len(columns["id"]), dtype=np.int32)
    of_excluded = extents.rows(columns, excluded)
    columns[FLAGS][of_excluded] |= np.int32(flex.reflection_table.flags.user_excluded_in_scaling)
    key = grid.asu_keys(columns["miller_index"])
    rows = np.flatnonzero(usable(columns, key))
    rows = rows[np.argsort(key[rows], kind="stable")]
    key = key[rows]
    key.tofile(_file(folder, number, KEY))
    for name, column in columns.items():
        column[rows].tofile(_file(folder, number, name))
    marks = key[np.linspace(0, len(key) - 1, MARKS).astype(int)] if len(key) else key
    described = [(name, column.dtype.str, column.shape[1:]) for name, column in columns.items()]
    return _Sorted(
        number, len(rows), described, marks, int(np.count_nonzero(of_excluded)), len(of_excluded) - len(rows)
    )


def _limits(parts: list[_Sorted]) -> np.ndarray:
    """Keys between which about :data:`GOOD_SIZE` observations lie, the first below and the last above all."""
    rows = sum(part.rows for part in parts)
    marks = np.concatenate([part.marks for part in parts])
    weight = np.repeat([part.rows / MARKS for part in parts], [len(part.marks) for part in parts])
    order = np.argsort(marks, kind="stable")
    shares = np.arange(1, max(round(rows / GOOD_SIZE), 1)) * GOOD_SIZE
    inner = np.unique(marks[order][np.minimum(np.searchsorted(np.cumsum(weight[order]), shares), len(marks) - 1)])
    return np.concatenate([[-1], inner, [np.iinfo(np.int64).max]])


def _gather(folder: Path, parts: list[_Sorted], result: Path, task: tuple[int, int, int]) -> Part:
    """Write the partition of the keys from one limit to before the next."""
    number, low, high = task
    name = f"{number:06d}"
    if done := finished_part(result, name):
        return done[0]
    keys, slices = [], []
    for part in parts:
        of_part = np.memmap(_file(folder, part.number, KEY), dtype=np.int64, mode="r") if part.rows else np.empty(0)
        slices.append(slice(*np.searchsorted(of_part, (low, high))))
        keys.append(np.array(of_part[slices[-1]], dtype=np.int64))
        del of_part
    order = np.argsort(np.concatenate(keys), kind="stable")
    columns: Columns = {}
    for name_of_column, dtype, shape in parts[0].columns:
        pieces = [_piece(_file(folder, p.number, name_of_column), dtype, shape, s) for p, s in zip(parts, slices)]
        columns[name_of_column] = np.concatenate(pieces)[order]
    return save_part(result, name, columns)


def _piece(path: Path, dtype: str, shape: tuple[int, ...], rows: slice) -> np.ndarray:
    """Rows of a column; read, not mapped, for what is mapped counts as memory of the process."""
    width = int(np.prod(shape, dtype=int))
    size = np.dtype(dtype).itemsize * width
    count = (rows.stop - rows.start) * width
    return np.fromfile(path, dtype, count, offset=rows.start * size).reshape(-1, *shape)


def _file(folder: Path, number: int, name: str) -> Path:
    return folder / f"{number}-{name}.bin"
