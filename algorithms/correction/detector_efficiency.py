"""The part of the photons that the sensor absorbs."""

from __future__ import annotations

import logging

import libtbx.phil
import numpy as np
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.model import CorrectionModel

logger = logging.getLogger("dials.diffuse.correction")


class DetectorEfficiency(CorrectionModel):
    """Quantum efficiency of the sensor, E = 1 - exp(-mu t0 / cos(omega)), without unit.

    mu is the sensor's attenuation coefficient in 1/mm and t0 its thickness in mm, from the panel; omega is the angle
    between the ray and the panel's normal. Source: the law of Beer and Lambert, as in DIALS
    (algorithms/integration/corrections.h, ``qe_correction``). Where the panel does not say what its sensor is made of,
    the factor is 1.
    """

    name = "detector_efficiency"
    same_on_all_frames = True
    phil_scope = parse(
        """
  use = True
    .type = bool
    .help = "Divide by the sensor's quantum efficiency at the angle of incidence, from the detector model's attenuation"
            "coefficient and thickness."
"""
    )

    def __init__(self, params: libtbx.phil.scope_extract) -> None:
        super().__init__(params)
        self._warned = False

    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        depth = geometry.panel.get_mu() * geometry.panel.get_thickness()
        if not depth > 0:
            self._warn(geometry)
            return np.ones(len(geometry.xyz))
        return -np.expm1(-depth / geometry.cos_incidence)

    def _warn(self, geometry: PixelGeometry) -> None:
        if not self._warned:
            logger.warning(
                "The material or the thickness of the detector's sensor is unknown (panel %d%s): its efficiency is "
                "taken as 1 whatever the angle of incidence. If you know them, give them to dials.import "
                "(geometry.detector.panel.material=Si, .thickness=0.45).",
                geometry.panel_index,
                f", {geometry.panel.get_name()}" if geometry.panel.get_name() else "",
            )
        self._warned = True
