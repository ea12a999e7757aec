"""Observations as sums over voxels."""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.extraction import kernel
from dials_diffuse.algorithms.extraction.sweep import Sweep
from dials_diffuse.images import trusted_limits
from dials_diffuse.table_file import Columns

#: Bytes of raw frames that are held at once (in each process).
FRAME_BYTES = 160_000_000


def voxel_sums(sweep: Sweep, batch: int, start: int, stop: int) -> tuple[Columns, int]:
    """Sum a batch of frames voxel by voxel, for each panel apart.

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
        The observations; see docs/data_model.md.
    pixels : int
        Pixels read. Memory: FRAME_BYTES, and 144 bytes for each voxel that the batch touches.
    """
    ellipsoids = sweep.bragg.ellipsoids
    bragg = (ellipsoids.weight, ellipsoids.radius_squared, ellipsoids.largest)
    box = int(np.prod(sweep.grid.shape, dtype=np.int64))
    table = (np.full(1 << 16, -1, dtype=np.int64), np.zeros((1 << 16, kernel.WIDTH)), 0)
    frame_bytes = 4 * sum(good.size for good in sweep.good)
    step = max(1, FRAME_BYTES // frame_bytes)
    pixels = 0
    for first in range(start, stop, step):
        frames = sweep.read(first, min(first + step, stop))
        for panel, raw in enumerate(frames.raw):
            lowest, highest = trusted_limits(sweep.experiment.detector[panel], raw.dtype)
            whole = np.int64 if np.issubdtype(raw.dtype, np.integer) else np.float64
            table = kernel.accumulate_frames(
                raw,
                sweep.good[panel],
                sweep.rays[panel],
                *frames.ray_to_hkl,
                frames.z,
                frames.exposure,
                lowest,
                highest,
                tuple(np.int32(n) for n in sweep.grid.n_max),
                tuple(np.float32(n) for n in sweep.grid.ndiv),
                *bragg,
                panel * box,
                *table,
                np.zeros(raw.shape[2] + 1, dtype=whole),
            )
            pixels += raw.size
    return _columns(sweep, batch, box, *table[:2]), pixels


def _columns(sweep: Sweep, batch: int, box: int, keys: np.ndarray, sums: np.ndarray) -> Columns:
    order = np.flatnonzero(keys >= 0)
    order = order[np.argsort(keys[order])]
    panel, voxel = np.divmod(keys[order], box)
    index = sweep.grid.key2index(voxel)
    inside = sweep.grid.contains(index)
    panel, index, sums = panel[inside], index[inside], sums[order[inside]]
    gain, pedestal = (np.array(values)[panel] for values in gain_and_pedestal(sweep))
    pixels = sums[:, kernel.PIXELS]
    return {
        "id": np.full(len(panel), sweep.number, dtype=np.int32),
        "panel": panel.astype(np.uint64),
        "batch": np.full(len(panel), batch, dtype=np.int32),
        "miller_index": index,
        "num_pixels.valid": pixels.astype(np.int32),
        "counts": (sums[:, kernel.COUNTS] - pixels * pedestal) / gain,
        "exposure": sums[:, kernel.EXPOSURE],
        "xyzobs.px.value": sums[:, [kernel.X, kernel.Y, kernel.Z]] / pixels[:, None],
    }


def gain_and_pedestal(sweep: Sweep) -> tuple[list[float], list[float]]:
    """Gain (ADU a photon) and pedestal (ADU) of each panel."""
    detector = sweep.experiment.detector
    return [panel.get_gain() for panel in detector], [panel.get_pedestal() for panel in detector]
