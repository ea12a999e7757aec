"""An existing map as further observations, on whose scale everything is put."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import read_map

logger = logging.getLogger("dials.diffuse.scaling")

#: Relative difference of cell edges, and difference of angles in degrees, up to which cells are the same crystal's.
EDGES, ANGLES = 0.02, 1.0


def with_reference(
    observations: GroupedObservations, filename: str | os.PathLike, grid: GlobalGrid, experiment: int
) -> GroupedObservations:
    """Observations, not scaled, joined by one of every voxel of a map.

    A voxel of intensity I and variance s^2 in the map is as good as I k photons counted with the response k = E / s^2,
    E being I, but at least s: Poisson counts whose variance, for the intensity E, is k^2 s^2.

    Parameters
    ----------
    observations : GroupedObservations
    filename : path
        That ``dials.diffuse_merge`` wrote.
    grid : GlobalGrid
        Of the observations.
    experiment : int
        Number that the map's observations get.

    Raises
    ------
    Sorry
        If the map has other voxels, or none in common with the observations.
    """
    reference = read_map(filename)
    if reference.grid.ndiv != grid.ndiv or reference.grid.laue_group != grid.laue_group:
        ndiv, own_ndiv = (",".join(map(str, g.ndiv)) for g in (reference.grid, grid))
        raise Sorry(
            f"reference={filename} has ndiv={ndiv} and Laue group {reference.grid.laue_symbol}, these data {own_ndiv} "
            f"and {grid.laue_symbol}: extract them with that grid.ndiv, in that setting."
        )
    cells = [np.array(g.unit_cell.parameters()) for g in (reference.grid, grid)]
    difference = np.abs(cells[0] - cells[1])
    if (difference[:3] > EDGES * cells[1][:3]).any() or (difference[3:] > ANGLES).any():
        raise Sorry(f"reference={filename} has the unit cell {reference.grid.unit_cell}, these data {grid.unit_cell}.")
    measured = np.isfinite(reference.intensity) & (reference.intensity_errors > 0)
    h, k, l = np.nonzero(measured)
    index = np.stack(
        [np.rint(axis[i] * n) for axis, i, n in zip((reference.h, reference.k, reference.l), (h, k, l), grid.ndiv)],
        axis=1,
    ).astype(np.int32)
    intensity, error = (field[measured].astype(float) for field in (reference.intensity, reference.intensity_errors))
    inside = grid.contains(index)
    key, first = np.unique(grid.index2key(grid.map_to_asu(index[inside])), return_index=True)
    intensity, error = intensity[inside][first], error[inside][first]
    common = np.isin(key, grid.index2key(observations.voxels))
    if not common.any():
        raise Sorry(f"reference={filename} has no voxel in common with these data.")
    logger.info("Reference %s: %d voxels, %d of them in common with these data", filename, len(key), common.sum())
    key, intensity, error = key[common], intensity[common], error[common]
    response = np.maximum(intensity, error) / error**2
    n = len(key)
    added = {
        "rows": np.full(n, -1, dtype=observations.rows.dtype),
        "signal": response * intensity,
        "response": response,
        "noise": np.zeros(n),
        "experiment": np.full(n, experiment, dtype=np.int32),
        "panel": np.zeros(n, dtype=np.int32),
        "position": np.zeros((n, 3), dtype=np.float32),
    }
    place = observations.first[np.searchsorted(grid.index2key(observations.voxels), key)]
    joined = {name: np.insert(getattr(observations, name), place, values, axis=0) for name, values in added.items()}
    extra = np.zeros(len(observations.first), dtype=np.int64)
    extra[np.searchsorted(grid.index2key(observations.voxels), key) + 1] = 1
    return replace(observations, **joined, first=observations.first + np.cumsum(extra))
