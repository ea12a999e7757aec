"""What each pixel does over a sample of frames."""

from __future__ import annotations

from dataclasses import dataclass

import libtbx
import numpy as np
from dxtbx.model import Experiment
from numba import njit

from dials_diffuse.algorithms.masking.ellipsoid import BraggEllipsoids, sees_bragg
from dials_diffuse.geometry import IndexMapping, detector_rays
from dials_diffuse.images import frame_arrays, trusted_limits


@dataclass
class PixelSample:
    """Statistics of one panel's pixels over the sampled frames; arrays of shape (slow, fast).

    Attributes
    ----------
    frames : int
        Frames looked at.
    valid : ndarray, float32
        In how many a pixel was within the trusted range.
    used : ndarray, float32
        In how many it counts for the total: Bragg peaks and the two largest values are left out.
    total : ndarray, float32
        Sum of its photons there.
    """

    frames: int
    valid: np.ndarray
    used: np.ndarray
    total: np.ndarray


def sample_pixels(
    experiment: Experiment, frames: int, bragg: BraggEllipsoids, nproc: int | type[libtbx.Auto] = 1
) -> list[PixelSample]:
    """Look at frames evenly spread over a sweep.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
        With an imageset that can be read.
    frames : int
        How many frames; all of them if there are fewer.
    bragg : BraggEllipsoids
        Where Bragg peaks are; what they miss is caught by leaving out every pixel's two largest values.

    nproc : int or libtbx.Auto
        Number of processes.

    Returns
    -------
    list of PixelSample
        One a panel. Memory: 36 bytes a pixel.
    """
    count = len(experiment.imageset)
    chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int))
    rays = detector_rays(experiment.detector, nproc)
    sums = [np.zeros((5, array.shape[0], array.shape[2]), dtype=np.float32) for array in rays]
    nowhere = np.zeros((3, 3), dtype=np.float32), np.zeros(3, dtype=np.float32)  # without peaks no crystal is needed
    mapping = IndexMapping(experiment) if bragg.largest > 0 else None
    for index in chosen:
        m, c = nowhere
        if mapping is not None:
            m, c = (a.astype(np.float32) for a in mapping.ray_to_hkl(mapping.array_range[0] + index + 0.5))
        for i, (panel, raw) in enumerate(zip(experiment.detector, frame_arrays(experiment.imageset, int(index)))):
            _add_frame(
                raw,
                *trusted_limits(panel, raw.dtype),
                panel.get_pedestal(),
                panel.get_gain(),
                rays[i],
                m,
                c,
                bragg.weight,
                bragg.radius_squared,
                sums[i],
            )
    return [
        PixelSample(len(chosen), valid, np.maximum(used - 2, 0), np.maximum(total - largest - second, 0))
        for valid, used, total, largest, second in sums
    ]


@njit(cache=True, nogil=True)
def _add_frame(raw, lowest, highest, pedestal, gain, rays, m, c, weight, radius_squared, sums):
    """Add a frame of a panel to ``sums``: valid, used, total, largest, second largest."""
    valid, used, total, largest, second = sums[0], sums[1], sums[2], sums[3], sums[4]
    for y in range(raw.shape[0]):
        for x in range(raw.shape[1]):
            if raw[y, x] < lowest or raw[y, x] > highest:
                continue
            valid[y, x] += 1
            if sees_bragg(rays[y, 0, x], rays[y, 1, x], rays[y, 2, x], m, c, weight, radius_squared):
                continue
            used[y, x] += 1
            photons = np.float32((raw[y, x] - pedestal) / gain)
            total[y, x] += photons
            if photons > largest[y, x]:
                second[y, x] = largest[y, x]
                largest[y, x] = photons
            elif photons > second[y, x]:
                second[y, x] = photons
