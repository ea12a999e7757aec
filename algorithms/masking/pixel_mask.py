"""The static pixel mask of what one detector took, put together from all its sources."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import libtbx.phil
import numpy as np
from dials.util import Sorry, masking, tabulate
from dxtbx import flumpy

from dials_diffuse.algorithms.masking.bad_pixels import bad_pixel_masks
from dials_diffuse.algorithms.masking.beam_stop import beam_stop_masks
from dials_diffuse.algorithms.masking.mask_file import PixelMask
from dials_diffuse.algorithms.masking.sample import ShownFrame, sample_pixels
from dials_diffuse.algorithms.masking.virtual_pixels import virtual_pixel_mask
from dials_diffuse.images import static_mask

logger = logging.getLogger("dials.diffuse.masking")

#: Frames that it takes to judge a pixel: two of its values are left out, and none may decide alone.
FEWEST = 4


def pixel_mask(frames: Sequence[ShownFrame], params: libtbx.phil.scope_extract, level: int = logging.INFO) -> PixelMask:
    """Mask the pixels that are bad on all frames and log how many each reason takes.

    Parameters
    ----------
    frames : sequence of ShownFrame
        All that one detector took, of a sweep or of many stills; with images that can be read. Bragg peaks are no
        reason to call a pixel bad.
    params : libtbx.phil.scope_extract
        The scope ``mask``.
    level : int
        Of the table for the log.

    Returns
    -------
    tuple of ndarray, shape (slow, fast), bool
        One a panel, True where a pixel is good.

    Raises
    ------
    Sorry
        If no pixel is left.
    """
    experiment = frames[0].experiment
    detector = experiment.detector
    good = list(static_mask(experiment.imageset))
    lost = {"format and detector model": _count(good)}

    shapes = [flumpy.to_numpy(panel) for panel in masking.generate_mask(experiment.imageset, params)]
    lost["shapes and resolution"] = _apply(good, shapes)
    if params.virtual_pixels:
        lost["virtual pixels between chips"] = _apply(good, [virtual_pixel_mask(panel) for panel in detector])
    if params.bad_pixels.find or params.beam_stop.find:
        samples = sample_pixels(frames, params.bad_pixels.frames)
        if params.beam_stop.find:
            shadows = beam_stop_masks(samples, detector, experiment.beam, good, params.beam_stop)
            lost["beam stop"] = _apply(good, [~shadow for shadow in shadows])
        if params.bad_pixels.find and len(frames) < FEWEST:
            logger.log(level, "%d frames are too few to tell bad pixels: none is looked for.", len(frames))
        elif params.bad_pixels.find:
            found = [bad_pixel_masks(sample, mask, params.bad_pixels) for sample, mask in zip(samples, good)]
            for reason in found[0]:
                lost[reason] = _apply(good, [~panel[reason] for panel in found])

    total = sum(mask.size for mask in good)
    left = sum(int(np.count_nonzero(mask)) for mask in good)
    rows = [(reason, number, f"{100 * number / total:.3f}") for reason, number in lost.items()]
    rows.append(("good", left, f"{100 * left / total:.3f}"))
    logger.log(level, tabulate(rows, headers=("Pixels masked by", "number", "%")))
    if not left:
        raise Sorry("The masks leave no pixel: check mask.* (untrusted shapes, d_min, d_max) and the trusted range.")
    return tuple(good)


def _count(good: list[np.ndarray]) -> int:
    return sum(int(np.count_nonzero(~mask)) for mask in good)


def _apply(good: list[np.ndarray], masks: list[np.ndarray]) -> int:
    """Take masks into ``good`` in place; how many pixels that takes away."""
    before = _count(good)
    for panel, mask in zip(good, masks):
        panel &= mask
    return _count(good) - before
