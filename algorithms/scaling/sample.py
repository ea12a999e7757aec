"""A sample of the voxels: what needs no more than a part of the observations is taken from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.random_numbers import random_of_keys

#: Observations in it, at least, and for each parameter.
OBSERVATIONS, OBSERVATIONS_EACH = 300_000, 60
#: Bins of |q| that have as many of them each, where there are so many.
RADIAL_BINS = 50


@dataclass
class Sample:
    """Some of the voxels, k, with all their observations.

    Attributes
    ----------
    observations : GroupedObservations
    stands_for : ndarray, shape (k,)
        How many voxels each stands for.
    is_all : bool
    """

    observations: GroupedObservations
    stands_for: np.ndarray
    is_all: bool


def choose_sample(
    partitions: VoxelPartitions, n_observations: int, grid: GlobalGrid, n_parameters: int, seed: int
) -> Sample:
    """Voxels at random, with as many observations at every |q|, so that what few voxels tell is not left out.

    All of them if the sample would be half of the observations, which are ``n_observations``.
    """
    wanted = max(OBSERVATIONS, OBSERVATIONS_EACH * n_parameters)
    if wanted > 0.5 * n_observations:
        every = partitions.gather()
        return Sample(every, np.ones(len(every.voxels)), True)
    held = sum(partitions.map(partial(_observations_by_bin, grid)))
    share = np.minimum(wanted / RADIAL_BINS / np.maximum(held, 1), 1)
    chosen = partitions.gather(partial(_chosen, grid, share, seed))
    return Sample(chosen, 1 / share[_bins(grid, chosen)], False)


def _bins(grid: GlobalGrid, observations: GroupedObservations) -> np.ndarray:
    """Bin of |q| of each voxel, shape (m,)."""
    q = grid.q(observations.voxels)
    return np.minimum(q * grid.d_min * RADIAL_BINS, RADIAL_BINS - 1).astype(int)


def _observations_by_bin(grid: GlobalGrid, partition: Partition, observations: GroupedObservations) -> np.ndarray:
    return np.bincount(_bins(grid, observations), observations.multiplicity, RADIAL_BINS)


def _chosen(
    grid: GlobalGrid, share: np.ndarray, seed: int, partition: Partition, observations: GroupedObservations
) -> GroupedObservations:
    inside = random_of_keys(grid.index2key(observations.voxels), seed) < share[_bins(grid, observations)]
    return observations.select(observations.spread(inside))
