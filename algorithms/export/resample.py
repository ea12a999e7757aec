"""A map on a coarser grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.export.larger_voxels import means, shares
from dials_diffuse.algorithms.export.symmetry import expand
from dials_diffuse.algorithms.maps.equivalents import count_equivalents
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap

#: Values and their errors.
PAIRS = (("intensity", "intensity_errors"), ("half_1", "half_1_errors"), ("half_2", "half_2_errors"))


def resample(diffuse_map: DiffuseMap, ndiv: Sequence[int]) -> DiffuseMap:
    """Average a map over larger voxels.

    With f = old / new ndiv, the new voxel m covers the old ones from f m - f/2 to f m + f/2: f of them if f is odd,
    f - 1 whole ones and half of two more if f is even, along each axis. Its value is the mean over the part of its
    volume that was measured, sum w I / sum w with w the share of an old voxel's volume. Old voxels that are equivalent
    are one measurement: the variance is sum W^2 sigma^2 / (sum w)^2 over sets of equivalent voxels, with W the sum of w
    in a set. Where f is even, neighbours have a voxel in common, so that their errors are correlated.

    Observations and pixels of a set of equivalent old voxels are divided among the new ones by volume, and rounded.

    Where the Laue group does not map voxels onto voxels (on trigonal and hexagonal axes, a parallelepiped is turned),
    all this is over the equivalents of the new voxel together, as in merging.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    ndiv : sequence of 3 int

    Returns
    -------
    DiffuseMap
        Expanded.

    Raises
    ------
    Sorry
        If the old ndiv is no multiple of the new one, or the new one does not fit the Laue group.
    """
    grid = replace(diffuse_map.grid, ndiv=tuple(ndiv))
    if grid.ndiv == diffuse_map.grid.ndiv:
        return expand(diffuse_map)
    old, new = (",".join(map(str, numbers)) for numbers in (diffuse_map.grid.ndiv, grid.ndiv))
    if any(fine % coarse for fine, coarse in zip(diffuse_map.grid.ndiv, grid.ndiv)):
        raise Sorry(
            f"A map of ndiv={old} cannot be resampled to ndiv={new}: give divisors of {old}, or merge the data on the "
            f"new grid (dials.diffuse_merge scaled.expt grid.ndiv={new})."
        )
    factors = np.array(diffuse_map.grid.ndiv) // grid.ndiv
    diffuse_map = expand(diffuse_map)
    index = _new_voxels(diffuse_map, grid, factors)
    rotations = grid.rotations
    turned = rotations[:1] if (np.abs(rotations).sum(axis=(1, 2)) == 3).all() else rotations
    geometry = (diffuse_map.lowest, rotations, turned, factors)
    columns = {}
    for value, error in PAIRS:
        if value in diffuse_map.fields:
            values = diffuse_map.fields[value]
            errors = diffuse_map.fields.get(error, np.zeros((1, 1, 1), np.float32))
            columns[value], deviations = means(index, values, errors, *geometry)
            if error in diffuse_map.fields:
                columns[error] = deviations
    for name in ("observations", "pixels", "filled"):
        if name in diffuse_map.fields:
            parts = shares(index, diffuse_map.fields[name], np.isfinite(diffuse_map.intensity), *geometry)
            counts = parts > 0 if name == "filled" else np.rint(parts)
            columns[name] = counts.astype(diffuse_map.fields[name].dtype)
    measured = np.isfinite(columns["intensity"])
    columns = {name: column[measured] for name, column in columns.items()}
    return diffuse_map.with_voxels(index[measured], columns, grid)


def _new_voxels(diffuse_map: DiffuseMap, grid: GlobalGrid, factors: np.ndarray) -> np.ndarray:
    """One of every set of equivalent voxels that have a part in the map and their centre within d_min; shape (n, 3)."""
    half = factors // 2
    first = -((half - diffuse_map.lowest) // factors)
    last = (diffuse_map.lowest + np.array(diffuse_map.shape) - 1 + half) // factors
    axes = dict(zip("hkl", grid.axes(first, last - first + 1)))
    box = replace(diffuse_map, grid=grid, fields={}, **axes)
    within = box.q() <= np.float32(1 + 1e-6) / grid.d_min
    return np.argwhere(count_equivalents(within, first, grid.rotations)) + first
