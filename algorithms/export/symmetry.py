"""Equivalent voxels of a map: filled in, or left out but for one of them."""

from __future__ import annotations

import numpy as np
from numba import njit

from dials_diffuse.algorithms.maps.box import overlap
from dials_diffuse.algorithms.maps.equivalents import count_equivalents, inside, mate_of
from dials_diffuse.map_file import DiffuseMap


def expand(diffuse_map: DiffuseMap) -> DiffuseMap:
    """Give every voxel that was not measured the values of an equivalent one that was.

    Returns
    -------
    DiffuseMap
        In the box that holds all equivalent voxels; the map itself if it is expanded already.
    """
    measured = np.isfinite(diffuse_map.intensity)
    if is_expanded(measured, diffuse_map.lowest, diffuse_map.grid.rotations):
        return diffuse_map
    expanded = diffuse_map.with_voxels(*_listed(diffuse_map, _last_of_equivalents(diffuse_map)))
    source, target = overlap(diffuse_map.lowest, diffuse_map.shape, expanded.lowest, expanded.shape)
    for name, values in diffuse_map.fields.items():
        np.copyto(expanded.fields[name][target], values[source], where=measured[source])
    return expanded


def asymmetric_voxels(diffuse_map: DiffuseMap) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One measured voxel of every set of equivalent ones.

    Returns
    -------
    index : ndarray, shape (n, 3), int32
        In the asymmetric unit, as cctbx (and CCP4) choose it.
    columns : dict of str to ndarray, shape (n,)
        Their values in every field of the map.
    """
    index, columns = _listed(diffuse_map, _last_of_equivalents(diffuse_map))
    return diffuse_map.grid.map_to_asu(index), columns


def measured_voxels(diffuse_map: DiffuseMap) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All voxels that were measured, as :func:`asymmetric_voxels` gives them."""
    return _listed(diffuse_map, np.isfinite(diffuse_map.intensity))


def _listed(diffuse_map: DiffuseMap, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    index = np.argwhere(chosen).astype(np.int32) + diffuse_map.lowest.astype(np.int32)
    return index, {name: values[chosen] for name, values in diffuse_map.fields.items()}


def asymmetric_unit(diffuse_map: DiffuseMap) -> DiffuseMap:
    """The map of the asymmetric unit alone, empty elsewhere."""
    return diffuse_map.with_voxels(*asymmetric_voxels(diffuse_map), expand=False)


def _last_of_equivalents(diffuse_map: DiffuseMap) -> np.ndarray:
    """Of every set of equivalent voxels that were measured the last one, in the order of the array; bool."""
    return count_equivalents(np.isfinite(diffuse_map.intensity), diffuse_map.lowest, diffuse_map.grid.rotations) > 0


@njit(cache=True)
def is_expanded(measured, lowest, rotations):
    """Whether all voxels equivalent to a measured one, of an array of shape (nh, nk, nl), bool, are measured."""
    for i in range(measured.shape[0]):
        for j in range(measured.shape[1]):
            for k in range(measured.shape[2]):
                if measured[i, j, k]:
                    for rotation in rotations:
                        mate = mate_of(i, j, k, lowest, rotation)
                        if not (inside(mate, measured.shape) and measured[mate]):
                            return False
                        if mate > (i, j, k):
                            break  # it will be looked at from there
    return True
