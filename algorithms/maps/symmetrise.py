"""The average over the operations of a group."""

from __future__ import annotations

import logging
from dataclasses import replace

import libtbx.phil
import numpy as np
from cctbx import sgtbx
from dials.util import Sorry

from dials_diffuse.algorithms.maps.equivalents import Representatives, representatives
from dials_diffuse.grid import SAME_CELL, GlobalGrid, lattice_group
from dials_diffuse.map_file import DiffuseMap

logger = logging.getLogger("dials.diffuse.maps")

#: Weight of a voxel that was filled, beside those that were measured: counts only where there are none.
FILLED = 1e-9


def symmetrise(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """A map in which equivalent voxels have their mean, expanded to all of them.

    Voxels that are equivalent in the map already are one measurement, of which one is taken, so that to symmetrise
    again changes nothing. The others count by their number of pixel measurements: weights by errors would depend on the
    intensities.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    params : libtbx.phil.scope_extract
        The scope ``symmetrise``: ``group``, a space group or point group; the map's own Laue group if None.

    Raises
    ------
    Sorry
        If ndiv or the cell does not fit the group.
    """
    grid = grid_of_group(diffuse_map.grid, params.group)
    voxels = representatives(diffuse_map)
    if len(voxels) == 0:
        raise Sorry("The map holds no intensity: there is nothing to symmetrise.")
    key, first, place = np.unique(_canonical(grid, voxels.index), return_index=True, return_inverse=True)
    logger.info(
        "Laue group %s: %d voxels, %.2f measurements of each", grid.laue_symbol, len(key), len(voxels) / len(key)
    )
    return diffuse_map.with_voxels(voxels.index[first], _averages(voxels, place.reshape(-1), len(key)), grid)


def grid_of_group(grid: GlobalGrid, wanted: sgtbx.space_group_info | None) -> GlobalGrid:
    """The grid with a group added to its own.

    Parameters
    ----------
    grid : GlobalGrid
    wanted : cctbx.sgtbx.space_group_info or None
        Of a space group it is the point group that is added. None: nothing but Friedel's law.

    Raises
    ------
    Sorry
        If ndiv or the cell does not fit the group.
    """
    if wanted is None:
        return replace(grid, friedel_apart=False)
    if wanted.group().build_derived_laue_group() == grid.laue_group:
        return replace(grid, space_group=wanted.group(), friedel_apart=False)
    group = sgtbx.space_group(grid.space_group.build_derived_point_group())
    try:
        for operation in wanted.group().build_derived_point_group():
            group.expand_smx(operation)
    except RuntimeError as error:  # the operations of both make no group
        raise Sorry(
            f"symmetrise.group={wanted} and the map's Laue group {grid.laue_symbol} do not go together."
        ) from error
    cell = group.average_unit_cell(grid.unit_cell)
    averaged = replace(grid, space_group=group, unit_cell=cell, friedel_apart=False)  # tells if ndiv does not fit
    if not grid.unit_cell.is_similar_to(cell, *SAME_CELL):
        raise Sorry(f"The unit cell {grid.unit_cell} of the map does not fit symmetrise.group={wanted}.")
    for translation in lattice_group(grid.space_group):
        group.expand_ltr(translation.t())
    return replace(averaged, space_group=group)


def _canonical(grid: GlobalGrid, index: np.ndarray) -> np.ndarray:
    """One number for each set of equivalent voxels, shape (m,), int64: the greatest of theirs."""
    base = 2 * int(np.abs(index).max()) * 3 + 1  # no image of a voxel has an index three times as large
    greatest = np.full(len(index), np.iinfo(np.int64).min)
    for rotation in grid.rotations:
        key = index @ (rotation @ np.array([base**2, base, 1]))
        np.maximum(greatest, key, out=greatest)
    return greatest


def _averages(voxels: Representatives, place: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Columns of the map, shape (count,), from voxels that belong to its voxels ``place``."""

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights=values, minlength=count)

    fields = voxels.of.fields
    filled = voxels.values("filled") > 0
    pixels = voxels.values("pixels") if "pixels" in fields else np.zeros(len(voxels))
    weight = np.where(filled, FILLED, np.where(pixels > 0, pixels, 1.0))
    columns = {name: sums(voxels.values(name)) for name in ("observations", "pixels") if name in fields}
    columns["filled"] = sums((~filled).astype(float)) == 0
    for name in ("intensity", "half_1", "half_2"):
        if name not in fields:
            continue
        values, variance = voxels.values(name), voxels.values(f"{name}_errors") ** 2
        w = np.where(np.isfinite(values), weight, 0.0)
        total = sums(w)
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN where no half was measured
            columns[name] = sums(w * np.nan_to_num(values)) / total
            columns[f"{name}_errors"] = np.sqrt(sums(w**2 * np.where(w > 0, variance, 0))) / total
    return columns
