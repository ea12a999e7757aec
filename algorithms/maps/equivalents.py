"""Equivalent voxels of a map: one to stand for all, so that statistics count every measurement once."""

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
def count_equivalents(chosen, lowest, rotations):
    """How many chosen voxels are equivalent, at the last of them in the array's order; 0 elsewhere.

    Parameters
    ----------
    chosen : ndarray, shape (nh, nk, nl), bool
    lowest : ndarray, shape (3,), int64
        The voxel of the first element.
    rotations : ndarray, shape (operations, 3, 3), int64
        Voxels n and n R are equivalent.

    Returns
    -------
    ndarray, shape (nh, nk, nl), int8
    """
    nh, nk, nl = chosen.shape
    count = np.zeros(chosen.shape, dtype=np.int8)
    for i in range(nh):
        for j in range(nk):
            for m in range(nl):
                if not chosen[i, j, m]:
                    continue
                h, k, l = i + lowest[0], j + lowest[1], m + lowest[2]
                own = (i * nk + j) * nl + m
                last, images, itself = True, 0, 0
                for r in range(len(rotations)):
                    a = h * rotations[r, 0, 0] + k * rotations[r, 1, 0] + l * rotations[r, 2, 0] - lowest[0]
                    b = h * rotations[r, 0, 1] + k * rotations[r, 1, 1] + l * rotations[r, 2, 1] - lowest[1]
                    c = h * rotations[r, 0, 2] + k * rotations[r, 1, 2] + l * rotations[r, 2, 2] - lowest[2]
                    if 0 <= a < nh and 0 <= b < nk and 0 <= c < nl and chosen[a, b, c]:
                        key = (a * nk + b) * nl + c
                        if key > own:
                            last = False
                            break
                        images += 1
                        itself += key == own
                if last:
                    count[i, j, m] = images // itself
    return count
