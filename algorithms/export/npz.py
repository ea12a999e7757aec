"""numpy's own format."""

from __future__ import annotations

import os

import numpy as np

from dials_diffuse.map_file import DiffuseMap


def export_npz(diffuse_map: DiffuseMap, filename: str | os.PathLike) -> None:
    """Write the map's fields and axes under their names, and ``unit_cell``, ``ndiv``, ``space_group``, ``units``.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    grid = diffuse_map.grid
    with open(filename, "wb") as handle:  # by its name, numpy might add an ending to it
        np.savez(
            handle,
            **diffuse_map.fields,
            h=diffuse_map.h,
            k=diffuse_map.k,
            l=diffuse_map.l,
            unit_cell=grid.unit_cell.parameters(),
            ndiv=grid.ndiv,
            space_group=str(grid.space_group.info()),
            units=diffuse_map.units,
        )
