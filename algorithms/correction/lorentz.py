"""The Lorentz factor, which diffuse scattering does not need."""

from __future__ import annotations

import numpy as np
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.model import CorrectionModel


class Lorentz(CorrectionModel):
    """Lorentz factor of a Bragg reflection integrated over a rotation, L = 1 / |s1 . (m2 x s0)|, without unit.

    s1, s0 and the rotation axis m2 are unit vectors; 1 for a still. Source: Kabsch, J. Appl. Cryst. 21 (1988) 916, as
    in DIALS (algorithms/integration/corrections.h, whose ``lp`` multiplies by its inverse).

    It is the time that a point of reciprocal space spends near the Ewald sphere, and belongs to intensities integrated
    through a Bragg peak. A pixel that counts diffuse scattering measures the cross-section where it looks, for as long
    as it is exposed: no such factor. Hence off.
    """

    name = "lorentz"
    same_on_all_frames = True
    phil_scope = parse(
        """
  use = False
    .type = bool
    .help = "Divide by the Lorentz factor of a rotation. Off because it belongs to Bragg peaks integrated through a"
            "rotation: a pixel that counts diffuse scattering measures the cross-section itself, whatever the speed at"
            "which reciprocal space passes through it. For comparison with programs that apply it."
"""
    )

    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        goniometer = geometry.experiment.goniometer
        if goniometer is None or geometry.rotation_angle is None:
            return np.ones(len(geometry.xyz))
        normal = np.cross(goniometer.get_rotation_axis(), geometry.beam.get_unit_s0())
        with np.errstate(divide="ignore"):  # on the axis: infinite, reported by CombinedCorrection
            return 1.0 / np.abs(geometry.s1 @ normal)
