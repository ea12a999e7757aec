"""Unit vectors from the crystal through all pixels of a detector."""

from __future__ import annotations

import copy
import math

import numpy as np
from dxtbx.model import Detector, Panel, ParallaxCorrectedPxMmStrategy, SimplePxMmStrategy
from numba import njit

from dials_diffuse.geometry import pixel_directions

#: Rows of a panel whose rays are computed at once where that takes temporaries.
ROWS = 64


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
    comparable = all("Offset" not in panel.get_px_mm_strategy().__class__.__name__ for panel in detector)
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
    if type(strategy) in (SimplePxMmStrategy, ParallaxCorrectedPxMmStrategy):
        # The same by dxtbx takes ten times as long.
        absorption = (strategy.mu(), strategy.t0()) if type(strategy) is ParallaxCorrectedPxMmStrategy else (0.0, 0.0)
        axes = [np.array(axis) for axis in (panel.get_origin(), panel.get_fast_axis(), panel.get_slow_axis())]
        _fill(rays, *axes, *panel.get_pixel_size(), *absorption)
        return rays
    for start in range(0, nslow, ROWS):
        y, x = np.mgrid[start : min(start + ROWS, nslow), 0:nfast] + 0.5
        rays[start : start + ROWS] = pixel_directions(panel, x.ravel(), y.ravel()).reshape(*x.shape, 3).swapaxes(1, 2)
    return rays


@njit(cache=True, nogil=True)
def _fill(rays, origin, fast, slow, width, height, mu, thickness):
    """Fill a panel's rays; a ``mu`` of 0 means no parallax.

    Parallax as in dxtbx/model/parallax_correction.h: photons that come at an angle whose cosine is c are absorbed at a
    mean depth of 1 / mu - (thickness / c + 1 / mu) exp(-mu thickness / c) along the ray, so that their pixel tells of a
    place so much before.
    """
    normal = np.cross(fast, slow)
    for j in range(rays.shape[0]):
        y = (j + 0.5) * height
        for i in range(rays.shape[2]):
            x = (i + 0.5) * width
            u, v, w = _unit(origin, fast, slow, x, y)
            if mu > 0:
                path = thickness / (u * normal[0] + v * normal[1] + w * normal[2])
                depth = 1 / mu - (path + 1 / mu) * math.exp(-mu * path)
                along_fast = u * fast[0] + v * fast[1] + w * fast[2]
                along_slow = u * slow[0] + v * slow[1] + w * slow[2]
                u, v, w = _unit(origin, fast, slow, x - depth * along_fast, y - depth * along_slow)
            rays[j, 0, i], rays[j, 1, i], rays[j, 2, i] = u, v, w


@njit(cache=True, nogil=True)
def _unit(origin, fast, slow, x, y):
    u = origin[0] + x * fast[0] + y * slow[0]
    v = origin[1] + x * fast[1] + y * slow[1]
    w = origin[2] + x * fast[2] + y * slow[2]
    length = math.sqrt(u * u + v * v + w * w)
    return u / length, v / length, w / length
