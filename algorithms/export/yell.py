"""HDF5 as Yell 1.0 and meerkat write it.

Fields: YellProgram/Yell, src/IntensityMap.cpp (WriteHDF5); aglie/meerkat, meerkat/meerkat.py.
"""

from __future__ import annotations

import os

from dials_diffuse.algorithms.export.ccp4 import with_unmeasured
from dials_diffuse.map_file import DiffuseMap
from dials_diffuse.output import quiet_file


def export_yell(diffuse_map: DiffuseMap, filename: str | os.PathLike, field: str, unmeasured: float) -> None:
    """Write one field of a map.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    filename : path
    field : str
        Which of its fields.
    unmeasured : float
        Value of voxels that were not measured; meerkat has NaN.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import h5py

    with quiet_file(filename) as file, h5py.File(file, "w") as handle:
        handle.create_dataset("format", data="Yell 1.0", dtype=h5py.string_dtype("ascii"))
        handle["data"] = with_unmeasured(diffuse_map.fields[field], unmeasured)
        handle["lower_limits"] = [axis[0] for axis in (diffuse_map.h, diffuse_map.k, diffuse_map.l)]
        handle["step_sizes"] = [1 / ndiv for ndiv in diffuse_map.grid.ndiv]
        handle["unit_cell"] = diffuse_map.grid.unit_cell.parameters()
        handle["is_direct"] = False
        file.check()
