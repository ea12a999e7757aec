"""What each pixel does over a sample of frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dxtbx.model import Experiment

from dials_diffuse.algorithms.masking.ellipsoid import BraggEllipsoids
from dials_diffuse.geometry import IndexMapping, ray_directions
from dials_diffuse.images import frame_arrays, trusted_limits


@dataclass
class PixelSample:
    """Statistics of one panel's pixels over the sampled frames; arrays of shape (slow, fast).

    Attributes
    ----------
    frames : int
        Frames looked at.
    valid : ndarray, int32
        In how many a pixel was within the trusted range.
    used : ndarray, int32
        In how many it counts for the total: Bragg peaks and the two largest values are left out.
    total : ndarray, float64
        Sum of its photons there.
    """

    frames: int
    valid: np.ndarray
    used: np.ndarray
    total: np.ndarray


def sample_pixels(experiment: Experiment, frames: int, bragg: BraggEllipsoids) -> list[PixelSample]:
    """Look at frames evenly spread over a sweep.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
        With an imageset that can be read.
    frames : int
        How many frames; all of them if there are fewer.
    bragg : BraggEllipsoids
        Where Bragg peaks are; what they miss is caught by leaving out every pixel's two largest values.

    Returns
    -------
    list of PixelSample
        One a panel. Memory: six arrays of the detector's size, and its rays.
    """
    count = len(experiment.imageset)
    chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int))
    shapes = [tuple(reversed(panel.get_image_size())) for panel in experiment.detector]
    valid, used = ([np.zeros(shape, dtype=np.int32) for shape in shapes] for _ in range(2))
    total, largest, second = ([np.zeros(shape) for shape in shapes] for _ in range(3))
    mapping = IndexMapping(experiment)
    rays = [ray_directions(panel) for panel in experiment.detector] if bragg.largest > 0 else None
    for index in chosen:
        if rays is not None:
            ray_to_hkl = mapping.ray_to_hkl(mapping.array_range[0] + index + 0.5)
        for i, (panel, raw) in enumerate(zip(experiment.detector, frame_arrays(experiment.imageset, int(index)))):
            lowest, highest = trusted_limits(panel, raw.dtype)
            inside = (raw >= lowest) & (raw <= highest)
            valid[i] += inside
            if rays is not None:
                inside &= bragg.frame_mask(rays[i], ray_to_hkl)
            used[i] += inside
            photons = np.where(inside, (raw - panel.get_pedestal()) / panel.get_gain(), 0.0)
            total[i] += photons
            np.maximum(second[i], np.minimum(largest[i], photons), out=second[i])
            np.maximum(largest[i], photons, out=largest[i])
    return [
        PixelSample(len(chosen), v, np.maximum(u - 2, 0), t - a - b)
        for v, u, t, a, b in zip(valid, used, total, largest, second)
    ]
