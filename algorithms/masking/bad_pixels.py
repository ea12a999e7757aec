"""Pixels that behave badly: hot, dead, or mostly outside the trusted range."""

from __future__ import annotations

import libtbx.phil
import numpy as np
from scipy.ndimage import uniform_filter

from dials_diffuse.algorithms.masking.sample import PixelSample

#: Side of the neighbourhood, in pixels, that a pixel is compared with.
NEIGHBOURHOOD = 15


def bad_pixel_masks(sample: PixelSample, good: np.ndarray, params: libtbx.phil.scope_extract) -> dict[str, np.ndarray]:
    """Compare each pixel with its neighbourhood.

    Counts are small (0.05 photons a pixel is usual), so a pixel is judged by its total over the sample against the
    Poisson distribution of its neighbours' mean. The two largest values of every pixel are left out of the total, so
    that a Bragg peak that passed over it does not make it hot.

    Parameters
    ----------
    sample : PixelSample
    good : ndarray, shape (slow, fast), bool
        Pixels that other masks have left.
    params : libtbx.phil.scope_extract
        The scope ``mask.bad_pixels``.

    Returns
    -------
    dict of str to ndarray, shape (slow, fast), bool
        ``untrusted``, ``hot``, ``dead``: True where a pixel is bad for that reason.
    """
    untrusted = good & (2 * sample.valid <= sample.frames)
    candidates = good & ~untrusted & (sample.used > 0)
    hot, dead = np.zeros_like(good), np.zeros_like(good)
    # What a round finds is left out of the neighbourhoods of the next, which judges all pixels anew. The first looks
    # for hot pixels only: next to a very hot one, good pixels seem dead.
    judged = None
    for look_for_dead in (False, True, True):
        judged_before, judged = judged, candidates & ~hot & ~dead
        if not np.array_equal(judged, judged_before):
            expected = _neighbourhood_rate(sample, judged) * sample.used
            sigma = np.sqrt(np.maximum(expected, 1.0))
        hot = candidates & (sample.total > np.maximum(expected * params.ratio, expected + params.n_sigma * sigma))
        if look_for_dead:
            dead = candidates & (sample.total < np.minimum(expected / params.ratio, expected - params.n_sigma * sigma))
    return {"untrusted": untrusted, "hot": hot, "dead": dead}


def _neighbourhood_rate(sample: PixelSample, judged: np.ndarray) -> np.ndarray:
    """Photons a value in the neighbourhood of each pixel, itself left out; shape (slow, fast)."""
    photons = np.where(judged, sample.total, 0.0)
    values = np.where(judged, sample.used, 0.0)
    area = NEIGHBOURHOOD**2
    sums = [uniform_filter(array, NEIGHBOURHOOD, mode="constant") * area - array for array in (photons, values)]
    return np.maximum(sums[0], 0.0) / np.maximum(np.round(sums[1]), 1.0)
