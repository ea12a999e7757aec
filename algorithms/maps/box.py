"""The box of voxels that a map's arrays cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_diffuse.map_file import FIELDS

#: Value of a voxel that was not measured, by field.
EMPTY = {name: empty for name, _, empty, _ in FIELDS}


def overlap(
    first: Sequence[int], first_shape: Sequence[int], second: Sequence[int], second_shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where, in the arrays of two boxes whose first voxels are known, the voxels are that both hold."""
    begin = np.maximum(first, second)
    end = np.maximum(np.minimum(np.add(first, first_shape), np.add(second, second_shape)), begin)
    return tuple(tuple(map(slice, begin - lowest, end - lowest)) for lowest in (first, second))


def moved(
    values: np.ndarray, lowest: Sequence[int], first: Sequence[int], shape: Sequence[int], empty: float
) -> np.ndarray:
    """An array, whose first element is the voxel ``lowest``, in another box, ``empty`` where it does not reach."""
    result = np.full(shape, empty, values.dtype)
    source, target = overlap(lowest, values.shape, first, shape)
    result[target] = values[source]
    return result


def extent(present: np.ndarray) -> list[tuple[int, int]]:
    """First and last places along each axis where a boolean array of three axes is true; (0, -1) if it nowhere is."""
    found = [np.flatnonzero(present.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(int(places[0]), int(places[-1])) if len(places) else (0, -1) for places in found]
