"""Ellipsoids round the lattice points: the region of reciprocal space that Bragg peaks fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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

    def mask_pixels(
        self, array: np.ndarray, value: bool | int | float, rays: np.ndarray, ray_to_hkl: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Put a value into the pixels of one panel that see a Bragg peak on one frame.

        Parameters
        ----------
        array : ndarray, shape (slow, fast)
            Changed in place: a mask, or the frame itself.
        value
            Of the array's type.
        rays : ndarray, shape (slow, 3, fast), float32
            Of :func:`dials_diffuse.rays.detector_rays`.
        ray_to_hkl : tuple of ndarray
            Of :meth:`dials_diffuse.geometry.IndexMapping.ray_to_hkl`.
        """
        from dials_diffuse.algorithms.masking.ellipsoid import mask_pixels  # compiled, which help does without

        m, c = (part.astype(np.float32) for part in ray_to_hkl)
        mask_pixels(array, array.dtype.type(value), rays, m, c, self.weight, self.radius_squared, self.largest)
