"""Half sets: the observations of every voxel divided into two parts that hold as much."""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.merging.groups import in_chunks
from dials_diffuse.algorithms.scaling.observations import GroupedObservations


def half_sets(kind: str, observations: GroupedObservations, groups: np.ndarray, seed: int) -> np.ndarray:
    """Divide observations into halves at random, groups being kept together.

    Parameters
    ----------
    kind : str
        Of :data:`dials_diffuse.algorithms.merging.groups.KINDS`. By ``observation`` and ``operation`` each voxel's
        groups are divided; by ``sweep`` whole sweeps, the same for all voxels, so that a half map shows what is wrong
        with its sweeps; by ``friedel`` the first half is the hand of the asymmetric unit.
    observations : GroupedObservations
    groups : ndarray, shape (n,), int
        Of :func:`dials_diffuse.algorithms.merging.groups.group_of_observations`.
    seed : int

    Returns
    -------
    ndarray, shape (n,), bool
        Which observations are in the first half.
    """
    generator = np.random.default_rng(seed)
    if kind == "friedel":
        return groups == 0
    if kind == "sweep":
        number = np.unique(groups, return_inverse=True)[1].ravel()
        response = np.bincount(number, observations.response)
        return _in_pairs(response, np.array([0, len(response)]), generator)[number]
    first_half = np.empty(len(observations.rows), dtype=bool)
    for _, rows, part, number, first in in_chunks(observations, groups):
        response = np.bincount(number, part.response)
        first_half[rows] = _in_pairs(response, first, generator)[number]
    return first_half


def _in_pairs(response: np.ndarray, first: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Halves of groups: bool, shape (groups,).

    The groups of a voxel (``first`` as in in_chunks) are paired in the order of their response, and each pair is
    divided by a toss: where halves are unequal they correlate less. The response knows nothing of what was counted.
    """
    voxel = np.repeat(np.arange(len(first) - 1), np.diff(first))
    order = np.lexsort((-response, voxel))
    rank = np.arange(len(order)) - first[voxel]
    toss = generator.random(len(order)) < 0.5
    leader = np.arange(len(order)) - rank % 2
    halves = np.empty(len(order), dtype=bool)
    halves[order] = (rank % 2 == 0) ^ toss[leader]
    return halves
