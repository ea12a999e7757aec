"""A map on a coarser grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.export.box import in_box
from dials_diffuse.map_file import DiffuseMap

#: Values and their errors.
PAIRS = (("intensity", "intensity_errors"), ("half_1", "half_1_errors"), ("half_2", "half_2_errors"))


def resample(diffuse_map: DiffuseMap, ndiv: Sequence[int]) -> DiffuseMap:
    """Average a map over larger voxels.

    With f = old / new ndiv, the new voxel m covers the old ones from f m - f/2 to f m + f/2: f of them if f is odd,
    f - 1 whole ones and half of two more if f is even, along each axis. Its value is the mean over the part of its
    volume that was measured, sum w I / sum w with w the share of an old voxel's volume; its variance
    sum w^2 sigma^2 / (sum w)^2. Where f is even, neighbours have a voxel in common, so that their errors are
    correlated. Observations and pixels are sums with the same w, rounded.

    Parameters
    ----------
    diffuse_map : DiffuseMap
        Expanded, or voxels at the border of the asymmetric unit lack a part.
    ndiv : sequence of 3 int

    Raises
    ------
    Sorry
        If the old ndiv is no multiple of the new one, or the new one does not fit the Laue group.
    """
    grid = replace(diffuse_map.grid, ndiv=tuple(ndiv))
    if grid.ndiv == diffuse_map.grid.ndiv:
        return diffuse_map
    old, new = (",".join(map(str, numbers)) for numbers in (diffuse_map.grid.ndiv, grid.ndiv))
    if any(fine % coarse for fine, coarse in zip(diffuse_map.grid.ndiv, grid.ndiv)):
        raise Sorry(
            f"A map of ndiv={old} cannot be resampled to ndiv={new}: give divisors of {old}, or merge the data on the "
            f"new grid (dials.diffuse_merge scaled.expt grid.ndiv={new})."
        )
    factors = [fine // coarse for fine, coarse in zip(diffuse_map.grid.ndiv, grid.ndiv)]
    fields = {}
    for value, error in PAIRS:
        if value not in diffuse_map.fields:
            continue
        measured = np.isfinite(diffuse_map.fields[value])
        weight = _sums(measured.astype(np.float32), diffuse_map.lowest, factors)
        total = _sums(np.where(measured, diffuse_map.fields[value], 0), diffuse_map.lowest, factors)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not measured
            fields[value] = total / weight
            if error in diffuse_map.fields:
                variance = np.where(measured, diffuse_map.fields[error], 0) ** 2
                fields[error] = np.sqrt(_sums(variance, diffuse_map.lowest, factors, power=2)) / weight
    for name in ("observations", "pixels"):
        if name in diffuse_map.fields:
            counts = diffuse_map.fields[name]
            fields[name] = np.rint(_sums(counts.astype(float), diffuse_map.lowest, factors)).astype(counts.dtype)
    if "filled" in diffuse_map.fields:
        filled = diffuse_map.fields["filled"]
        fields["filled"] = (_sums(filled.astype(np.float32), diffuse_map.lowest, factors) > 0).astype(filled.dtype)
    begin = [_covered(low, n, factor)[0] for low, n, factor in zip(diffuse_map.lowest, diffuse_map.shape, factors)]
    return in_box(diffuse_map, fields, begin, grid)


def _covered(lowest: int, size: int, factor: int) -> tuple[int, int]:
    """First and last of the new voxels, along one axis, that have a part of the old ones from ``lowest`` on."""
    half = factor // 2
    return -((half - lowest) // factor), (lowest + size - 1 + half) // factor


def _sums(values: np.ndarray, lowest: np.ndarray, factors: Sequence[int], power: int = 1) -> np.ndarray:
    """Sums of w^power x value over the old voxels of each new one."""
    for axis, (low, factor) in enumerate(zip(lowest, factors)):
        values = np.moveaxis(_sums_along(np.moveaxis(values, axis, 0), int(low), factor, 0.5**power), 0, axis)
    return values


def _sums_along(values: np.ndarray, lowest: int, factor: int, edge: float) -> np.ndarray:
    """Sums along the first axis; the voxels at both edges count by ``edge`` if the factor is even."""
    first, last = _covered(lowest, len(values), factor)
    padded = np.zeros(((last - first + 2) * factor, *values.shape[1:]), dtype=values.dtype)
    begin = lowest - (first * factor - factor // 2)
    padded[begin : begin + len(values)] = values
    blocks = padded.reshape(-1, factor, *values.shape[1:])
    sums = blocks[:-1].sum(axis=1)
    if factor % 2 == 0:
        sums += edge * blocks[1:, 0] - (1 - edge) * blocks[:-1, 0]
    return sums
