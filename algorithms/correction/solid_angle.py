"""The solid angle of a pixel."""

from __future__ import annotations

import numpy as np
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.model import CorrectionModel


class SolidAngle(CorrectionModel):
    """Solid angle of a pixel, Omega = a cos(omega) / d^2 in steradian.

    a is the pixel's area, d its distance from the crystal, omega the angle between the ray and the panel's normal: the
    projection of a small flat area on the unit sphere. d ends where the ray enters the sensor; that photons are
    absorbed a little deeper makes the pixel's cone narrower by twice the mean depth over d (0.45 mm of Si at 12.4 keV
    and 150 mm: 0.2 %, the same within 0.1 % to 45 degrees), which is neglected.
    """

    name = "solid_angle"
    same_on_all_frames = True
    phil_scope = parse(
        """
  use = True
    .type = bool
    .help = "Divide by the solid angle of the pixel in steradian."
"""
    )

    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        return geometry.pixel_area * geometry.cos_incidence / geometry.distance**2
