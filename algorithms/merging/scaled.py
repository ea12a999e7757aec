"""Scaled observations in partitions, from memory or from disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial

import numpy as np
from dials.array_family import flex

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.observations import (
    SCALED_COLUMNS,
    GroupedObservations,
    error_model_of,
    scaled_observations,
)
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions
from dials_diffuse.dataset import Dataset
from dials_diffuse.parallel import Mp

#: Flags of what is not merged.
REJECTED = int(flex.reflection_table.flags.bad_for_scaling)


@contextlib.contextmanager
def scaled_partitions(dataset: Dataset, mp: Mp, folder: str | os.PathLike) -> Iterator[VoxelPartitions]:
    """The observations of a scaled data set, without those that scaling rejected, with its error model.

    Parameters
    ----------
    dataset : Dataset
        Voxels are those of its grid.
    mp : libtbx.phil.scope_extract, int or libtbx.Auto
    folder : path
        For temporary files, if the observations are on disk; the workers must see it.

    Raises
    ------
    Sorry
        If there are none, and they are in memory; if temporary files cannot be written.
    """
    table = dataset.observations
    if isinstance(table, flex.reflection_table):
        yield VoxelPartitions.of(scaled_observations(dataset), mp, table)
        return
    from dials_diffuse.algorithms.scaling.regroup import regroup
    from dials_diffuse.work_folder import temporary_folder

    with temporary_folder(folder) as work:
        if table.attributes.get("order") != "voxel":
            table = regroup(table, dataset.grid, mp, work).table
        scratch = work / "scratch"
        scratch.mkdir()
        whole = VoxelPartitions.of_table(table, dataset.grid, mp, scratch)
        yield whole.viewed(partial(_scaled, error_model_of(dataset.experiments)))


def _scaled(error_model: ErrorModel, partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    """View: what is to be merged."""
    factor, offset = (partition.column(name) for name in SCALED_COLUMNS[:2])
    return observations.scaled(factor, offset, error_model).select(_kept(partition))


def column_of(partition: Partition, name: str) -> np.ndarray:
    """A column for the observations that :func:`scaled_partitions` shows of a partition."""
    return partition.column(name)[_kept(partition)]


def _kept(partition: Partition) -> np.ndarray:
    return partition.column("flags") & REJECTED == 0
