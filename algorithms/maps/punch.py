"""Voxels around Bragg points taken out of a map."""

from __future__ import annotations

import logging

import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.bragg_points import BraggPattern
from dials_diffuse.algorithms.maps.equivalents import slabs
from dials_diffuse.map_file import FIELDS, DiffuseMap

logger = logging.getLogger("dials.diffuse.maps")


def punch(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """Empty the voxels whose centres are near a Bragg point of the lattice. The map's arrays are changed.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    params : libtbx.phil.scope_extract
        The scope ``punch``: ``hkl`` and ``q``; with neither the Bragg points' own voxels alone.

    Raises
    ------
    Sorry
        If the holes would touch each other.
    """
    reach = 0.5 / max(diffuse_map.grid.unit_cell.parameters()[:3])
    if params.q is not None and params.q >= reach:
        raise Sorry(f"punch.q={params.q} 1/A leaves nothing between the Bragg points: give less than {reach:.4f}.")
    hkl = params.hkl
    if hkl is None and params.q is None:
        hkl = (1e-3, 1e-3, 1e-3)
    empty = {name: np.full(1, value, dtype)[0] for name, dtype, value, _ in FIELDS}
    pattern, count = BraggPattern(diffuse_map.grid, hkl=hkl, q=params.q), 0
    for planes in slabs(diffuse_map):
        near = pattern.near(diffuse_map, planes)
        count += np.count_nonzero(near & np.isfinite(diffuse_map.intensity[planes]))
        for name, field in diffuse_map.fields.items():
            field[planes][near] = empty[name]
    logger.info("%d measured voxels around Bragg points taken out", count)
    return diffuse_map
