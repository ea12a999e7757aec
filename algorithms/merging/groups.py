"""What observations of a voxel have in common: the groups that are kept together when parts of the data are compared.

- ``observation``: nothing; each stands for itself. What counting alone makes differ.
- ``sweep``: the experiment (a sweep, a lattice, a still). Differs besides by the scales, the crystal, its damage.
- ``operation``: the voxel seen before symmetry was applied. Differs besides if the Laue group is wrong, and by what
  depends on place: absorption, background, detector.
- ``friedel``: the hand. Mates by rotations are one group, those by inversion the other. Differs besides by anomalous
  scattering. Voxels that a rotation takes to their own Friedel mate have one group only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from dials.util import Sorry
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy

KINDS = ("observation", "sweep", "operation", "friedel")


def possible_kinds(dataset: Dataset, observations: GroupedObservations) -> list[str]:
    """Those of :data:`KINDS` of which these data have more than one group in a voxel, or could have."""
    grid = dataset.grid
    several = {
        "observation": True,
        "sweep": bool((observations.experiment != observations.experiment[0]).any()),
        "operation": grid.equivalence_group.order_p() > 1,
        "friedel": not grid.friedel_apart and not grid.space_group.is_centric(),
    }
    return [kind for kind in KINDS if several[kind]]


def check_kind(kind: str, dataset: Dataset, observations: GroupedObservations) -> None:
    """See that the data can be divided into half sets of a kind.

    Raises
    ------
    Sorry
        If not, with the reason.
    """
    if kind not in possible_kinds(dataset, observations):
        reason = {
            "sweep": "there is one experiment only",
            "operation": f"no two voxels are equivalent in point group {dataset.grid.equivalence_group.info()}",
            "friedel": "Friedel mates are not merged with each other"
            if dataset.grid.friedel_apart
            else f"space group {dataset.grid.space_group.info()} is centrosymmetric",
        }[kind]
        raise Sorry(f"merging.halves={kind}: {reason}; choose another kind of half sets.")


def group_of_observations(kind: str, dataset: Dataset, observations: GroupedObservations) -> np.ndarray:
    """A number for each observation that it shares with those of the same voxel in its group.

    Parameters
    ----------
    kind : str
        Of :data:`KINDS`.
    dataset : Dataset
        That the observations are of.
    observations : GroupedObservations

    Returns
    -------
    ndarray, shape (n,), int64
        For ``friedel`` 0 for the hand of the voxel in the asymmetric unit, 1 for the other.
    """
    if kind == "observation":
        return np.arange(len(observations.rows))
    if kind == "sweep":
        return observations.experiment.astype(np.int64)
    grid = dataset.grid
    apart = replace(grid, friedel_apart=True)
    groups = np.empty(len(observations.rows), dtype=np.int64)
    indices = dataset.observations["miller_index"].select(flumpy.from_numpy(observations.rows.astype(np.uint64)))
    for voxels, chosen in observations.chunks():
        own = miller_index_to_numpy(indices[chosen])
        if kind == "operation":
            groups[chosen] = grid.index2key(own)
        else:
            voxel = np.repeat(observations.voxels[voxels], observations.multiplicity[voxels], axis=0)
            groups[chosen] = (apart.map_to_asu(own) != voxel).any(axis=1)
    return groups


def in_chunks(
    observations: GroupedObservations, groups: np.ndarray
) -> Iterator[tuple[slice, slice, GroupedObservations, np.ndarray, np.ndarray]]:
    """Chunks of whole voxels, with their groups numbered.

    Yields
    ------
    voxels, rows : slice
        Of voxels and observations.
    part : GroupedObservations
        These alone, as views.
    number : ndarray, shape (observations of the chunk,), int64
        The group of each observation, counted from 0 through the chunk, voxel by voxel.
    first : ndarray, shape (voxels of the chunk + 1,), int64
        Groups of voxel v are ``first[v]`` to ``first[v + 1] - 1``.
    """
    for voxels, rows, part in observations.parts():
        number, first = _number(part, groups[rows])
        yield voxels, rows, part, number, first


def _number(part: GroupedObservations, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the groups in voxels, and where those of each voxel begin."""
    voxel = part.spread(np.arange(len(part.voxels)))
    order = np.lexsort((groups, voxel))
    ordered = groups[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]) | (voxel[1:] != voxel[:-1])])  # voxel is in order
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    in_voxel = np.add.reduceat(new.astype(np.int64), part.first[:-1])
    return number, np.concatenate([[0], np.cumsum(in_voxel)])
