"""Grids of voxels from numbers and names."""

from __future__ import annotations

from cctbx import sgtbx, uctbx

from dials_diffuse.grid import GlobalGrid


def make_grid(
    cell: tuple[float, ...],
    symbol: str,
    ndiv: tuple[int, int, int] = (2, 2, 2),
    d_min: float = 3.0,
    friedel_apart: bool = False,
) -> GlobalGrid:
    """Of a cell in Angstrom and degrees and a space group's Hermann-Mauguin symbol."""
    return GlobalGrid(uctbx.unit_cell(cell), sgtbx.space_group_info(symbol).group(), ndiv, d_min, friedel_apart)
