"""A map, or a part of it, in another format."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import libtbx
import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.export.ccp4 import export_ccp4
from dials_diffuse.algorithms.export.cut import cut
from dials_diffuse.algorithms.export.mtz import export_mtz
from dials_diffuse.algorithms.export.npz import export_npz
from dials_diffuse.algorithms.export.resample import resample
from dials_diffuse.algorithms.export.symmetry import asymmetric_unit, expand
from dials_diffuse.algorithms.export.text import export_text
from dials_diffuse.algorithms.export.yell import export_yell
from dials_diffuse.map_file import DiffuseMap, read_map
from dials_diffuse.provenance import ProcessRecord

logger = logging.getLogger("dials.diffuse.export")


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes
    ----------
    endings : tuple of str
        Of file names, the usual one first.
    fields : tuple of str or None
        What it holds of each voxel; None for all. Formats of one field hold that which is asked for.
    lists : bool
        It lists voxels instead of holding an array.
    """

    endings: tuple[str, ...]
    fields: tuple[str, ...] | None = ()
    lists: bool = False


FORMATS = {
    "nexus": Format((".nxs",), fields=None),
    "ccp4": Format((".ccp4", ".map", ".mrc")),
    "mtz": Format((".mtz",), fields=("intensity", "intensity_errors", "observations"), lists=True),
    "yell": Format((".h5", ".hdf5")),
    "npz": Format((".npz",), fields=("intensity", "intensity_errors", "observations", "pixels", "filled")),
    "text": Format((".hkl", ".txt"), fields=("intensity", "intensity_errors"), lists=True),
}


def output_name(map_files: list[str], params: libtbx.phil.scope_extract) -> tuple[str, str]:
    """Name of the file to write and its format, each from the other if it is not given.

    Parameters
    ----------
    map_files : list of str
        What was given to read.
    params : libtbx.phil.scope_extract
        Of dials.diffuse_export.

    Raises
    ------
    Sorry
        If neither tells the format, or there are several maps.
    """
    if len(map_files) > 1:
        raise Sorry(f"{' and '.join(map_files)} are several maps: give one at a time.")
    name, format = params.output.map, params.format
    if format is None:
        endings = {ending: key for key, known in FORMATS.items() for ending in known.endings}
        if name is None:
            raise Sorry("Say what to write: output.map=merged.mtz, for instance, or format=mtz.")
        if Path(name).suffix not in endings:
            raise Sorry(
                f"output.map={name} does not tell the format: end it with {', '.join(endings)}, or give format."
            )
        return name, endings[Path(name).suffix]
    return name or Path(map_files[0]).stem + FORMATS[format].endings[0], format


def prepare(map_file: str, format: str, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """Read a map and make of it what is asked for: symmetry, then a coarser grid, then a part.

    Parameters
    ----------
    map_file : str
    format : str
        One of :data:`FORMATS`.
    params : libtbx.phil.scope_extract
        ``expand``, ``ndiv``, ``range``, ``field``.

    Raises
    ------
    Sorry
        If the file is no map, or the grid or the limits cannot be had.
    """
    known = FORMATS[format]
    names = known.fields
    if names == ():
        names = (params.field, params.field.removesuffix("_errors"))  # errors are averaged with their values
    diffuse_map = read_map(map_file, names and {"intensity", *names})
    if not np.isfinite(diffuse_map.intensity).any():
        raise Sorry(f"{map_file} is empty: nothing was measured.")
    whole = wants_all(format, params)
    if params.ndiv is not None:
        diffuse_map = resample(diffuse_map, params.ndiv)
    elif whole:
        diffuse_map = expand(diffuse_map)
    limits = params.range
    diffuse_map = cut(diffuse_map, (limits.h, limits.k, limits.l), limits.d_min, limits.d_max)
    return diffuse_map if whole or known.lists else asymmetric_unit(diffuse_map)


def wants_all(format: str, params: libtbx.phil.scope_extract) -> bool:
    """Whether all equivalent voxels are to be written."""
    return not FORMATS[format].lists if params.expand is libtbx.Auto else params.expand


def write(
    diffuse_map: DiffuseMap,
    filename: str | os.PathLike,
    format: str,
    params: libtbx.phil.scope_extract,
    record: ProcessRecord,
) -> None:
    """Write a map that :func:`prepare` made.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    filename : path
    format : str
    params : libtbx.phil.scope_extract
        ``expand``, ``field``, ``unmeasured``.
    record : ProcessRecord
        Of the program, for the history.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    whole = wants_all(format, params)
    unmeasured = params.unmeasured
    if unmeasured is libtbx.Auto:
        unmeasured = 0.0 if format == "ccp4" else math.nan
    diffuse_map.history.append(record)
    if format == "nexus":
        diffuse_map.write(filename)
    elif format == "ccp4":
        export_ccp4(diffuse_map, filename, params.field, unmeasured)
    elif format == "yell":
        export_yell(diffuse_map, filename, params.field, unmeasured)
    elif format == "npz":
        export_npz(diffuse_map, filename)
    elif format == "mtz":
        export_mtz(diffuse_map, filename, whole)
    elif format == "text":
        export_text(diffuse_map, filename, whole)


def log_map(diffuse_map: DiffuseMap, format: str) -> None:
    """Say what is written."""
    logger.info("\n%s, %s:", format, diffuse_map.units)
    for name, axis in zip("hkl", (diffuse_map.h, diffuse_map.k, diffuse_map.l)):
        logger.info("  %s from %.3f to %.3f, %d voxels", name, axis[0], axis[-1], len(axis))
    logger.info("  %d voxels measured", np.isfinite(diffuse_map.intensity).sum())
