"""The polarisation of the beam."""

from __future__ import annotations

import numpy as np
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.model import CorrectionModel


class Polarisation(CorrectionModel):
    """Polarisation factor of a partly polarised beam, without unit.

    P = (1 - 2 p) (1 - (n . s1)^2) + p (1 + (s0 . s1)^2), with unit vectors, n the beam's polarisation normal and p its
    polarisation fraction (1/2 is unpolarised). Source: Kabsch, J. Appl. Cryst. 21 (1988) 916, "Data correction and
    scaling", as in DIALS (algorithms/integration/corrections.h, of which this is the inverse). It is the same as
    p (1 - (e . s1)^2) + (1 - p) (1 - (n . s1)^2) with e perpendicular to n and s0. Normal and fraction are the beam
    model's: correct them in dials.import, with geometry.beam.polarization_fraction.
    """

    name = "polarisation"
    same_on_all_frames = True
    phil_scope = parse(
        """
  use = True
    .type = bool
    .help = "Divide by the polarisation factor, from the polarisation normal and fraction of the beam model."
"""
    )

    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        fraction = geometry.beam.get_polarization_fraction()
        normal = np.array(geometry.beam.get_polarization_normal())
        along_normal = geometry.s1 @ (normal / np.linalg.norm(normal))
        along_beam = geometry.s1 @ np.array(geometry.beam.get_unit_s0())
        return (1 - 2 * fraction) * (1 - along_normal**2) + fraction * (1 + along_beam**2)
