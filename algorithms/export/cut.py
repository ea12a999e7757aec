"""A part of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.box import EMPTY, extent, moved
from dials_diffuse.map_file import DiffuseMap

#: Voxels of the largest map that is made: 37 bytes each.
LARGEST = 2**31 - 1


def cut(
    diffuse_map: DiffuseMap,
    ranges: Sequence[Sequence[float] | None] = (None, None, None),
    d_min: float | None = None,
    d_max: float | None = None,
) -> DiffuseMap:
    """Voxels within limits.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    ranges : sequence of 3 pairs of float or None
        Lowest and highest h, k, l of the box of the result, inclusive. It is just that, also where it goes beyond what
        was measured; where None, it is as small as holds all that was measured.
    d_min, d_max : float, optional
        Limits in Angstrom: voxels whose centres lie outside become unmeasured.

    Returns
    -------
    DiffuseMap
        The map itself if there are no limits.

    Raises
    ------
    Sorry
        If no voxel is left, or too many would be.
    """
    if d_min is None and d_max is None and all(limits is None for limits in ranges):
        return diffuse_map
    kept = np.isfinite(diffuse_map.intensity) & _within(diffuse_map, d_min, d_max)
    bounds = [
        (first, last) if limits is None else _places(limits, int(low), ndiv)
        for limits, (first, last), low, ndiv in zip(ranges, extent(kept), diffuse_map.lowest, diffuse_map.grid.ndiv)
    ]
    shape = [last - first + 1 for first, last in bounds]
    if np.prod(shape, dtype=float) > LARGEST:
        raise Sorry(
            f"The ranges of h, k, l make {' x '.join(map(str, shape))} voxels, which are too many: narrow them."
        )
    lowest = diffuse_map.lowest
    first = lowest + [place for place, _ in bounds]
    empty = ~moved(kept, lowest, first, shape, False)
    if empty.all():
        raise Sorry("No measured voxel lies within the limits of h, k, l and d: widen them.")
    fields = {}
    for name, values in diffuse_map.fields.items():
        fields[name] = moved(values, lowest, first, shape, EMPTY[name])
        fields[name][empty] = EMPTY[name]
    grid = diffuse_map.grid
    if d_min is not None and d_min > grid.d_min:
        grid = replace(grid, d_min=d_min)
    return replace(diffuse_map, grid=grid, fields=fields, **dict(zip("hkl", grid.axes(first, shape))))


def _within(diffuse_map: DiffuseMap, d_min: float | None, d_max: float | None) -> np.ndarray:
    """Voxels whose centres lie within limits of d: bool."""
    if d_min is None and d_max is None:
        return np.ones(1, dtype=bool)
    q = diffuse_map.q()
    margin = np.float32(1e-6)  # of q in single precision
    within = np.ones(q.shape, dtype=bool)
    if d_min is not None:
        within &= q <= (1 + margin) / d_min
    if d_max is not None:
        within &= q >= (1 - margin) / d_max
    return within


def _places(limits: Sequence[float], lowest: int, ndiv: int) -> tuple[int, int]:
    """First and last places, counted from the voxel ``lowest``, within limits of an index."""
    margin = 1e-6  # limits are often thirds with a few digits
    low, high = sorted(limits)
    return int(np.ceil(low * ndiv - margin)) - lowest, int(np.floor(high * ndiv + margin)) - lowest
