"""What each pixel does over a sample of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dxtbx.model import Experiment
from numba import njit

from dials_diffuse.algorithms.masking.bragg import BraggMask
from dials_diffuse.images import frame_arrays, trusted_limits


@dataclass(frozen=True)
class ShownFrame:
    """A frame and all that it shows.

    Attributes
    ----------
    experiment : Experiment
        One of those that it belongs to.
    index : int
        Its number in that, from 0.
    peaks : list of (BraggMask, int)
        The Bragg peaks of every lattice, with the frame's number in that lattice's experiment.
    """

    experiment: Experiment
    index: int
    peaks: list[tuple[BraggMask, int]]


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


def sample_pixels(frames: Sequence[ShownFrame], count: int) -> list[PixelSample]:
    """Look at some of the frames that one detector took, evenly spread over them.

    Parameters
    ----------
    frames : sequence of ShownFrame
        With images that can be read. Bragg peaks that their masks miss are caught by leaving out every pixel's two
        largest values.
    count : int
        How many frames; all of them if there are fewer.

    Returns
    -------
    list of PixelSample
        One a panel. Memory: 25 bytes a pixel, and the rays.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    sizes = [panel.get_image_size() for panel in frames[0].experiment.detector]
    sums = [np.zeros((5, nslow, nfast), dtype=np.float32) for nfast, nslow in sizes]
    for frame in (frames[i] for i in chosen):
        raw = frame_arrays(frame.experiment.imageset, frame.index)
        free = [np.ones(array.shape, dtype=bool) for array in raw]
        for bragg, index in frame.peaks:
            bragg.mask_frame(index, free, [False] * len(free))
        for panel, array, off_peaks, panel_sums in zip(frame.experiment.detector, raw, free, sums):
            limits = trusted_limits(panel, array.dtype)
            _add_frame(array, *limits, panel.get_pedestal(), panel.get_gain(), off_peaks, panel_sums)
    return [
        PixelSample(len(chosen), valid, np.maximum(used - 2, 0), np.maximum(total - largest - second, 0))
        for valid, used, total, largest, second in sums
    ]


@njit(cache=True, nogil=True)
def _add_frame(raw, lowest, highest, pedestal, gain, off_peaks, sums):
    """Add a frame of a panel to ``sums``: valid, used, total, largest, second largest."""
    zero, one = np.float32(0), np.float32(1)
    for y in range(raw.shape[0]):
        valid, used, total, largest, second = sums[0, y], sums[1, y], sums[2, y], sums[3, y], sums[4, y]
        for x in range(raw.shape[1]):  # without branches: vector instructions
            trusted = (raw[y, x] >= lowest) & (raw[y, x] <= highest)
            counts = trusted & off_peaks[y, x]
            photons = np.float32((raw[y, x] - pedestal) / gain) if counts else zero
            valid[x] += one if trusted else zero
            used[x] += one if counts else zero
            total[x] += photons
            second[x] = max(second[x], min(largest[x], photons))
            largest[x] = max(largest[x], photons)
