"""Equivalent voxels of a map: filled in, or left out but for one of them."""

from __future__ import annotations

import numpy as np
from numba import njit

from dials_diffuse.algorithms.export.box import EMPTY, from_voxels, in_box
from dials_diffuse.map_file import DiffuseMap


def expand(diffuse_map: DiffuseMap) -> DiffuseMap:
    """Give every voxel that was not measured the values of an equivalent one that was.

    Returns
    -------
    DiffuseMap
        In the box that holds all equivalent voxels; the map itself if it is expanded already.
    """
    measured = np.isfinite(diffuse_map.intensity)
    lowest, rotations = diffuse_map.lowest, diffuse_map.grid.rotations
    if is_expanded(measured, lowest, rotations):
        return diffuse_map
    begin, end = _bounds(measured, lowest, rotations)
    source = _sources(measured, lowest, rotations, begin, end)
    fields = {
        name: np.where(source >= 0, values.reshape(-1)[source], EMPTY[name])
        for name, values in diffuse_map.fields.items()
    }
    return in_box(diffuse_map, fields, begin)


def asymmetric_voxels(diffuse_map: DiffuseMap) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One measured voxel of every set of equivalent ones.

    Returns
    -------
    index : ndarray, shape (n, 3), int32
        In the asymmetric unit, as cctbx (and CCP4) choose it.
    columns : dict of str to ndarray, shape (n,)
        Their values in every field of the map.
    """
    chosen = representatives(np.isfinite(diffuse_map.intensity), diffuse_map.lowest, diffuse_map.grid.rotations)
    index, columns = _listed(diffuse_map, chosen)
    return diffuse_map.grid.map_to_asu(index), columns


def measured_voxels(diffuse_map: DiffuseMap) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All voxels that were measured, as :func:`asymmetric_voxels` gives them."""
    return _listed(diffuse_map, np.isfinite(diffuse_map.intensity))


def _listed(diffuse_map: DiffuseMap, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    index = np.argwhere(chosen).astype(np.int32) + diffuse_map.lowest.astype(np.int32)
    return index, {name: values[chosen] for name, values in diffuse_map.fields.items()}


def asymmetric_unit(diffuse_map: DiffuseMap) -> DiffuseMap:
    """The map of the asymmetric unit alone, empty elsewhere."""
    return from_voxels(diffuse_map, *asymmetric_voxels(diffuse_map))


@njit(cache=True)
def rotated(h, k, l, rotation):
    """The voxel equivalent to (h, k, l) by an operation."""
    return (
        h * rotation[0, 0] + k * rotation[1, 0] + l * rotation[2, 0],
        h * rotation[0, 1] + k * rotation[1, 1] + l * rotation[2, 1],
        h * rotation[0, 2] + k * rotation[1, 2] + l * rotation[2, 2],
    )


@njit(cache=True)
def mate_of(i, j, k, lowest, rotation):
    """Place, in an array whose first voxel is ``lowest``, of the voxel equivalent to the one at place (i, j, k)."""
    h, k, l = rotated(i + lowest[0], j + lowest[1], k + lowest[2], rotation)
    return h - lowest[0], k - lowest[1], l - lowest[2]


@njit(cache=True)
def inside(place, shape):
    """Whether a place lies in an array of a shape."""
    return 0 <= place[0] < shape[0] and 0 <= place[1] < shape[1] and 0 <= place[2] < shape[2]


@njit(cache=True)
def representatives(measured, lowest, rotations):
    """Measured voxels after which, in the order of the array, none equivalent to them is measured; bool."""
    chosen = measured.copy()
    for i in range(measured.shape[0]):
        for j in range(measured.shape[1]):
            for k in range(measured.shape[2]):
                if measured[i, j, k]:
                    for rotation in rotations:
                        mate = mate_of(i, j, k, lowest, rotation)
                        if mate > (i, j, k) and inside(mate, measured.shape) and measured[mate]:
                            chosen[i, j, k] = False
                            break
    return chosen


@njit(cache=True)
def is_expanded(measured, lowest, rotations):
    """Whether all voxels equivalent to a measured one are measured.

    Parameters
    ----------
    measured : ndarray, shape (nh, nk, nl), bool
    lowest : ndarray, shape (3,), int64
        The voxel of its first element.
    rotations : ndarray, shape (operations, 3, 3), int64
    """
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


@njit(cache=True)
def _bounds(measured, lowest, rotations):
    """First and last voxel, along each axis, of all that are equivalent to measured ones; shape (3,), int64, twice."""
    begin, end = np.full(3, np.iinfo(np.int64).max), np.full(3, np.iinfo(np.int64).min)
    for i in range(measured.shape[0]):
        for j in range(measured.shape[1]):
            for k in range(measured.shape[2]):
                if measured[i, j, k]:
                    for rotation in rotations:
                        mate = mate_of(i, j, k, lowest, rotation)
                        for axis in range(3):
                            begin[axis] = min(begin[axis], mate[axis] + lowest[axis])
                            end[axis] = max(end[axis], mate[axis] + lowest[axis])
    return begin, end


@njit(cache=True)
def _sources(measured, lowest, rotations, begin, end):
    """Where, in the flat array of ``measured``, the voxels of a box find their values; int64, -1 nowhere."""
    source = np.full((end[0] - begin[0] + 1, end[1] - begin[1] + 1, end[2] - begin[2] + 1), -1)
    shift = lowest - begin
    chosen = representatives(measured, lowest, rotations)
    for i in range(measured.shape[0]):
        for j in range(measured.shape[1]):
            for k in range(measured.shape[2]):
                flat = (i * measured.shape[1] + j) * measured.shape[2] + k
                if measured[i, j, k]:
                    source[i + shift[0], j + shift[1], k + shift[2]] = flat
                if chosen[i, j, k]:
                    for rotation in rotations:
                        a, b, c = mate_of(i, j, k, lowest, rotation)
                        place = (a + shift[0], b + shift[1], c + shift[2])
                        within = inside((a, b, c), measured.shape)
                        if not (within and measured[a, b, c]):
                            source[place] = flat
    return source
