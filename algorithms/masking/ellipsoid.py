"""Ellipsoids round the lattice points: the region of reciprocal space that Bragg peaks fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class BraggEllipsoids:
    """One ellipsoid a lattice point, all of one shape, each of its own size.

    A point h (fractional Miller indices) next to the lattice point g lies inside where
    (h - g)^T W (h - g) < radius_squared[g].

    Attributes
    ----------
    weight : ndarray, shape (6,), float32
        W as (11, 22, 33, 12, 13, 23).
    radius_squared : ndarray, shape (2 n_h + 1, 2 n_k + 1, 2 n_l + 1), float32
        0 where no peak can be (absences by centring).
    """

    weight: np.ndarray
    radius_squared: np.ndarray

    @classmethod
    def none(cls) -> BraggEllipsoids:
        """No peaks anywhere."""
        return cls(np.zeros(6, dtype=np.float32), np.zeros((1, 1, 1), dtype=np.float32))

    @classmethod
    def from_covariance(cls, covariance: np.ndarray, radius_squared: np.ndarray) -> BraggEllipsoids:
        """From the covariance, shape (3, 3), of fractional Miller indices over a peak."""
        inverse = np.linalg.inv(covariance)
        rows, columns = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
        return cls(inverse[rows, columns].astype(np.float32), radius_squared.astype(np.float32))

    @property
    def largest(self) -> np.float32:
        """The largest radius squared: no pixel further out needs a closer look."""
        return np.float32(self.radius_squared.max())

    def frame_mask(self, rays: np.ndarray, ray_to_hkl: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Which pixels of one panel see no Bragg peak on one frame.

        Parameters
        ----------
        rays : ndarray, shape (slow, 3, fast), float32
            Of :func:`dials_diffuse.geometry.detector_rays`.
        ray_to_hkl : tuple of ndarray
            Of :meth:`dials_diffuse.geometry.IndexMapping.ray_to_hkl`.

        Returns
        -------
        ndarray, shape (slow, fast), bool
            True where a pixel is good.
        """
        m, c = (array.astype(np.float32) for array in ray_to_hkl)
        return _frame_mask(rays, m, c, self.weight, self.radius_squared)


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


@njit(cache=True, nogil=True)
def _frame_mask(rays, m, c, w, radius_squared):
    good = np.empty((rays.shape[0], rays.shape[2]), dtype=np.bool_)
    for y in range(rays.shape[0]):
        for x in range(rays.shape[2]):
            good[y, x] = not sees_bragg(rays[y, 0, x], rays[y, 1, x], rays[y, 2, x], m, c, w, radius_squared)
    return good
