"""MTZ: voxels as reflections of the supercell ndiv a, ndiv b, ndiv c."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import iotbx.mtz
import numpy as np
from cctbx import miller, sgtbx
from dxtbx import flumpy

from dials_diffuse.algorithms.export.symmetry import asymmetric_voxels
from dials_diffuse.algorithms.export.symmetry import expand as expanded
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.map_file import DiffuseMap

logger = logging.getLogger("dials.diffuse.export")


def export_mtz(diffuse_map: DiffuseMap, filename: str | os.PathLike, expand: bool) -> None:
    """Write I, SIGI and N (observations merged); with Friedel mates apart I(+), I(-) and so on.

    H, K, L are the voxels n = ndiv h, the cell is that of the supercell.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    filename : path
    expand : bool
        All voxels, in P 1 (but one of n and -n, unless these are apart); if False, the asymmetric unit of
        :func:`mtz_group`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    group = mtz_group(diffuse_map.grid)
    if group is None and not expand:
        logger.info("The crystal's setting has no name that MTZ could hold: all voxels are written, in P 1.")
    if expand or group is None:
        group = sgtbx.space_group()
        diffuse_map = expanded(diffuse_map)
        diffuse_map = replace(diffuse_map, grid=replace(diffuse_map.grid, space_group=group))
    grid = diffuse_map.grid
    index, columns = asymmetric_voxels(diffuse_map)
    signs = ("",)
    if grid.friedel_apart:
        index, columns = _side_by_side(index, columns, group)
        signs = ("(+)", "(-)")
    mtz = iotbx.mtz.object()
    mtz.set_title("Diffuse scattering")
    mtz.add_history(f"H K L are {' '.join(map(str, grid.ndiv))} times h k l: voxels, in the cell of the supercell")
    mtz.add_history(f"Intensities in {diffuse_map.units}, N observations merged")
    mtz.set_space_group_info(group.info())
    mtz.adjust_column_array_sizes(len(index))
    mtz.set_n_reflections(len(index))
    crystal = mtz.add_crystal("crystal", "dials_diffuse", grid.supercell.parameters())
    dataset = crystal.add_dataset("diffuse", float(diffuse_map.wavelengths.mean()))
    for label, values in zip("HKL", index.T):
        _add_column(dataset, label, "H", values)
    for sign in signs:
        intensity_type, error_type = ("K", "M") if sign else ("J", "Q")
        _add_column(dataset, f"I{sign}", intensity_type, columns[f"intensity{sign}"])
        _add_column(dataset, f"SIGI{sign}", error_type, columns[f"intensity_errors{sign}"])
    for sign in signs:
        _add_column(dataset, f"N{sign}", "I", columns[f"observations{sign}"])
    try:
        mtz.write(os.fspath(filename))
    except RuntimeError as error:
        raise OSError(f"{error}") from error
    with open(filename, "rb") as handle:  # of the last part the library does not say so
        handle.seek(-80, os.SEEK_END)
        if not handle.read().startswith(b"MTZENDOFHEADERS"):
            raise OSError("the end of the file is missing")


def _add_column(dataset: iotbx.mtz.dataset, label: str, kind: str, values: np.ndarray) -> None:
    """A column; NaN is what MTZ has for missing values."""
    dataset.add_column(label, kind).set_values(flumpy.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))


def _side_by_side(
    index: np.ndarray, columns: dict[str, np.ndarray], group: sgtbx.space_group
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Friedel mates in one row: columns ``intensity(+)``, ``intensity(-)``, ..., NaN where one was not measured.

    Parameters
    ----------
    index : ndarray, shape (n, 3), int
        In the asymmetric unit of the Laue group, or minus that.
    """
    indices = miller_index_from_numpy(index)
    miller.map_to_asu(group.type(), False, indices)
    together, row = np.unique(miller_index_to_numpy(indices), axis=0, return_inverse=True)
    minus = (together[row] != index).any(axis=1)
    pairs = {}
    for name, values in columns.items():
        for sign, chosen in (("(+)", ~minus), ("(-)", minus)):
            pairs[name + sign] = np.full(len(together), np.nan, dtype=np.float32)
            pairs[name + sign][row[chosen]] = values[chosen]
    return together, pairs


def mtz_group(grid: GlobalGrid) -> sgtbx.space_group | None:
    """The space group of the voxels: the crystal's point group in its setting, without centring and screw axes.

    Neither makes voxels absent. It has the Laue group of the crystal, and its asymmetric unit in cctbx is CCP4's.

    Returns
    -------
    cctbx.sgtbx.space_group or None
        None if the setting is not tabulated, so that there is no name for it.
    """
    group = grid.space_group.build_derived_point_group()
    return group if group.match_tabulated_settings().number() else None
