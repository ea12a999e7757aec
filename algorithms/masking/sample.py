"""What each pixel does over a sample of frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dxtbx.model import Experiment

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
    total : ndarray, float64
        Sum of its photons there, the two largest values left out (peaks pass over a pixel once or twice).
    """

    frames: int
    valid: np.ndarray
    total: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """How many values ``total`` sums; shape (slow, fast)."""
        return np.maximum(self.valid - 2, 0)


def sample_pixels(experiment: Experiment, frames: int) -> list[PixelSample]:
    """Look at frames evenly spread over a sweep.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
        With an imageset that can be read.
    frames : int
        How many frames; all of them if there are fewer.

    Returns
    -------
    list of PixelSample
        One a panel. Memory: five arrays of the detector's size.
    """
    count = len(experiment.imageset)
    chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int))
    shapes = [tuple(reversed(panel.get_image_size())) for panel in experiment.detector]
    valid = [np.zeros(shape, dtype=np.int32) for shape in shapes]
    total = [np.zeros(shape) for shape in shapes]
    largest = [np.zeros(shape) for shape in shapes]
    second = [np.zeros(shape) for shape in shapes]
    for index in chosen:
        for i, (panel, raw) in enumerate(zip(experiment.detector, frame_arrays(experiment.imageset, int(index)))):
            lowest, highest = trusted_limits(panel, raw.dtype)
            inside = (raw >= lowest) & (raw <= highest)
            photons = np.where(inside, (raw - panel.get_pedestal()) / panel.get_gain(), 0.0)
            valid[i] += inside
            total[i] += photons
            np.maximum(second[i], np.minimum(largest[i], photons), out=second[i])
            np.maximum(largest[i], photons, out=largest[i])
    return [PixelSample(len(chosen), v, t - a - b) for v, t, a, b in zip(valid, total, largest, second)]
