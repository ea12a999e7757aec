"""Plain text, one voxel a line."""

from __future__ import annotations

import os

import numpy as np

from dials_diffuse.algorithms.export.symmetry import asymmetric_voxels, measured_voxels
from dials_diffuse.map_file import DiffuseMap

LINE = "%.6f %.6f %.6f %.7g %.5g\n"
LINES_AT_ONCE = 100_000


def export_text(diffuse_map: DiffuseMap, filename: str | os.PathLike, expand: bool) -> None:
    """Write h, k, l in fractional Miller indices, intensity and its standard deviation of the measured voxels.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    filename : path
    expand : bool
        All voxels; one of every set of equivalent ones if False.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    index, columns = (measured_voxels if expand else asymmetric_voxels)(diffuse_map)
    grid = diffuse_map.grid
    with open(filename, "w", encoding="ascii") as handle:
        handle.write(f"# unit cell {' '.join(map(str, grid.unit_cell.parameters()))}\n")
        handle.write(f"# Laue group {grid.laue_symbol}{', all equivalent voxels' if expand else ''}\n")
        handle.write(f"# h k l intensity sigma ({diffuse_map.units})\n")
        for begin in range(0, len(index), LINES_AT_ONCE):
            part = slice(begin, begin + LINES_AT_ONCE)
            values = columns["intensity"][part], columns["intensity_errors"][part]
            rows = np.column_stack([grid.index2hkl(index[part]), *values])
            handle.write(LINE * len(rows) % tuple(rows.ravel().tolist()))
