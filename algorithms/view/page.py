"""The page: the packed map, and what shows it, in one file."""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.view.colours import DIVERGING, NOT_MEASURED, SEQUENTIAL, colour_table
from dials_diffuse.algorithms.view.packed_map import FILLED, PackedMap
from dials_diffuse.algorithms.view.view import View
from dials_diffuse.report import packed, render

#: Significant digits of intensities: more than they are rounded to.
DIGITS = 5


def pack_arrays(packed_map: PackedMap) -> dict[str, str]:
    """The box of voxels as base64 of gzip: low and high bytes of the intensities' codes, codes of the errors."""
    codes = packed_map.codes
    arrays = {
        "low": (codes & 255).astype(np.uint8),
        "high": (codes >> 8).astype(np.uint8),
        "errors": packed_map.error_codes,
    }
    return {name: packed(array.tobytes()) for name, array in arrays.items()}


def page(view: View, arrays: dict[str, str], name: str, note: str = "") -> str:
    """The page of a view.

    Parameters
    ----------
    view : View
    arrays : dict of str to str
        Of :func:`pack_arrays`.
    name : str
        With which the names of files that the page saves begin.
    note : str
        Something to say of the map.
    """
    grid = view.packed.grid
    cell = grid.unit_cell.parameters()
    facts = [
        f"{grid.space_group.info()}, Laue group {grid.laue_symbol}",
        f"cell {' '.join(f'{n:.2f}' for n in cell[:3])} Å, {' '.join(f'{n:.4g}' for n in cell[3:])}°",
        f"{'×'.join(f'{1 / step:.3g}' for step in view.packed.step)} voxels to a reciprocal-lattice spacing, "
        f"to {1 / view.packed.reach:.2f} Å",
    ]
    return render(
        "view.html", title=view.title, facts=facts, note=note, arrays=arrays, description=_description(view, name)
    )


def _description(view: View, name: str) -> dict:
    """What the page's script must know, JSON-ready."""
    packed_map, plane, scale = view.packed, view.plane, view.scale
    ndiv = packed_map.grid.ndiv
    return {
        "title": view.title,
        "name": name,
        "quantity": view.quantity,
        "units": view.units,
        "cell": packed_map.grid.unit_cell.parameters(),
        "orthogonal": packed_map.orthogonal.tolist(),
        "direct": np.linalg.inv(packed_map.orthogonal).tolist(),
        "centring": view.centring(),
        "ndiv": ndiv,
        "coarse": round(packed_map.step[0] * ndiv[0]),
        "step": packed_map.step.tolist(),
        "lowest": packed_map.lowest.tolist(),
        "shape": packed_map.codes.shape,
        "rotations": packed_map.rotations.tolist(),
        "reach": packed_map.reach,
        "values": _rounded(packed_map.values),
        "errors": _rounded(packed_map.errors),
        "filled": FILLED,
        "rings": view.rings,
        "stripes": [int.from_bytes(bytes(colour), "big") for colour in NOT_MEASURED],
        "colours": {name: colour_table(name).tobytes().hex() for name in (*SEQUENTIAL, *DIVERGING)},
        "diverging": DIVERGING,
        "view": {
            "zone": plane.zone,
            "vectors": plane.vectors,
            "level": plane.level,
            "scale": scale.name,
            "colours": scale.colour_map,
            "low": scale.low,
            "high": scale.high,
            "rings": bool(view.rings),
            "lattice": view.lattice,
        },
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values]
