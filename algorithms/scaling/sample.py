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
#: Observations of a voxel, at most: more voxels tell more than more of one.
OF_VOXEL = 16
#: Observations that a voxel does not have, for numbers of all.
MANY = 1_000_003
#: Bins of |q| that have as many of them each, where there are so many.
RADIAL_BINS = 50


@dataclass
class Sample:
    """Some of the voxels, k, with all their observations or some.

    Attributes
    ----------
    observations : GroupedObservations
    stands_for : ndarray, shape (k,)
        How many degrees of freedom each stands for by one: voxels times (all observations - 1) / (those here - 1), for
        what A is made of is a variance within the voxel.
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
    chosen, stands_for = zip(*partitions.map(partial(_chosen, grid, share, seed), "Sample"))
    return Sample(GroupedObservations.joined(chosen), np.concatenate(stands_for), False)


def _bins(grid: GlobalGrid, observations: GroupedObservations) -> np.ndarray:
    """Bin of |q| of each voxel, shape (m,)."""
    q = grid.q(observations.voxels)
    return np.minimum(q * grid.d_min * RADIAL_BINS, RADIAL_BINS - 1).astype(int)


def _observations_by_bin(grid: GlobalGrid, partition: Partition, observations: GroupedObservations) -> np.ndarray:
    return np.bincount(_bins(grid, observations), np.minimum(observations.multiplicity, OF_VOXEL), RADIAL_BINS)


def _chosen(
    grid: GlobalGrid, share: np.ndarray, seed: int, partition: Partition, observations: GroupedObservations
) -> tuple[GroupedObservations, np.ndarray]:
    """The sample's share of a partition, and what its voxels stand for."""
    key = grid.index2key(observations.voxels)
    voxels = observations.select(observations.spread(random_of_keys(key, seed) < share[_bins(grid, observations)]))
    some = voxels.select(_some(voxels, grid, seed + 1))
    stands_for = (voxels.multiplicity - 1) / (some.multiplicity - 1) / share[_bins(grid, some)]
    return some, stands_for


def _some(observations: GroupedObservations, grid: GlobalGrid, seed: int) -> np.ndarray:
    """OF_VOXEL observations of each voxel, drawn at random, the same ones in any order; shape (n,), bool."""
    voxel = observations.spread(np.arange(len(observations.voxels)))
    place = np.arange(len(voxel)) - observations.spread(observations.first[:-1])
    order = np.lexsort((*observations.position.T, observations.experiment, voxel))
    number = np.empty_like(place)
    number[order] = place
    keys = MANY * observations.spread(grid.index2key(observations.voxels)) + number
    chosen = np.empty(len(voxel), dtype=bool)
    chosen[np.lexsort((random_of_keys(keys, seed), voxel))] = place < OF_VOXEL
    return chosen
