"""The compiled loop that makes the rays of a panel."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fill(rays, origin, fast, slow, width, height, mu, thickness):
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
