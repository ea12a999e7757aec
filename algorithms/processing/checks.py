"""Checks between the steps: what is wrong with a sweep is said, and what would spoil the map is left out of it."""

from __future__ import annotations

import logging

import libtbx.phil
import numpy as np
from cctbx import uctbx

from dials_diffuse.algorithms.processing.steps import LeftOut
from dials_diffuse.algorithms.processing.sweeps import Sweep

logger = logging.getLogger("dials.diffuse.process")


def check_indexed(sweep: Sweep, limit: float) -> None:
    """Warn if less than this share of the spots is indexed."""
    spots, indexed = sweep.numbers["spots"], sweep.numbers["indexed"]
    if indexed < limit * spots:
        logger.warning(
            "%s: only %d of %d spots (%.0f %%) are indexed. A second crystal, ice, or a wrong beam centre? See the log "
            "of dials.index, and dials.reciprocal_lattice_viewer.",
            sweep.name,
            indexed,
            spots,
            100 * indexed / spots,
        )


def check_stills(sweep: Sweep, limit: float) -> None:
    """Warn if less than this share of the stills is indexed."""
    stills, indexed = sweep.numbers["stills"], sweep.numbers["indexed stills"]
    if indexed < limit * stills:
        logger.warning("%s: only %d of %d stills are indexed: see the log.", sweep.name, indexed, stills)


def check_rmsd(sweep: Sweep, limit: float) -> None:
    """Leave a sweep out whose refined spots are, on average, further than this from where they should be.

    Raises
    ------
    LeftOut
    """
    x, y = sweep.numbers.get("rmsd", (0.0, 0.0))[:2]
    if max(x, y) > limit:
        raise LeftOut(
            f"its spots are {x:.1f}, {y:.1f} pixels (RMSD in x, y) from where the refined model has them, more than "
            f"check.rmsd={limit:g}"
        )


def check_cells(sweeps: list[Sweep], params: libtbx.phil.scope_extract) -> None:
    """Leave out the sweeps (set ``left_out``) whose cells are not those of the others.

    A sweep is compared with the median of all; if there are but two, with the first.

    Parameters
    ----------
    sweeps : list of Sweep
    params : libtbx.phil.scope_extract
        ``cell_length``, a relative difference, and ``cell_angle`` in degrees.
    """
    cells = [np.mean(sweep.numbers["cells"], axis=0) for sweep in sweeps]
    if len(cells) < 2:
        return
    reference = uctbx.unit_cell(tuple(np.median(cells, axis=0) if len(cells) > 2 else cells[0]))
    for sweep, cell in zip(sweeps, cells):
        if not uctbx.unit_cell(tuple(cell)).is_similar_to(reference, params.cell_length, params.cell_angle):
            mine, others = (", ".join(f"{value:.2f}" for value in values) for values in (cell, reference.parameters()))
            against = "the first sweep's" if len(cells) == 2 else "the median of all sweeps"
            sweep.left_out = f"its cell {mine} differs from {against}, {others}, by more than check.cell_* allows"
