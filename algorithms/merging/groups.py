"""What observations of a voxel have in common: the groups that are kept together when parts of the data are compared.

- ``observation``: nothing; each stands for itself. What counting alone makes differ.
- ``sweep``: the experiment (a sweep, a lattice, a still). Differs besides by the scales, the crystal, its damage.
- ``operation``: the voxel seen before symmetry was applied. Differs besides if the Laue group is wrong, and by what
  depends on place: absorption, background, detector.
- ``friedel``: the hand. Mates by rotations are one group, those by inversion the other. Differs besides by anomalous
  scattering. Voxels that a rotation takes to their own Friedel mate have one group only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from dials.util import Sorry
from numba import njit

from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.grid import GlobalGrid

KINDS = ("observation", "sweep", "operation", "friedel")


def possible_kinds(grid: GlobalGrid, n_sweeps: int) -> list[str]:
    """Those of :data:`KINDS` of which data of so many sweeps have more than one group in a voxel, or could have."""
    several = {
        "observation": True,
        "sweep": n_sweeps > 1,
        "operation": grid.equivalence_group.order_p() > 1,
        "friedel": not grid.friedel_apart and not grid.space_group.is_centric(),
    }
    return [kind for kind in KINDS if several[kind]]


def check_kind(kind: str, grid: GlobalGrid, n_sweeps: int) -> None:
    """See that the data can be divided into half sets of a kind.

    Raises
    ------
    Sorry
        If not, with the reason.
    """
    if kind not in possible_kinds(grid, n_sweeps):
        reason = {
            "sweep": "there is one experiment only",
            "operation": f"no two voxels are equivalent in point group {grid.equivalence_group.info()}",
            "friedel": "Friedel mates are not merged with each other"
            if grid.friedel_apart
            else f"space group {grid.space_group.info()} is centrosymmetric",
        }[kind]
        raise Sorry(f"merging.halves={kind}: {reason}; choose another kind of half sets.")


def group_of_observations(
    kind: str, grid: GlobalGrid, observations: GroupedObservations, own: np.ndarray
) -> np.ndarray:
    """A number for each observation that it shares with those of the same voxel in its group.

    Parameters
    ----------
    kind : str
        Of :data:`KINDS`.
    grid : GlobalGrid
    observations : GroupedObservations
    own : ndarray, shape (n, 3), int
        The voxels that they saw, before symmetry was applied.

    Returns
    -------
    ndarray, shape (n,), int64
        For ``friedel`` 0 for the hand of the voxel in the asymmetric unit, 1 for the other.
    """
    if kind == "observation":
        return np.arange(len(observations))
    if kind == "sweep":
        return observations.experiment.astype(np.int64)
    if kind == "operation":
        return grid.index2key(own)
    voxels = observations.spread(np.arange(len(observations.voxels)))
    return 1 - _is_rotated(own, observations.voxels, voxels, replace(grid, friedel_apart=True).rotations)


@njit(cache=True, nogil=True)
def _is_rotated(own: np.ndarray, voxels: np.ndarray, number: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Whether a rotation takes each of n indices to the voxel of that number; 0 or 1, shape (n,), int64."""
    found = np.zeros(len(own), dtype=np.int64)
    for i in range(len(own)):
        h, k, l = own[i]
        wanted = voxels[number[i]]
        for r in rotations:
            if (
                h * r[0, 0] + k * r[1, 0] + l * r[2, 0] == wanted[0]
                and h * r[0, 1] + k * r[1, 1] + l * r[2, 1] == wanted[1]
                and h * r[0, 2] + k * r[1, 2] + l * r[2, 2] == wanted[2]
            ):
                found[i] = 1
                break
    return found


def number_groups(observations: GroupedObservations, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the groups of voxels.

    Returns
    -------
    number : ndarray, shape (n,), int64
        The group of each observation, counted from 0, voxel by voxel and in the order of ``groups``.
    first : ndarray, shape (m + 1,), int64
        Groups of voxel v are ``first[v]`` to ``first[v + 1] - 1``.
    """
    voxel = observations.spread(np.arange(len(observations.voxels)))
    starts = voxel[1:] != voxel[:-1]
    if (starts | (groups[1:] >= groups[:-1])).all():  # in order, as sweeps and single observations are
        order = slice(None)
    else:
        order = np.lexsort((groups, voxel))
    ordered = groups[order]
    new = np.concatenate([[True], starts | (ordered[1:] != ordered[:-1])])
    number = np.empty(len(groups), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    in_voxel = np.add.reduceat(new.astype(np.int64), observations.first[:-1])
    return number, np.concatenate([[0], np.cumsum(in_voxel)])
