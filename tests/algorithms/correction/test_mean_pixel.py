"""An observation's response is computed at its mean pixel: how far is that from the sum over its pixels?"""

from __future__ import annotations

import numpy as np
import pytest
from correction_data import make_experiment
from dxtbx.model import Detector, ParallaxCorrectedPxMmStrategy

from dials_diffuse.algorithms.correction.combined import CombinedCorrection, correction_scope
from dials_diffuse.algorithms.correction.geometry import PixelGeometry


@pytest.mark.parametrize("distance", [100, 150, 200])
@pytest.mark.parametrize("tilt", [0, 25])
def test_error_of_the_mean_pixel_is_below_one_in_a_thousand(distance, tilt):
    """30 x 30 pixels of 0.172 mm, whole or with half of them masked, anywhere on a panel up to 60 degrees."""
    size = 1500
    detector = Detector()
    panel = detector.add_panel()
    panel.set_pixel_size((0.172, 0.172))
    panel.set_image_size((size, size))
    fast = (np.cos(np.radians(tilt)), 0, np.sin(np.radians(tilt)))
    origin = np.array([0, 0, -distance]) - 30 * np.array(fast) - np.array([0, 40, 0])
    panel.set_frame(fast, (0, 1, 0), tuple(origin))
    panel.set_mu(2.1)
    panel.set_thickness(0.45)
    panel.set_px_mm_strategy(ParallaxCorrectedPxMmStrategy(2.1, 0.45))
    experiment = make_experiment(detector=detector)
    corrections = CombinedCorrection(correction_scope().extract().correction)
    rng = np.random.default_rng(distance)
    patch = np.stack([*np.mgrid[:30, :30].reshape(2, -1) + 0.5, np.zeros(900)], axis=-1)
    errors = []
    for corner in rng.integers(0, size - 30, (150, 2)):
        pixels = patch + [*corner, 0]
        if panel.get_two_theta_at_pixel(experiment.beam.get_s0(), tuple(corner + 15.0)) > np.radians(60):
            continue
        if rng.random() < 0.5:
            pixels = pixels[rng.random(900) < 0.5]
        whole = corrections.factor(PixelGeometry(experiment, 0, pixels)).sum()
        mean = len(pixels) * corrections.factor(PixelGeometry(experiment, 0, pixels.mean(axis=0)[None]))[0]
        errors.append(mean / whole - 1)
    assert len(errors) > 40
    assert np.abs(errors).max() < 1e-3
    assert np.abs(np.mean(errors)) < 5e-4
