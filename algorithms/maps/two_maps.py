"""Two maps, voxel by voxel."""

from __future__ import annotations

from dataclasses import replace

from cctbx import sgtbx
from dials.util import Sorry

from dials_diffuse.algorithms.maps.box import EMPTY, moved
from dials_diffuse.grid import SAME_CELL, GlobalGrid, lattice_group
from dials_diffuse.map_file import DiffuseMap


def check_same_lattice(first: DiffuseMap, second: DiffuseMap, name: str) -> None:
    """See that the voxels of two maps are the same.

    Parameters
    ----------
    first, second : DiffuseMap
    name : str
        Of the second, for the message.

    Raises
    ------
    Sorry
        If not.
    """
    if first.grid.ndiv != second.grid.ndiv:
        ndiv, other = (",".join(map(str, grid.ndiv)) for grid in (first.grid, second.grid))
        raise Sorry(
            f"{name} has ndiv={other}, the first map {ndiv}: put both on one grid (dials.diffuse_merge scaled.expt "
            f"grid.ndiv={ndiv}, or dials.diffuse_export ndiv=...)."
        )
    if not first.grid.unit_cell.is_similar_to(second.grid.unit_cell, *SAME_CELL):
        raise Sorry(
            f"{name} has the unit cell {second.grid.unit_cell}, the first map {first.grid.unit_cell}: maps of one "
            "crystal form in one setting are needed."
        )
    if first.units != second.units:
        raise Sorry(f"{name} is in {second.units}, the first map in {first.units}: put both on one scale first.")


def in_box_of(first: DiffuseMap, second: DiffuseMap, names: tuple[str, ...]) -> DiffuseMap:
    """Fields of the second map in the box of the first, NaN (0) outside its own; with the first's grid.

    The grid's symmetry is what both have.
    """
    boxes = (second.lowest, first.lowest, first.shape)
    fields = {name: moved(second.fields[name], *boxes, EMPTY[name]) for name in names}
    return replace(first, grid=common_grid(first.grid, second.grid), fields=fields)


def common_grid(first: GlobalGrid, second: GlobalGrid) -> GlobalGrid:
    """The first grid with the symmetry that both have; without screw axes and glide planes if they differ."""
    apart = first.friedel_apart or second.friedel_apart
    if first.laue_group == second.laue_group:
        return replace(first, friedel_apart=apart)
    kinds = [grid.space_group.build_derived_point_group() if apart else grid.laue_group for grid in (first, second)]
    group = sgtbx.space_group()
    for operation in kinds[0]:
        if kinds[1].contains(operation):
            group.expand_smx(operation)
    for translation in lattice_group(first.space_group):
        if lattice_group(second.space_group).contains(translation):
            group.expand_ltr(translation.t())
    return replace(first, space_group=group, friedel_apart=apart)
