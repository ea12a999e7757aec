"""The absolute scale by a comparison of Bragg intensities with calculated ones."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from cctbx import miller
from cctbx.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy

from dials_diffuse.algorithms.absolute.bragg_intensities import BraggIntensities
from dials_diffuse.algorithms.absolute.wilson import STRONG, Wilson, wilson
from dials_diffuse.grid import SAME_CELL, GlobalGrid, miller_index_from_numpy

#: Bulk solvent: density in electrons / A^3 and B in A^2; means over the Protein Data Bank of Fokine & Urzhumtsev (2002)
#: Acta Cryst. D58, 1387. The scale is taken from where it does not count.
SOLVENT_DENSITY, SOLVENT_B = 0.35, 46.0


@dataclass
class BraggComparison:
    """The comparison.

    Attributes
    ----------
    fit : Wilson
        Of a straight line through ln(sum |F_calc|^2 / sum V J) over q^2: the factor, and how much larger B is in the
        data.
    correlation : float
        Of measured and calculated intensities, each over its mean in the shell.
    reflections : int
        In common.
    """

    fit: Wilson
    correlation: float
    reflections: int


def compare(grid: GlobalGrid, bragg: BraggIntensities, calculated: miller.array, edges: np.ndarray) -> BraggComparison:
    """Compare measured with calculated intensities in shells.

    Parameters
    ----------
    grid : GlobalGrid
    bragg : BraggIntensities
    calculated : cctbx.miller.array
        |F|^2 in electrons^2.
    edges : ndarray, shape (n + 1,)
        Limits of the shells in |q|, 1/Angstrom.

    Raises
    ------
    Sorry
        If fewer than four shells have reflections in common.
    """
    indices = calculated.indices().deep_copy()
    miller.map_to_asu(grid.laue_group.type(), False, indices)
    matches = miller.match_indices(miller_index_from_numpy(bragg.index), indices)
    ours, theirs = (flumpy.to_numpy(matches.pairs().column(i).as_int()) for i in (0, 1))
    measured = bragg.integral[ours] * grid.unit_cell.volume()
    wanted = flumpy.to_numpy(calculated.data())[theirs]
    q = flumpy.to_numpy(grid.unit_cell.d_star_sq(miller_index_from_numpy(bragg.index[ours]))) ** 0.5
    shell = np.searchsorted(edges, q, side="left") - 1
    inside = (shell >= 0) & (shell < len(edges) - 1)
    shell, measured, wanted, n = shell[inside], measured[inside], wanted[inside], len(edges) - 1
    in_sigma = (bragg.integral[ours] / np.sqrt(bragg.variance[ours]))[inside]
    number = np.bincount(shell, minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        *means, strength = (np.bincount(shell, values, n) / number for values in (measured, wanted, in_sigma))
    fit = wilson((edges[1:] + edges[:-1]) / 2, means[0], number.astype(float), means[1], strength > STRONG)
    if fit is None:
        raise Sorry("Too few Bragg reflections of the data are among the calculated ones to compare: check its cell.")
    used = np.isin(shell, np.flatnonzero((number > 1) & (means[0] > 0) & (means[1] > 0)))
    normalised = [values[used] / mean[shell[used]] for values, mean in zip((measured, wanted), means)]
    return BraggComparison(fit, float(np.corrcoef(*normalised)[0, 1]), int(used.sum()))


def from_model(filename: str | os.PathLike, grid: GlobalGrid, d_min: float) -> miller.array:
    """|F|^2 of a model (PDB, mmCIF) with bulk solvent, in electrons^2, by mmtbx; without bulk-solvent refinement.

    Raises
    ------
    Sorry
        If there is no structure in the file, or its cell or symmetry are others than the grid's.
    """
    import iotbx.pdb
    import mmtbx.f_model

    try:
        read = iotbx.pdb.input(os.fspath(filename))
        symmetry = read.crystal_symmetry() or grid.crystal_symmetry()
        structure = read.xray_structure_simple(crystal_symmetry=symmetry)
    except (Sorry, RuntimeError, ValueError, OSError) as error:
        raise Sorry(f"{filename} cannot be read as a model: {error}.") from error
    _check_cell(filename, structure, grid)
    wanted = miller.build_set(structure.crystal_symmetry(), anomalous_flag=False, d_min=d_min)
    ones = wanted.array(data=flex.double(wanted.size(), 1)).set_observation_type_xray_amplitude()
    model = mmtbx.f_model.manager(f_obs=ones, xray_structure=structure)
    smear = flex.exp(-SOLVENT_B / 4 * wanted.d_star_sq().data())
    total = model.f_calc().data() + SOLVENT_DENSITY * smear * model.f_masks()[0].data()
    return model.f_calc().array(data=flex.norm(total))


def from_reflection_file(filename: str | os.PathLike, label: str | None, grid: GlobalGrid) -> miller.array:
    """|F|^2 from a file of calculated structure factors, amplitudes or intensities in electrons.

    Parameters
    ----------
    filename : path
        Whatever iotbx reads: MTZ, CIF, SHELX, ...
    label : str, optional
        Part of the column's label; the first complex or calculated array if None.
    grid : GlobalGrid

    Raises
    ------
    Sorry
        If the file has no such column, or its cell is another than the grid's.
    """
    from iotbx import reflection_file_reader

    file = reflection_file_reader.any_reflection_file(os.fspath(filename))
    if file.file_type() is None:
        raise Sorry(f"{filename} is no reflection file that iotbx can read.")
    arrays = file.as_miller_arrays(crystal_symmetry=grid.crystal_symmetry())
    labels = [array.info().label_string() for array in arrays]
    found = zip(arrays, labels)
    chosen = [array for array, name in found if (label in name if label else _is_calculated(array, name))]
    if not chosen:
        raise Sorry(f"{filename} has no calculated structure factors: name one of {', '.join(labels)} in check.label.")
    array = chosen[0]
    _check_cell(filename, array, grid)
    if array.is_complex_array():
        return array.array(data=flex.norm(array.data()))
    return array if array.is_xray_intensity_array() else array.array(data=flex.pow2(array.data()))


def _is_calculated(array: miller.array, label: str) -> bool:
    return array.is_complex_array() or any(part in label.lower() for part in ("calc", "model", "fc"))


def _check_cell(filename: str | os.PathLike, has_cell, grid: GlobalGrid) -> None:
    cell, group = has_cell.unit_cell(), has_cell.space_group()
    if not cell.is_similar_to(grid.unit_cell, *SAME_CELL) or (group.build_derived_laue_group() != grid.laue_group):
        raise Sorry(
            f"{filename} has the cell {cell} and space group {has_cell.space_group_info()}, the data {grid.unit_cell} "
            f"and {grid.space_group.info()}: they must be in one setting."
        )
