"""The compiled tests for pixels that look into a Bragg ellipsoid (bragg_ellipsoids.py)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def mahalanobis(e0: np.float32, e1: np.float32, e2: np.float32, w: np.ndarray) -> np.float32:
    """e^T W e with W as (11, 22, 33, 12, 13, 23)."""
    two = np.float32(2)
    return e0 * (w[0] * e0 + two * (w[3] * e1 + w[4] * e2)) + e1 * (w[1] * e1 + two * w[5] * e2) + w[2] * e2 * e2


@njit(cache=True, nogil=True)
def sees_bragg(
    x: np.float32, y: np.float32, z: np.float32, m: np.ndarray, c: np.ndarray, w: np.ndarray, radius_squared: np.ndarray
) -> bool:
    """Whether the pixel with the unit ray (x, y, z) looks into the ellipsoid of its nearest lattice point."""
    n0, n1, n2 = radius_squared.shape
    half = np.float32(0.5)
    h = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + c[0]
    k = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + c[1]
    l = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + c[2]
    g0, g1, g2 = np.floor(h + half), np.floor(k + half), np.floor(l + half)
    i, j, o = int(g0) + n0 // 2, int(g1) + n1 // 2, int(g2) + n2 // 2
    if i < 0 or i >= n0 or j < 0 or j >= n1 or o < 0 or o >= n2:
        return False
    return mahalanobis(h - g0, k - g1, l - g2, w) < radius_squared[i, j, o]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def _find_near(x, y, z, m, c, w, largest, near):
    """Which pixels of a row may see a peak, ``near``, by its distance alone: a loop that is made of vectors.

    A positive number is cut to the next lower integer: the shift makes indices positive before the cast.
    """
    half, shift = np.float32(0.5), np.float32(4096.5)
    m00, m01, m02, c0 = m[0, 0], m[0, 1], m[0, 2], c[0]
    m10, m11, m12, c1 = m[1, 0], m[1, 1], m[1, 2], c[1]
    m20, m21, m22, c2 = m[2, 0], m[2, 1], m[2, 2], c[2]
    for i in range(x.shape[0]):
        h = m00 * x[i] + m01 * y[i] + m02 * z[i] + c0
        k = m10 * x[i] + m11 * y[i] + m12 * z[i] + c1
        l = m20 * x[i] + m21 * y[i] + m22 * z[i] + c2
        e0 = h + half - np.float32(np.int32(h + shift) - np.int32(4096)) - half
        e1 = k + half - np.float32(np.int32(k + shift) - np.int32(4096)) - half
        e2 = l + half - np.float32(np.int32(l + shift) - np.int32(4096)) - half
        near[i] = mahalanobis(e0, e1, e2, w) < largest


@njit(cache=True, nogil=True)
def mask_pixels(array, value, rays, m, c, w, radius_squared, largest):
    """See :meth:`BraggEllipsoids.mask_pixels`."""
    near = np.empty(rays.shape[2], dtype=np.bool_)
    for y in range(rays.shape[0]):
        ray_x, ray_y, ray_z = rays[y, 0], rays[y, 1], rays[y, 2]
        _find_near(ray_x, ray_y, ray_z, m, c, w, largest, near)
        for x in range(rays.shape[2]):
            if near[x] and sees_bragg(ray_x[x], ray_y[x], ray_z[x], m, c, w, radius_squared):
                array[y, x] = value
