"""Observations pixel by pixel."""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.extraction import kernel
from dials_diffuse.algorithms.extraction.sweep import Sweep
from dials_diffuse.algorithms.extraction.voxel_sums import gain_and_pedestal
from dials_diffuse.images import trusted_limits
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
            rows.append(_panel_rows(sweep, batch, panel, raw[0], frames))
            pixels += raw.size
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, pixels


def _panel_rows(sweep: Sweep, batch: int, panel: int, raw: np.ndarray, frames) -> Columns:
    voxels = np.empty(raw.shape, dtype=np.int32)
    ellipsoids = sweep.bragg.ellipsoids
    kernel.select_pixels(
        raw,
        sweep.good[panel],
        sweep.rays[panel],
        frames.ray_to_hkl[0][0],
        frames.ray_to_hkl[1][0],
        *trusted_limits(sweep.experiment.detector[panel], raw.dtype),
        tuple(np.int32(n) for n in sweep.grid.n_max),
        tuple(np.float32(n) for n in sweep.grid.ndiv),
        ellipsoids.weight,
        ellipsoids.radius_squared,
        ellipsoids.largest,
        voxels,
    )
    y, x = np.nonzero(voxels >= 0)
    index = sweep.grid.key2index(voxels[y, x])
    inside = sweep.grid.contains(index)
    y, x, index = y[inside], x[inside], index[inside]
    z = frames.z[0]
    s0 = sweep.mapping.s0(z)
    q = sweep.rays[panel][y, :, x].astype(float) * np.linalg.norm(s0) - s0
    gain, pedestal = (values[panel] for values in gain_and_pedestal(sweep))
    return {
        "id": np.full(len(x), sweep.number, dtype=np.int32),
        "panel": np.full(len(x), panel, dtype=np.uint64),
        "batch": np.full(len(x), batch, dtype=np.int32),
        "miller_index": index,
        "num_pixels.valid": np.ones(len(x), dtype=np.int32),
        "counts": (raw[y, x] - pedestal) / gain,
        "exposure": np.full(len(x), frames.exposure[0]),
        "xyzobs.px.value": np.stack([x + 0.5, y + 0.5, np.full(len(x), z)], axis=1),
        "rlp": q @ sweep.mapping.crystal_frame(z),
    }
