"""The shadow of the beam stop."""

from __future__ import annotations

import libtbx.phil
import numpy as np
from dxtbx.model import Beam, Panel
from scipy import ndimage

from dials_diffuse.algorithms.masking.sample import PixelSample

#: Smallest and largest side of the box, in pixels, over which counts are averaged before they are compared.
BOX_RANGE = (5, 15)
#: Photons that should be expected in the box: fewer, and the shadow is lost in the noise.
PHOTONS = 100


def beam_stop_mask(
    sample: PixelSample, panel: Panel, beam: Beam, good: np.ndarray, params: libtbx.phil.scope_extract
) -> np.ndarray:
    """Find the shadow that covers the direct beam.

    Scattering falls off with distance from the beam, so at any radius at least as many photons are expected as the
    brightest ring (by its median) further out has. Pixels with less than ``params.threshold`` of that, connected to the
    beam centre, are the shadow, with the holes in it (a leak of the direct beam) filled.

    Parameters
    ----------
    sample : PixelSample
    panel : dxtbx.model.Panel
    beam : dxtbx.model.Beam
    good : ndarray, shape (slow, fast), bool
        Pixels that other masks have left.
    params : libtbx.phil.scope_extract
        The scope ``mask.beam_stop``.

    Returns
    -------
    ndarray, shape (slow, fast), bool
        True in the shadow; all False if the direct beam does not hit the panel or is not covered.
    """
    nslow, nfast = good.shape
    nothing = np.zeros_like(good)
    try:
        beam_x, beam_y = panel.get_beam_centre_px(beam.get_s0())
    except RuntimeError:  # the beam does not meet the panel's plane
        return nothing
    if not (0 <= beam_x < nfast and 0 <= beam_y < nslow):
        return nothing

    usable = good & (sample.used > 0)
    box = int(np.ceil(np.sqrt(PHOTONS / max(sample.total[usable].mean(), 1e-9)))) | 1
    box = min(max(box, BOX_RANGE[0]), BOX_RANGE[1])
    share = ndimage.uniform_filter(usable.astype(float), box)
    mean = ndimage.uniform_filter(np.where(usable, sample.total / np.maximum(sample.used, 1), 0.0), box)
    mean /= np.maximum(share, 1.0 / box**2)

    y, x = np.ogrid[:nslow, :nfast]
    radius = np.hypot(x + 0.5 - beam_x, y + 0.5 - beam_y).astype(int) // box
    medians = ndimage.median(mean, np.where(usable, radius, -1), np.arange(radius.max() + 1))
    medians = np.nan_to_num(medians)
    expected = np.maximum.accumulate(medians[::-1])[::-1]
    dark = usable & (mean < params.threshold * expected[radius])

    labels, _ = ndimage.label(dark | ~usable)
    near = radius <= 1 + np.argmax(expected < expected[0])  # the stop reaches at least to where the rings grow darker
    touching = np.unique(labels[near & dark])
    shadow = np.isin(labels, touching[touching > 0]) & dark
    shadow = ndimage.binary_fill_holes(shadow)
    if shadow.any():
        # Averaging blurs the edge, so that the threshold is met this far inside the shadow.
        inside = round((0.5 - params.threshold) * box)
        shadow = ndimage.binary_dilation(shadow, iterations=max(params.margin + inside, 1))
    return shadow
