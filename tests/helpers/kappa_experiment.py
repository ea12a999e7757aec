"""An experiment in which nothing is simple."""

from __future__ import annotations

import numpy as np
from dxtbx.model import (
    BeamFactory,
    Crystal,
    Detector,
    Experiment,
    GoniometerFactory,
    ParallaxCorrectedPxMmStrategy,
    Scan,
)
from scitbx import matrix

WAVELENGTH = 0.9763


def kappa_experiment(panels: int = 4) -> Experiment:
    """Tilted panels with parallax, a kappa goniometer off zero, a setting rotation, a triclinic crystal."""
    beam = BeamFactory.make_beam(sample_to_source=(0.01, -0.02, 1), wavelength=WAVELENGTH)
    detector = Detector()
    for i in range(panels):
        angle = np.radians(-20 + 15 * i)
        panel = detector.add_panel()
        fast = matrix.col((np.cos(angle), 0, np.sin(angle)))
        slow = matrix.col((0, -0.9997, 0.0245)).normalize()
        slow = (slow - fast * fast.dot(slow)).normalize()
        panel.set_frame(fast, slow, matrix.col((-60 + 33 * i, 45 + i, -130 - 6 * i)))
        panel.set_image_size((180, 500))
        panel.set_pixel_size((0.172, 0.172))
        panel.set_trusted_range((-1, 1e6))
        panel.set_thickness(0.45)
        panel.set_material("Si")
        panel.set_mu(3.96)

        panel.set_px_mm_strategy(ParallaxCorrectedPxMmStrategy(3.96, 0.45))
    goniometer = GoniometerFactory.make_kappa_goniometer(50, 20, 35, 0, "+y", "omega")
    goniometer.set_setting_rotation(matrix.col((0.3, 1, -0.2)).axis_and_angle_as_r3_rotation_matrix(2.5, deg=True))
    scan = Scan((11, 310), (33.0, 0.3))
    crystal = Crystal((31, 4, -5), (-2, 42, 7), (3, -9, 55), "P1")
    return Experiment(beam=beam, detector=detector, goniometer=goniometer, scan=scan, crystal=crystal)
