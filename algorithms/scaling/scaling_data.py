"""Where the observations to scale are, and where what scaling finds of them is put: in memory or on disk."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Protocol

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.exclude_images import COLUMNS as OF_BATCHES
from dials_diffuse.algorithms.scaling.exclude_images import (
    BatchExtents,
    ExcludedImages,
    exclude_images,
    excluded_images,
    log_excluded,
)
from dials_diffuse.algorithms.scaling.linearised import FACTOR, CurrentModels
from dials_diffuse.algorithms.scaling.observations import NOTHING, SCALED_COLUMNS, GroupedObservations
from dials_diffuse.algorithms.scaling.outliers import REASON
from dials_diffuse.algorithms.scaling.partitions import OnDisk, Partition, VoxelPartitions
from dials_diffuse.algorithms.scaling.regroup import regroup
from dials_diffuse.dataset import Dataset, save_parts
from dials_diffuse.partitioned_table import Part, PartitionedTable, read_part, save_part, write_manifest
from dials_diffuse.work_folder import PARTS

logger = logging.getLogger("dials.diffuse.scaling")

#: Name by which partitions keep which observations lie in frames that fit badly: :data:`IN_RANGE`, and
#: :data:`IN_BATCH` where these are excluded as the user could have done.
BAD_FRAMES = "bad_frames"
IN_RANGE, IN_BATCH = 1, 2


class ScalingData(Protocol):
    """Observations that are to be scaled.

    Attributes
    ----------
    partitions : VoxelPartitions
        All but those of images that the user excludes.
    """

    partitions: VoxelPartitions

    def exclude(self, commands: list[list[str]]) -> ExcludedImages:
        """Exclude images from now on, as the user could have done; the scans take note."""

    @property
    def extents(self) -> BatchExtents:
        """Of the batches."""

    def finish(self) -> None:
        """Put what the partitions have been given, and what the models say, into the data set's observations."""


def used(partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    """View: without outliers, and without frames that fit badly."""
    good = np.ones(len(observations), dtype=bool)
    for name in (REASON, BAD_FRAMES):
        try:
            good &= partition.get(name) == 0
        except KeyError:
            pass
    return observations if good.all() else observations.select(good)


class DataInMemory:
    """Those of a table in memory."""

    def __init__(self, dataset: Dataset, params: libtbx.phil.scope_extract) -> None:
        self._dataset = dataset
        rows = exclude_images(dataset, params.exclude_images)
        grouped = GroupedObservations.from_dataset(dataset, ~rows)
        self.partitions = VoxelPartitions.of(grouped, params.mp, dataset.observations)

    def exclude(self, commands: list[list[str]]) -> ExcludedImages:
        exclude_images(self._dataset, commands)  # also the rows that no partition has
        return excluded_images(self._dataset.experiments, None)

    @property
    def extents(self) -> BatchExtents:
        table = self._dataset.observations
        return BatchExtents.of({name: flumpy.to_numpy(table[name]) for name in OF_BATCHES if name in table})

    def finish(self) -> None:
        apply_models(self._dataset)
        table = self._dataset.observations
        flags = flumpy.to_numpy(table["flags"])
        for partition in self.partitions.partitions:
            flags[partition.observations.rows] |= _flags(partition).astype(flags.dtype)


class DataOnDisk:
    """Those of a table on disk, or of one in memory that other machines are to work on.

    Parameters
    ----------
    folder : Path
        For what is needed on the way, and for the result.
    """

    def __init__(self, dataset: Dataset, params: libtbx.phil.scope_extract, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        excluded = excluded_images(dataset.experiments, params.exclude_images)
        table = as_partitions(dataset.observations, folder)
        self._regrouped = regroup(table, dataset.grid, params.mp, folder, excluded)
        log_excluded(self._regrouped.excluded, table.rows)
        if self._regrouped.left_out:
            logger.info("%d observations without response or beyond the grid are left out.", self._regrouped.left_out)
        if self._regrouped.table.rows <= self._regrouped.excluded:
            raise Sorry(NOTHING)
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # an earlier run's
        scratch.mkdir()
        partitions = VoxelPartitions.of_table(self._regrouped.table, dataset.grid, params.mp, scratch)
        self.partitions = partitions.viewed(not_excluded)

    @property
    def extents(self) -> BatchExtents:
        return self._regrouped.extents

    def exclude(self, commands: list[list[str]]) -> ExcludedImages:
        return excluded_images(self._dataset.experiments, commands)

    def finish(self) -> None:
        folder = self._folder / PARTS
        models = CurrentModels.of_experiments(self._dataset.experiments, self._dataset.grid)
        parts = list(self.partitions.map(partial(_write, folder, models), "Writing"))
        write_manifest(folder, parts, self._regrouped.table.identifiers, self._regrouped.table.attributes)
        self._dataset.observations = PartitionedTable(folder)


def as_partitions(table: PartitionedTable | flex.reflection_table, folder: Path) -> PartitionedTable:
    """A table as partitions on disk."""
    if isinstance(table, PartitionedTable):
        return table
    given = folder / "given"
    given.mkdir(exist_ok=True)
    return save_parts(table, given)


def not_excluded(partition: OnDisk, observations: GroupedObservations) -> GroupedObservations:
    """View: without the images that the user excluded."""
    excluded = partition.column("flags") & np.int32(flex.reflection_table.flags.user_excluded_in_scaling)
    return observations.select(excluded == 0) if excluded.any() else observations


def put_bad_frames(
    is_bad: partial, extents: BatchExtents, excluded: ExcludedImages, partition: Partition, observations
) -> int:
    """Note which observations are in ranges of frames (``is_bad``), or in batches that overlap excluded images."""
    bad = np.where(is_bad(observations), IN_RANGE, 0).astype(np.int8)
    columns = {"id": observations.experiment, "xyzobs.px.value": observations.position}
    if extents.images:
        of_partition = partition.column("batch")
        columns["batch"] = of_partition[np.isin(partition.observations.rows, observations.rows)]
    bad[extents.rows(columns, excluded)] |= IN_BATCH
    partition.put(BAD_FRAMES, bad)
    return int(np.count_nonzero(bad))


def _flags(partition: Partition) -> np.ndarray:
    """Flags of the observations that are looked at, shape (n,), int32."""
    flags = flex.reflection_table.flags
    found = np.zeros(len(partition.get(FACTOR)), dtype=np.int32)
    for name, values, flag in (
        (REASON, (1, 2, 3), flags.outlier_in_scaling),
        (BAD_FRAMES, (1, 2, 3), flags.excluded_for_scaling),
        (BAD_FRAMES, (2, 3), flags.user_excluded_in_scaling),
    ):
        try:
            found |= np.where(np.isin(partition.get(name), values), np.int32(flag), np.int32(0))
        except KeyError:
            pass
    return found


def _write(folder: Path, models: CurrentModels, partition: OnDisk, observations: GroupedObservations) -> Part:
    """The partition with its scales and flags, as a part of the result."""
    columns = read_part(partition.path)
    columns["flags"][observations.rows] |= _flags(partition)
    whole = partition.observations
    for name, values in zip(SCALED_COLUMNS, models.evaluate(whole)):
        columns[name] = np.empty(len(values))
        columns[name][whole.rows] = values
    return save_part(folder, Path(partition.path).stem, columns)
