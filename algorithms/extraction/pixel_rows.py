"""Observations pixel by pixel."""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.extraction.panel_pixels import panel_pixels
from dials_diffuse.algorithms.extraction.sweep import Frames, Sweep
from dials_diffuse.table_file import Columns


def pixel_rows(sweep: Sweep, batch: int, start: int, stop: int) -> tuple[Columns, int]:
    """Every unmasked pixel of a batch of frames as an observation.

    Parameters
    ----------
    sweep : Sweep
    batch : int
        Its number.
    start, stop : int
        Its frames, counted from 0, the end excluded.

    Returns
    -------
    columns : dict of str to ndarray
        The observations, with ``rlp``; see docs/data_model.md. About 100 bytes a pixel.
    pixels : int
        Pixels read.
    """
    rows = []
    pixels = 0
    for index in range(start, stop):
        frames = sweep.read(index, index + 1)
        for panel, raw in enumerate(frames.raw):
            rows.append(_panel_rows(sweep, batch, panel, frames))
            pixels += raw.size
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, pixels


def _panel_rows(sweep: Sweep, batch: int, panel: int, frames: Frames) -> Columns:
    pixels = panel_pixels(sweep, frames, panel)
    z, n = frames.z[0], len(pixels.x)
    return {
        "id": np.full(n, sweep.number, dtype=np.int32),
        "panel": np.full(n, panel, dtype=np.uint64),
        "batch": np.full(n, batch, dtype=np.int32),
        "miller_index": pixels.index,
        "num_pixels.valid": np.ones(n, dtype=np.int32),
        "counts": pixels.counts,
        "exposure": np.full(n, frames.exposure[0]),
        "xyzobs.px.value": np.stack([pixels.x + 0.5, pixels.y + 0.5, np.full(n, z)], axis=1),
        "rlp": pixels.q @ sweep.mapping.crystal_frame(z),
    }
