"""Unit vectors from the crystal through all pixels of a detector."""

from __future__ import annotations

import copy

import numpy as np
from dxtbx.model import Detector, Panel, ParallaxCorrectedPxMmStrategy, SimplePxMmStrategy

from dials_diffuse.geometry import pixel_directions

#: Rows of a panel whose rays are computed at once where that takes temporaries.
ROWS = 64
#: Maps from pixels to millimetres that a formula tells: the others have tables of offsets.
FORMULAS = (SimplePxMmStrategy, ParallaxCorrectedPxMmStrategy)


def detector_rays(detector: Detector) -> list[np.ndarray]:
    """Unit vectors from the crystal through the centres of all pixels, for all panels.

    The rays of the detector that was asked for last are kept: masks and extraction need the same ones.

    Parameters
    ----------
    detector : dxtbx.model.Detector
        The panels' own px-mm strategies are used, so parallax is included where the detector model has it.

    Returns
    -------
    list of ndarray, shape (slow, 3, fast), float32
        In the laboratory frame, one a panel; the components of a row of pixels lie together, as the extraction reads
        them. Memory: 12 bytes a pixel, shared with forked processes.
    """
    global _last
    # Tables of pixel offsets do not take part in the comparison of detectors.
    comparable = all(type(panel.get_px_mm_strategy()) in FORMULAS for panel in detector)
    if _last is not None and comparable and _last[0] == detector:
        return _last[1]
    rays = [_panel_rays(panel) for panel in detector]
    _last = (copy.deepcopy(detector), rays) if comparable else None
    return rays


_last: tuple[Detector, list[np.ndarray]] | None = None


def _panel_rays(panel: Panel) -> np.ndarray:
    nfast, nslow = panel.get_image_size()
    rays = np.empty((nslow, 3, nfast), dtype=np.float32)
    strategy = panel.get_px_mm_strategy()
    if type(strategy) in FORMULAS:
        from dials_diffuse.ray_kernel import fill  # compiled, which help does without; dxtbx takes ten times as long

        absorption = (strategy.mu(), strategy.t0()) if type(strategy) is ParallaxCorrectedPxMmStrategy else (0.0, 0.0)
        axes = [np.array(axis) for axis in (panel.get_origin(), panel.get_fast_axis(), panel.get_slow_axis())]
        fill(rays, *axes, *panel.get_pixel_size(), *absorption)
        return rays
    for start in range(0, nslow, ROWS):
        y, x = np.mgrid[start : min(start + ROWS, nslow), 0:nfast] + 0.5
        rays[start : start + ROWS] = pixel_directions(panel, x.ravel(), y.ravel()).reshape(*x.shape, 3).swapaxes(1, 2)
    return rays
