"""Equivalent voxels of a map: one to stand for all, so that statistics count every measurement once.

In the functions that numba compiles, ``lowest`` is the voxel of an array's first element, shape (3,), int64, and
``rotations``, shape (operations, 3, 3), int64, are the matrices R by which voxels n and n R are equivalent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from dials_diffuse.map_file import DiffuseMap

#: Voxels of a temporary array.
SLAB = 4_000_000


@dataclass
class Representatives:
    """One voxel of every set of equivalent ones.

    Attributes
    ----------
    of : DiffuseMap
    position : tuple of 3 ndarray, shape (m,), int
        Places in the map's arrays.
    multiplicity : ndarray, shape (m,), int8
        How many voxels of the map it stands for, itself included.
    """

    of: DiffuseMap
    position: tuple[np.ndarray, np.ndarray, np.ndarray]
    multiplicity: np.ndarray

    @cached_property
    def index(self) -> np.ndarray:
        """Voxels, shape (m, 3), int32."""
        return np.stack([n + lowest for n, lowest in zip(self.position, self.of.lowest)], axis=1).astype(np.int32)

    @cached_property
    def q(self) -> np.ndarray:
        """|q| in 1/A, shape (m,)."""
        h, k, l = (axis[n] for axis, n in zip((self.of.h, self.of.k, self.of.l), self.position))
        orthogonal = np.array(self.of.grid.unit_cell.fractionalization_matrix()).reshape(3, 3)
        return np.sqrt(sum((h * a + k * b + l * c) ** 2 for a, b, c in orthogonal.T))

    def values(self, name: str = "intensity") -> np.ndarray:
        """Of a field, shape (m,), float64."""
        return self.of.fields[name][self.position].astype(float)

    def __len__(self) -> int:
        return len(self.multiplicity)


def representatives(diffuse_map: DiffuseMap, chosen: np.ndarray | None = None) -> Representatives:
    """One voxel of every set of equivalent ones.

    Parameters
    ----------
    diffuse_map : DiffuseMap
        Maps that hold the asymmetric unit alone will do.
    chosen : ndarray, shape (nh, nk, nl), bool, optional
        The voxels to look at; those with an intensity if None.
    """
    if chosen is None:
        chosen = np.isfinite(diffuse_map.intensity)
    multiplicity = count_equivalents(chosen, diffuse_map.lowest, diffuse_map.grid.rotations)
    position = np.nonzero(multiplicity)
    return Representatives(diffuse_map, position, multiplicity[position])


def slabs(diffuse_map: DiffuseMap) -> Iterator[slice]:
    """Planes of constant h, a few at a time, so that temporary arrays stay small."""
    planes = max(SLAB // (diffuse_map.shape[1] * diffuse_map.shape[2]), 1)
    for begin in range(0, diffuse_map.shape[0], planes):
        yield slice(begin, min(begin + planes, diffuse_map.shape[0]))


@njit(cache=True, nogil=True)
def rotated(h, k, l, rotation):
    """The voxel equivalent to (h, k, l) by an operation."""
    return (
        h * rotation[0, 0] + k * rotation[1, 0] + l * rotation[2, 0],
        h * rotation[0, 1] + k * rotation[1, 1] + l * rotation[2, 1],
        h * rotation[0, 2] + k * rotation[1, 2] + l * rotation[2, 2],
    )


@njit(cache=True, nogil=True)
def mate_of(i, j, k, lowest, rotation):
    """Place in an array of the voxel equivalent to the one at place (i, j, k)."""
    h, k, l = rotated(i + lowest[0], j + lowest[1], k + lowest[2], rotation)
    return h - lowest[0], k - lowest[1], l - lowest[2]


@njit(cache=True, nogil=True)
def inside(place, shape):
    """Whether a place lies in an array of a shape."""
    return 0 <= place[0] < shape[0] and 0 <= place[1] < shape[1] and 0 <= place[2] < shape[2]


@njit(cache=True, nogil=True)
def count_equivalents(chosen, lowest, rotations):
    """How many chosen voxels, shape (nh, nk, nl), bool, are equivalent: int8, at the last of them in the array's order.

    Elsewhere it is 0.
    """
    count = np.zeros(chosen.shape, dtype=np.int8)
    for i in range(chosen.shape[0]):
        for j in range(chosen.shape[1]):
            for k in range(chosen.shape[2]):
                if not chosen[i, j, k]:
                    continue
                images, itself = 0, 0
                for rotation in rotations:
                    mate = mate_of(i, j, k, lowest, rotation)
                    if inside(mate, chosen.shape) and chosen[mate]:
                        if mate > (i, j, k):
                            break
                        images += 1
                        itself += mate == (i, j, k)
                else:
                    count[i, j, k] = images // itself
    return count
