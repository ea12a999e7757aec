"""The box of voxels that a map's arrays cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import FIELDS, DiffuseMap

#: Value of a voxel that was not measured, by field, of the field's type.
EMPTY = {name: np.full(1, empty, dtype)[0] for name, dtype, empty, _ in FIELDS}


def in_box(
    diffuse_map: DiffuseMap, fields: dict[str, np.ndarray], first: Sequence[int], grid: GlobalGrid | None = None
) -> DiffuseMap:
    """A map with other fields, whose first element is the voxel ``first`` (of another grid, if there is one)."""
    grid = grid or diffuse_map.grid
    shape = fields["intensity"].shape
    h, k, l = ((begin + np.arange(n)) / ndiv for begin, n, ndiv in zip(first, shape, grid.ndiv))
    return replace(diffuse_map, grid=grid, h=h, k=k, l=l, fields=fields)


def from_voxels(
    diffuse_map: DiffuseMap, index: np.ndarray, columns: dict[str, np.ndarray], grid: GlobalGrid | None = None
) -> DiffuseMap:
    """A map of some voxels (of another grid, if there is one), empty elsewhere.

    Parameters
    ----------
    diffuse_map : DiffuseMap
        What it is a part of.
    index : ndarray, shape (n, 3), int
        One voxel at least.
    columns : dict of str to ndarray, shape (n,)
        Their values by field.
    grid : GlobalGrid, optional
    """
    first = index.min(axis=0)
    shape = tuple(index.max(axis=0) - first + 1)
    position = tuple((index - first).T)
    fields = {}
    for name, values in columns.items():
        fields[name] = np.full(shape, EMPTY[name])
        fields[name][position] = values
    return in_box(diffuse_map, fields, first, grid)


def extent(present: np.ndarray) -> list[tuple[int, int]]:
    """First and last places along each axis where a boolean array of three axes is true; (0, -1) if it nowhere is."""
    found = [np.flatnonzero(present.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(int(places[0]), int(places[-1])) if len(places) else (0, -1) for places in found]
