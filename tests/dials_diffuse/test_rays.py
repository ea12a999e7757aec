"""Rays through pixels."""

from __future__ import annotations

import numpy as np
import pytest
from dials.array_family import flex
from dxtbx.model import (
    OffsetParallaxCorrectedPxMmStrategy,
    OffsetPxMmStrategy,
    ParallaxCorrectedPxMmStrategy,
    SimplePxMmStrategy,
)
from kappa_experiment import kappa_experiment
from scitbx import matrix

from dials_diffuse.rays import detector_rays


def offsets(seed: int) -> flex.double:
    values = flex.double(np.random.default_rng(seed).normal(0, 2, 500 * 180))
    values.reshape(flex.grid(500, 180))
    return values


STRATEGIES = {
    "simple": lambda: SimplePxMmStrategy(),
    "parallax": lambda: ParallaxCorrectedPxMmStrategy(3.96, 0.45),
    "thick": lambda: ParallaxCorrectedPxMmStrategy(0.4, 2.0),
    "offset": lambda: OffsetPxMmStrategy(offsets(0), offsets(1)),
    "parallax and offset": lambda: OffsetParallaxCorrectedPxMmStrategy(3.96, 0.45, offsets(0), offsets(1)),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rays_go_through_pixel_centres(strategy):
    """On tilted panels, as dxtbx has it pixel by pixel."""
    detector = kappa_experiment().detector
    for panel in detector:
        panel.set_pixel_size((0.172, 0.2))
        panel.set_px_mm_strategy(STRATEGIES[strategy]())
    rays = detector_rays(detector)
    assert len(rays) == 4
    for number, panel in enumerate(detector):
        assert rays[number].shape == (500, 3, 180)
        assert rays[number].dtype == np.float32
        for x, y in ((0, 0), (179, 0), (77, 333), (178, 64), (179, 499)):
            lab = matrix.col(panel.get_lab_coord(panel.pixel_to_millimeter((x + 0.5, y + 0.5)))).normalize()
            assert rays[number][y, :, x] == pytest.approx(lab.elems, abs=1e-7)


def test_rays_of_the_last_detector_are_kept():
    detector = kappa_experiment().detector
    first = detector_rays(detector)
    assert detector_rays(kappa_experiment().detector) is first
    detector[1].set_frame(detector[1].get_fast_axis(), detector[1].get_slow_axis(), (0, 0, -200))
    moved = detector_rays(detector)
    assert moved is not first
    assert np.abs(moved[1] - first[1]).max() > 0.01
