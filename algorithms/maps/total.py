"""Total scattering: the Bragg intensities put back at their voxels.

A crystal of N cells scatters sum_G |F_G|^2 delta(q - G) / V per unit cell at its Bragg points, besides the diffuse
intensity (|sum of N phases|^2 / N is a comb of peaks of area 1 / V each). A voxel has the volume 1 / (V n_a n_b n_c),
so that its mean intensity is more by |F|^2 n_a n_b n_c: Guinier (1963) X-ray Diffraction, chapters 2 and 4.
"""

from __future__ import annotations

import logging
import os

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy

from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy
from dials_diffuse.map_file import DiffuseMap

logger = logging.getLogger("dials.diffuse.maps")


def total(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """Add the Bragg intensities to the voxels at Bragg points. The map's arrays are changed.

    Where there is no diffuse intensity the Bragg intensity is all there is: fill first. Bragg points without an
    intensity stay as they are. The half maps are left out.

    Parameters
    ----------
    diffuse_map : DiffuseMap
        In electrons^2 per unit cell, or whatever unit ``bragg`` times ``scale`` is in.
    params : libtbx.phil.scope_extract
        The scope ``total``: ``bragg``, ``label``, ``scale``.

    Raises
    ------
    Sorry
        If ``bragg`` is not given, cannot be read, or holds no reflection of the map.
    """
    if params.bragg is None:
        raise Sorry("The operation total needs Bragg intensities: give total.bragg, a .refl, MTZ or other file.")
    grid = diffuse_map.grid
    index, squared, variance = read_bragg(params.bragg, params.label, grid)
    density = params.scale * float(np.prod(grid.ndiv))
    fields, shape, count = diffuse_map.fields, np.array(diffuse_map.shape), 0
    done = np.zeros(diffuse_map.shape, dtype=bool)
    for rotation in grid.rotations:
        place = (index * np.array(grid.ndiv)) @ rotation - diffuse_map.lowest
        inside = ((place >= 0) & (place < shape)).all(axis=1)
        inside[inside] = ~done[tuple(place[inside].T)]
        place = tuple(place[inside].T)
        for name, bragg in (("intensity", squared), ("intensity_errors", np.sqrt(variance))):
            combine = np.add if name == "intensity" else np.hypot
            fields[name][place] = combine(np.nan_to_num(fields[name][place]), density * bragg[inside])
        fields["filled"][place] = 0
        done[place] = True
        count += np.count_nonzero(inside)
    if count == 0:
        raise Sorry(f"{params.bragg} has no reflection within the map: is it of this crystal?")
    for name in [name for name in fields if name.startswith("half_")]:
        del fields[name]
    logger.info("%d Bragg points of %s put back, from %d unique reflections", count, params.bragg, len(index))
    return diffuse_map


def read_bragg(
    filename: str | os.PathLike, label: str | None, grid: GlobalGrid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bragg intensities, merged over the equivalence group of a grid.

    Parameters
    ----------
    filename : path
        A table of reflections with ``intensity.scale.value``, or a file that iotbx reads (MTZ, CIF, ...), of
        intensities or amplitudes.
    label : str, optional
        Part of the column's label in the latter; the first intensities, or else amplitudes, if None.
    grid : GlobalGrid

    Returns
    -------
    index : ndarray, shape (m, 3), int
    squared, variance : ndarray, shape (m,)
        Mean |F|^2 and its variance (0 where the file has none).

    Raises
    ------
    Sorry
        If the file has none.
    """
    read = _from_table if str(filename).endswith((".refl", ".pickle")) else _from_reflection_file
    index, squared, sigma = read(filename, label, grid)
    index, place = np.unique(grid.map_to_asu(index), axis=0, return_inverse=True)
    place = place.reshape(-1)
    number = np.bincount(place)
    return index, np.bincount(place, squared) / number, np.bincount(place, sigma**2) / number**2


def _from_table(filename, label, grid):
    try:
        table = flex.reflection_table.from_file(os.fspath(filename))
        columns = [table[f"intensity.scale.{name}"] for name in ("value", "variance")]
    except Exception as error:  # whatever is in it
        raise Sorry(f"{filename} is no table of reflections with intensity.scale.value and .variance.") from error
    value, variance = (flumpy.to_numpy(column) for column in columns)
    index = miller_index_to_numpy(table["miller_index"])
    good = np.isfinite(value) & (variance > 0)
    return index[good], value[good], np.sqrt(variance[good])


def _from_reflection_file(filename, label, grid):
    from iotbx import reflection_file_reader

    file = reflection_file_reader.any_reflection_file(os.fspath(filename))
    if file.file_type() is None:
        raise Sorry(f"total.bragg={filename} is no reflection file that iotbx can read.")
    arrays = file.as_miller_arrays(crystal_symmetry=grid.crystal_symmetry())
    found = [
        [array for array in arrays if kind(array) and (label is None or label in array.info().label_string())]
        for kind in (
            lambda array: array.is_xray_intensity_array(),
            lambda array: array.is_complex_array() or array.is_xray_amplitude_array(),
        )
    ]
    if not any(found):
        names = ", ".join(array.info().label_string() for array in arrays)
        raise Sorry(f"{filename} has no such intensities or amplitudes: name one of {names} in total.label.")
    array = (found[0] or found[1])[0]
    array = abs(array) if array.is_complex_array() else array
    values = flumpy.to_numpy(array.data())
    sigmas = flumpy.to_numpy(array.sigmas()) if array.sigmas() is not None else np.zeros(len(values))
    if not found[0]:
        values, sigmas = values**2, 2 * values * sigmas
    good = np.isfinite(values) & np.isfinite(sigmas)
    return miller_index_to_numpy(array.indices())[good], values[good], sigmas[good]
