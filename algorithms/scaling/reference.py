"""An existing map as further observations, on whose scale everything is put."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions
from dials_diffuse.grid import SAME_CELL, GlobalGrid
from dials_diffuse.map_file import read_map

logger = logging.getLogger("dials.diffuse.scaling")


@dataclass
class Reference:
    """A voxel of intensity I and standard deviation s in a map, as photons that were counted.

    It is as good as I k photons with the response k = E / s^2, E being I, but at least s: Poisson counts whose
    variance, for the intensity E, is k^2 s^2.

    Attributes
    ----------
    filename : str
    grid : GlobalGrid
        Of the observations that it is to be joined to.
    key : ndarray, shape (r,)
        Of the voxels in the asymmetric unit, increasing.
    intensity, error : ndarray, shape (r,)
    """

    filename: str
    grid: GlobalGrid
    key: np.ndarray
    intensity: np.ndarray
    error: np.ndarray

    @classmethod
    def from_file(cls, filename: str | os.PathLike, grid: GlobalGrid) -> Reference:
        """Of a map that ``dials.diffuse_merge`` wrote.

        Raises
        ------
        Sorry
            If the map has other voxels, or another cell, than the observations.
        """
        reference = read_map(filename)
        if reference.grid.ndiv != grid.ndiv or reference.grid.laue_group != grid.laue_group:
            ndiv, own_ndiv = (",".join(map(str, g.ndiv)) for g in (reference.grid, grid))
            raise Sorry(
                f"reference={filename} has ndiv={ndiv} and Laue group {reference.grid.laue_symbol}, these data "
                f"{own_ndiv} and {grid.laue_symbol}: extract them with that grid.ndiv, in that setting."
            )
        if not reference.grid.unit_cell.is_similar_to(grid.unit_cell, *SAME_CELL):
            raise Sorry(
                f"reference={filename} has the unit cell {reference.grid.unit_cell}, these data {grid.unit_cell}."
            )
        measured = np.isfinite(reference.intensity) & (reference.intensity_errors > 0)
        h, k, l = np.nonzero(measured)
        index = np.stack(
            [np.rint(axis[i] * n) for axis, i, n in zip((reference.h, reference.k, reference.l), (h, k, l), grid.ndiv)],
            axis=1,
        ).astype(np.int32)
        inside = grid.contains(index)
        key, first = np.unique(grid.index2key(grid.map_to_asu(index[inside])), return_index=True)
        fields = (reference.intensity, reference.intensity_errors)
        intensity, error = (field[measured][inside][first].astype(float) for field in fields)
        return cls(str(filename), grid, key, intensity, error)

    def joined_to(self, partitions: VoxelPartitions, experiment: int) -> VoxelPartitions:
        """Observations, not scaled, joined by one of every voxel that they have in common with the map.

        Parameters
        ----------
        partitions : VoxelPartitions
        experiment : int
            Number that the map's observations get.

        Raises
        ------
        Sorry
            If no voxel is in common.
        """
        n = sum(partitions.map(partial(_in_common, self), "Reference"))
        if n == 0:
            raise Sorry(f"reference={self.filename} has no voxel in common with these data.")
        logger.info("Reference %s: %d voxels, %d of them in common with these data", self.filename, len(self.key), n)
        return partitions.viewed(partial(_joined, self, experiment))


def _in_common(reference: Reference, partition: Partition, observations: GroupedObservations) -> int:
    """Number of voxels in common."""
    return len(np.intersect1d(reference.key, reference.grid.index2key(observations.voxels), assume_unique=True))


def _joined(
    reference: Reference, experiment: int, partition: Partition, observations: GroupedObservations
) -> GroupedObservations:
    """View: joined by observations of the map."""
    own = reference.grid.index2key(observations.voxels)
    key, voxel, place = np.intersect1d(own, reference.key, assume_unique=True, return_indices=True)
    n, intensity, error = len(key), reference.intensity[place], reference.error[place]
    response = np.maximum(intensity, error) / error**2
    added = {
        "rows": np.full(n, -1, dtype=observations.rows.dtype),
        "signal": response * intensity,
        "response": response,
        "noise": np.zeros(n),
        "experiment": np.full(n, experiment, dtype=np.int32),
        "panel": np.zeros(n, dtype=np.int32),
        "position": np.zeros((n, 3), dtype=np.float32),
    }
    at = observations.first[voxel]
    joined = {name: np.insert(getattr(observations, name), at, values, axis=0) for name, values in added.items()}
    extra = np.zeros(len(observations.first), dtype=np.int64)
    extra[voxel + 1] = 1
    return replace(observations, **joined, first=observations.first + np.cumsum(extra))
