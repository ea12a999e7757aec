"""Half sets: the observations of every voxel divided into two parts that hold as much.

Tosses belong to voxels and the places of their groups, by response, and ties are broken by position: half sets are the
same in whatever order, and in whatever parts, the observations are kept.
"""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.merging.groups import number_groups
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.random_numbers import random_of_keys


def half_sets(
    kind: str,
    grid: GlobalGrid,
    observations: GroupedObservations,
    groups: np.ndarray,
    sweeps: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Divide observations into halves at random, groups being kept together.

    Parameters
    ----------
    kind : str
        Of :data:`dials_diffuse.algorithms.merging.groups.KINDS`. By ``observation`` and ``operation`` each voxel's
        groups are divided; by ``sweep`` whole sweeps, the same for all voxels, so that a half map shows what is wrong
        with its sweeps; by ``friedel`` the first half is the hand of the asymmetric unit.
    grid : GlobalGrid
    observations : GroupedObservations
    groups : ndarray, shape (n,), int
        Of :func:`dials_diffuse.algorithms.merging.groups.group_of_observations`.
    sweeps : ndarray, shape (experiments,), bool
        Of :func:`sweeps_in_first_half`.
    seed : int

    Returns
    -------
    ndarray, shape (n,), bool
        Which observations are in the first half.
    """
    if kind == "friedel":
        return groups == 0
    if kind == "sweep":
        return sweeps[groups]
    number, first = number_groups(observations, groups)
    ties = (observations.experiment, *observations.position.T) if kind == "observation" else ()
    response = np.bincount(number, observations.response)
    return _in_pairs(response, first, grid.index2key(observations.voxels), ties, seed)[number]


def sweeps_in_first_half(response: np.ndarray, seed: int) -> np.ndarray:
    """Halves of experiments by their total response, both shape (experiments,): bool."""
    return _in_pairs(response, np.array([0, len(response)]), np.zeros(1, dtype=np.int64), (), seed)


def _in_pairs(response: np.ndarray, first: np.ndarray, keys: np.ndarray, ties: tuple, seed: int) -> np.ndarray:
    """Halves of groups: bool, shape (groups,).

    The groups of a voxel (``first`` as of number_groups) are paired in the order of their response, and each pair is
    divided by a toss: where halves are unequal they correlate less. The response knows nothing of what was counted.
    """
    voxel = np.repeat(np.arange(len(first) - 1), np.diff(first))
    order = np.lexsort((-response, voxel))
    if ties and ((np.diff(response[order]) == 0) & (np.diff(voxel) == 0)).any():
        order = np.lexsort((*ties, -response, voxel))
    rank = np.arange(len(order)) - first[voxel]
    toss = random_of_keys((keys[voxel] << 32) + rank // 2, seed) < 0.5  # the pair in the voxel
    halves = np.empty(len(order), dtype=bool)
    halves[order] = (rank % 2 == 0) ^ toss
    return halves
