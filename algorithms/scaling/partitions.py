"""Observations in partitions of whole voxels, in memory or on disk.

Whatever scaling and merging do with all observations they do partition by partition, and put together small results, in
the order of the partitions: the same for any number of workers, and for data of any size. What belongs to the
observations or voxels of one partition and is needed again stays with it, by name.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path
from typing import Protocol, TypeVar

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.observations import COLUMNS, GroupedObservations
from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy
from dials_diffuse.large_function import through_file
from dials_diffuse.parallel import number_of_processes, parallel_map
from dials_diffuse.partitioned_table import PartitionedTable, read_part
from dials_diffuse.random_numbers import random_of_keys

Result = TypeVar("Result")
Sums = TypeVar("Sums")

#: Observations in a partition of data in memory: what fits into a processor's cache.
IN_MEMORY = 50_000


class Partition(Protocol):
    """Some whole voxels with all their observations."""

    @property
    def observations(self) -> GroupedObservations:
        """Not scaled."""

    def column(self, name: str) -> np.ndarray:
        """A column of the reflection table for these observations, in their order; ``miller_index`` of shape (n, 3)."""

    def get(self, name: str) -> np.ndarray:
        """What was put by this name. Raises KeyError."""

    def put(self, name: str, values: np.ndarray) -> None:
        """Keep an array with the partition, in place of what had its name."""

    def drop(self, name: str) -> None:
        """Forget what was put by this name, if anything was."""


#: Turns a partition's observations into what is looked at: scaled ones, those that are kept, ...
View = Callable[[Partition, GroupedObservations], GroupedObservations]


@dataclass
class InMemory:
    """A partition in memory: views of arrays, and the reflection table that they come from, if there is one."""

    observations: GroupedObservations
    table: flex.reflection_table | None = None
    kept: dict[str, np.ndarray] = field(default_factory=dict)

    def column(self, name: str) -> np.ndarray:
        if name == "miller_index":
            chosen = flumpy.from_numpy(self.observations.rows.astype(np.uint64))
            return miller_index_to_numpy(self.table[name].select(chosen))
        return flumpy.to_numpy(self.table[name])[self.observations.rows]

    def get(self, name: str) -> np.ndarray:
        return self.kept[name]

    def put(self, name: str, values: np.ndarray) -> None:
        self.kept[name] = values

    def drop(self, name: str) -> None:
        self.kept.pop(name, None)


@dataclass
class OnDisk:
    """A partition of a table whose partitions hold whole voxels.

    Attributes
    ----------
    path : str
        File of the partition.
    number : int
        Of the partition.
    grid : GlobalGrid
    scratch : str
        A folder for what is kept with it.
    """

    path: str
    number: int
    grid: GlobalGrid
    scratch: str

    @property
    def observations(self) -> GroupedObservations:
        columns = self._read(*COLUMNS)
        try:
            rows, voxels, first = (self.get(name) for name in ("rows", "voxels", "first"))
        except KeyError:
            columns |= self._read("miller_index")
            grouped = GroupedObservations.from_columns(columns, self.grid)
            for name in ("voxels", "first", "rows"):
                self.put(name, getattr(grouped, name))
            return grouped
        return GroupedObservations.of_rows(columns, rows, voxels, first)

    def column(self, name: str) -> np.ndarray:
        return self._read(name)[name][self.get("rows")]

    def _read(self, *names: str) -> dict[str, np.ndarray]:
        return read_part(self.path, names)

    def get(self, name: str) -> np.ndarray:
        try:
            return np.load(self._path(name))
        except FileNotFoundError as error:
            raise KeyError(name) from error

    def put(self, name: str, values: np.ndarray) -> None:
        path = self._path(name)
        part = path.with_suffix(f".{os.getpid()}.part")
        with open(part, "wb") as handle:
            np.save(handle, values)
        os.replace(part, path)

    def drop(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return Path(self.scratch) / f"{self.number}-{name}.npy"


@dataclass
class VoxelPartitions:
    """All observations.

    Attributes
    ----------
    partitions : sequence of Partition
        In the order of the keys of their voxels.
    mp : libtbx.phil.scope_extract
        The scope ``mp``: how the work is divided.
    views : tuple of View
        What is looked at: applied to the observations of a partition one after the other.
    """

    partitions: Sequence[Partition]
    mp: libtbx.phil.scope_extract
    views: tuple[View, ...] = ()

    @classmethod
    def of(
        cls,
        observations: GroupedObservations,
        mp: libtbx.phil.scope_extract | int = 1,
        table: flex.reflection_table | None = None,
    ) -> VoxelPartitions:
        """Observations in memory, of a table if its columns will be asked for."""
        return cls([InMemory(part, table) for _, _, part in observations.parts(IN_MEMORY)], mp)

    @classmethod
    def of_table(
        cls, table: PartitionedTable, grid: GlobalGrid, mp: libtbx.phil.scope_extract, scratch: str | os.PathLike
    ) -> VoxelPartitions:
        """A table whose partitions hold whole voxels; ``scratch`` is an empty folder that the workers see."""
        numbers = range(len(table.parts))
        return cls([OnDisk(os.fspath(table.path(i)), i, grid, os.fspath(scratch)) for i in numbers], mp)

    @property
    def is_in_memory(self) -> bool:
        return not self.partitions or isinstance(self.partitions[0], InMemory)

    def viewed(self, *views: View) -> VoxelPartitions:
        """The same, looked at through further views (functions of modules or partials: they travel to processes)."""
        return replace(self, views=(*self.views, *views))

    def map(
        self, function: Callable[[Partition, GroupedObservations], Result], description: str = "Observations"
    ) -> Iterator[Result]:
        """``function(partition, observations)`` of every partition, in order, the observations being those that the
        views show; where they show none it is called all the same."""
        if not self.is_in_memory:
            look, scratch = partial(_look, self.views, function), self.partitions[0].scratch
            with through_file(look, scratch, self.mp) as work:
                yield from parallel_map(work, self.partitions, self.mp, description)
            return
        nproc = number_of_processes(self.mp, len(self.partitions))
        with ThreadPoolExecutor(nproc) as pool:
            look = partial(_look, self.views, function)
            for begin in range(0, len(self.partitions), 4 * nproc):
                yield from pool.map(look, self.partitions[begin : begin + 4 * nproc])

    def gather(self, choose: View | None = None, description: str = "Sample") -> GroupedObservations:
        """Observations as they are seen, or those that one more view shows, all in memory."""
        seen = self.viewed(choose) if choose else self
        return GroupedObservations.joined(list(seen.map(_as_they_are, description)))


def total(parts: Iterable[Sums]) -> Sums:
    """Sum of what can be added, in order."""
    return reduce(operator.add, parts)


def _look(views: Sequence[View], function: Callable, partition: Partition):
    observations = partition.observations
    for view in views:
        observations = view(partition, observations)
    return function(partition, observations)


def _as_they_are(partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    return observations


def number_of_observations(partition: Partition, observations: GroupedObservations) -> int:
    """How many a partition shows."""
    return len(observations)


def repeated(partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    """View: the voxels that were observed more than once."""
    return observations.repeated()


def random_voxels(
    partition: Partition, observations: GroupedObservations, grid: GlobalGrid, share: float, seed: int
) -> GroupedObservations:
    """View: a part of the voxels, the same however they are divided into partitions."""
    if share >= 1:
        return observations
    return observations.select(observations.spread(random_of_keys(grid.index2key(observations.voxels), seed) < share))
