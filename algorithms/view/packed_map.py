"""A map in few bytes: the asymmetric unit, in numbers as fine as they are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.box import extent
from dials_diffuse.algorithms.view.asymmetric_unit import asymmetric_unit
from dials_diffuse.algorithms.view.coarsen import coarsen
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap

#: Steps of arcsinh(I / unit): half a step is 0.7 % of |I| + unit.
STEP = 0.014
#: Steps of the logarithm of the error: half a step is 5 %.
ERROR_STEP = 0.1
#: Code of the error of voxels that were filled, not measured.
FILLED = 255


@dataclass
class PackedMap:
    """What is shown of a map, once for all equivalent voxels.

    Voxels at integers n have their centres at ``n * step``. The box holds codes; where it holds none, the codes of the
    equivalent voxels n R tell.

    Attributes
    ----------
    grid : GlobalGrid
    step : ndarray, shape (3,)
        From one voxel to the next, r.l.u.
    lowest : ndarray, shape (3,), int
        The box's first voxel.
    codes : ndarray, shape of the box, uint16
        Of the intensity: 0 where there is none, else an index of ``values``.
    error_codes : ndarray, shape of the box, uint8
        Of its standard deviation: an index of ``errors``.
    rotations : ndarray, shape (n_operations, 3, 3), int
    values : ndarray, float64
        Intensities, increasing; the first is NaN.
    errors : ndarray, shape (256,)
        Standard deviations, increasing; the first (no error) and last (:data:`FILLED`) are NaN.
    reach : float
        Largest |q| of a voxel's centre, 1/Angstrom.
    """

    grid: GlobalGrid
    step: np.ndarray
    lowest: np.ndarray
    codes: np.ndarray
    error_codes: np.ndarray
    rotations: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    reach: float

    @property
    def orthogonal(self) -> np.ndarray:
        """The matrix F, shape (3, 3): q = h F, in 1/Angstrom."""
        return np.array(self.grid.unit_cell.fractionalization_matrix()).reshape(3, 3)

    def at(self, hkl: np.ndarray) -> np.ndarray:
        """Codes of the voxels that hold points h k l, shape (..., 3); 0 where nothing was measured."""
        voxels = np.floor(hkl / self.step + 0.5).astype(np.int32)
        codes = np.zeros(voxels.shape[:-1], self.codes.dtype)
        for rotation in self.rotations:
            place = voxels @ rotation.astype(np.int32) - self.lowest.astype(np.int32)
            inside = ((place >= 0) & (place < self.codes.shape)).all(axis=-1) & (codes == 0)
            codes[inside] = self.codes[tuple(place[inside].T)]
        return codes


def pack(diffuse_map: DiffuseMap, name: str, coarse: int = 0) -> PackedMap:
    """Pack one field of a map.

    Intensities are rounded to equal steps of arcsinh(I / unit), the unit being the median error or a twentieth of the
    median intensity, whichever is larger: to 0.7 % of |I| plus 0.7 % of the unit. Errors are rounded to 5 %.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    name : str
        Of the field. Zeros of fields that count (``observations``, ``pixels``) are no values.
    coarse : int
        How often to halve the number of voxels along each axis, by averaging.

    Raises
    ------
    Sorry
        If the field holds nothing.
    """
    values = diffuse_map.fields[name]
    if values.dtype.kind != "f":
        values = np.where(values > 0, values, np.nan).astype(np.float32)
    if not np.isfinite(values).any():
        raise Sorry(f"The map has no {name}: choose another field.")
    lowest, step = diffuse_map.lowest, 1 / np.array(diffuse_map.grid.ndiv)
    errors = diffuse_map.fields.get(f"{name}_errors", np.full((1, 1, 1), np.nan, np.float32))
    filled = diffuse_map.fields.get("filled", np.zeros((1, 1, 1), np.int8))
    errors, filled = (np.broadcast_to(array, values.shape) for array in (errors, filled))
    for _ in range(coarse):
        filled = filled[tuple(slice(n % 2, None, 2) for n in lowest)]
        values, errors, lowest = coarsen(values, errors, lowest, diffuse_map.grid.rotations)
        step = 2 * step
    kept, rotations = asymmetric_unit(values, lowest, _groups(diffuse_map.grid))
    box = tuple(slice(first, last + 1) for first, last in extent(kept))
    values, errors, filled, kept = (array[box] for array in (values, errors, filled, kept))
    lowest = lowest + [part.start for part in box]

    codes, scale = _intensity_codes(values, errors, kept)
    error_codes, error_scale = _error_codes(errors, kept)
    error_codes[kept & (filled > 0)] = FILLED
    packed = PackedMap(diffuse_map.grid, step, lowest, codes, error_codes, rotations, scale, error_scale, 0.0)
    packed.reach = _reach(packed)
    return packed


def _groups(grid: GlobalGrid) -> list[np.ndarray]:
    """Rotations of the map's group, and of Friedel's law alone if that is in it; shape (n_operations, 3, 3)."""
    inversion = np.array([np.eye(3), -np.eye(3)]).astype(np.int64)
    return [grid.rotations] if grid.friedel_apart else [grid.rotations, inversion]


def _intensity_codes(values: np.ndarray, errors: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, 0 where nothing is kept, and the intensity of each code."""
    chosen = values[kept].astype(float)
    known = errors[kept]
    known = known[np.isfinite(known)]
    unit = max(np.median(np.abs(chosen)) / 20, np.median(known) if len(known) else 0) or np.abs(chosen).max() or 1.0
    steps = np.rint(np.arcsinh(chosen / unit) / STEP).astype(np.int64)
    least = steps.min()
    codes = np.zeros(values.shape, np.uint16)
    codes[kept] = steps - least + 1
    scale = unit * np.sinh(STEP * np.arange(least - 1, steps.max() + 1))
    scale[0] = np.nan
    return codes, scale


def _error_codes(errors: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, 0 where there is no error, and the error of each code."""
    scale = np.full(256, np.nan)
    known = kept & (errors > 0)
    codes = np.zeros(errors.shape, np.uint8)
    if known.any():
        steps = np.rint(np.log(errors[known]) / ERROR_STEP)
        highest = steps.max()
        codes[known] = np.clip(steps - highest + FILLED - 1, 1, FILLED - 1)
        scale[1:FILLED] = np.exp(ERROR_STEP * (highest + np.arange(1, FILLED) - FILLED + 1))
    return codes, scale


def _reach(packed: PackedMap) -> float:
    """Largest |q| of a voxel, 1/Angstrom: it is where a line of voxels along l begins or ends."""
    squared = 0.0
    for i, plane in enumerate(packed.codes):
        used = plane > 0
        rows = np.flatnonzero(used.any(axis=1))
        if not len(rows):
            continue
        for ends in (used[rows].argmax(axis=1), used.shape[1] - 1 - used[rows, ::-1].argmax(axis=1)):
            voxels = np.stack([np.full(len(rows), i), rows, ends], axis=1) + packed.lowest
            squared = max(squared, ((voxels * packed.step @ packed.orthogonal) ** 2).sum(axis=1).max())
    return float(np.sqrt(squared))
