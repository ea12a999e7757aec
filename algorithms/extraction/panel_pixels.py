"""The pixels of one panel on one frame that nothing masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dials_diffuse.algorithms.extraction import kernel
from dials_diffuse.algorithms.extraction.sweep import Frames, Sweep
from dials_diffuse.algorithms.extraction.voxel_sums import gain_and_pedestal
from dials_diffuse.images import trusted_limits


@dataclass(frozen=True, eq=False)
class PanelPixels:
    """n pixels.

    Attributes
    ----------
    x, y : ndarray, shape (n,), int
        Columns and rows of the image.
    index : ndarray, shape (n, 3), int32
        Their voxels.
    counts : ndarray, shape (n,), float
        Photons, nothing subtracted but the pedestal.
    q : ndarray, shape (n, 3), float
        Scattering vectors s1 - s0 in the laboratory, 1/Angstrom.
    """

    x: np.ndarray
    y: np.ndarray
    index: np.ndarray
    counts: np.ndarray
    q: np.ndarray


def panel_pixels(sweep: Sweep, frames: Frames, panel: int) -> PanelPixels:
    """The unmasked, trusted pixels of one panel that fall into the grid.

    Parameters
    ----------
    sweep : Sweep
    frames : Frames
        A single frame of it.
    panel : int
    """
    raw = frames.raw[panel][0]
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
    s0 = sweep.mapping.s0(frames.z[0])
    q = sweep.rays[panel][y, :, x].astype(float) * np.linalg.norm(s0) - s0
    gain, pedestal = (values[panel] for values in gain_and_pedestal(sweep))
    return PanelPixels(x, y, index, (raw[y, x] - pedestal) / gain, q)
