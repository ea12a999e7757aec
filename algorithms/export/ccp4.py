"""CCP4/MRC maps, which Coot, PyMOL and ChimeraX open.

Format: Cheng et al. (2015) J. Struct. Biol. 192, 146-150 (MRC2014); written by mrcfile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from cctbx import uctbx

from dials_diffuse.map_file import DiffuseMap

#: What one Angstrom of the file stands for in 1/A: cells of a few hundred Angstrom suit the programs, cells around 1
#: do not. The same as in maps of dials.rs_mapper.
RECIPROCAL_ANGSTROM = 0.01


def export_ccp4(diffuse_map: DiffuseMap, filename: str | os.PathLike, field: str, unmeasured: float) -> None:
    """Write one field of a map in reciprocal space.

    A voxel's indices n are its grid point in the file; its position there is (n / ndiv) in the cell a*, b*, c* times
    100 A^2, so that 1 A in the file is 0.01 1/A. The map covers the whole cell, which is as large as the map.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    filename : path
    field : str
        Which of its fields.
    unmeasured : float
        Value of voxels that were not measured. Most programs cannot do with NaN.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    grid = diffuse_map.grid
    *edges, alpha, beta, gamma = grid.unit_cell.reciprocal_parameters()
    sizes = [edge * count / ndiv for edge, count, ndiv in zip(edges, diffuse_map.shape, grid.ndiv)]
    cell = uctbx.unit_cell((*(size / RECIPROCAL_ANGSTROM for size in sizes), alpha, beta, gamma))
    labels = [
        "dials_diffuse: diffuse scattering in reciprocal space, 1 A here is 0.01 1/A",
        f"{field}, {diffuse_map.units}; unmeasured voxels: {unmeasured:g}",
        "unit cell " + " ".join(f"{value:.4f}" for value in grid.unit_cell.parameters()),
        f"voxels to a reciprocal-lattice spacing {' '.join(map(str, grid.ndiv))}; Laue group {grid.laue_symbol}",
    ]
    values = with_unmeasured(diffuse_map.fields[field], unmeasured)
    write_ccp4(filename, values, cell, start=diffuse_map.lowest, labels=labels)


def with_unmeasured(values: np.ndarray, unmeasured: float) -> np.ndarray:
    """Values, float32, with a number in place of NaN (unless it is NaN itself)."""
    values = values.astype(np.float32, copy=False)
    return values if np.isnan(unmeasured) else np.where(np.isnan(values), np.float32(unmeasured), values)


def write_ccp4(
    filename: str | os.PathLike,
    values: np.ndarray,
    unit_cell: uctbx.unit_cell,
    *,
    start: Sequence[int] = (0, 0, 0),
    sampling: Sequence[int] | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write a map in P 1.

    Parameters
    ----------
    filename : path
    values : ndarray, shape (nx, ny, nz)
        Along a, b, c of the cell.
    unit_cell : cctbx.uctbx.unit_cell
    start : sequence of 3 int
        Grid point of the first value; 0, 0, 0 is the cell's origin.
    sampling : sequence of 3 int, optional
        Grid points in the cell along a, b, c; the shape of ``values`` if None.
    labels : sequence of str
        Up to ten lines of text of 80 characters.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import mrcfile

    *edges, alpha, beta, gamma = unit_cell.parameters()
    with mrcfile.new(os.fspath(filename), overwrite=True) as file:
        file.set_data(np.ascontiguousarray(values.T, dtype=np.float32))  # columns, the fastest, along a
        header = file.header
        header.nxstart, header.nystart, header.nzstart = (int(n) for n in start)
        header.mx, header.my, header.mz = sampling or values.shape
        header.cella = tuple(edges)
        header.cellb = (alpha, beta, gamma)
        header.nlabl, header.label[0] = 0, ""  # one by mrcfile
        for label in labels:
            file.add_label(label)
