"""The true instrument: dxtbx models of beam, detector and goniometer, and what its headers say instead."""

from __future__ import annotations

from dataclasses import dataclass

import libtbx.phil
import numpy as np
from cctbx.eltbx import attenuation_coefficient
from dxtbx.model import (
    Beam,
    BeamFactory,
    Detector,
    Goniometer,
    GoniometerFactory,
    Panel,
    ParallaxCorrectedPxMmStrategy,
    SimplePxMmStrategy,
)

from dials_diffuse.images import limits_are_trusted

PIXEL_SIZE = 0.172  # mm
MODULE = (487, 195)  # pixels along fast and slow (dxtbx/format/FormatPilatusHelpers.py)
GAP = (7, 17)
MODULES = {"100K": (1, 1), "300K": (1, 3), "1M": (2, 5), "2M": (3, 8), "6M": (5, 12)}
#: Largest count a Pilatus is trusted to report.
COUNT_CUTOFF = 1048500


@dataclass(frozen=True)
class Module:
    """A rectangle of active pixels: offset and size along fast and slow, in pixels."""

    offset: tuple[int, int]
    size: tuple[int, int]


def modules(params: libtbx.phil.scope_extract) -> list[Module]:
    """The modules of a detector in the order in which dxtbx numbers the panels of a Pilatus."""
    if params.model == "custom":
        return [Module((0, 0), tuple(params.image_size))]
    fast, slow = MODULES[params.model]
    return [
        Module((i * (MODULE[0] + GAP[0]), j * (MODULE[1] + GAP[1])), MODULE) for j in range(slow) for i in range(fast)
    ]


def image_size(params: libtbx.phil.scope_extract) -> tuple[int, int]:
    """Pixels of an image along fast and slow."""
    last = modules(params)[-1]
    return last.offset[0] + last.size[0], last.offset[1] + last.size[1]


def beam_centre(params: libtbx.phil.scope_extract) -> tuple[float, float]:
    """Where the beam meets the detector, in pixels."""
    if params.beam_centre is not None:
        return tuple(params.beam_centre)
    fast, slow = image_size(params)
    return 0.5 * fast + 3.7, 0.5 * slow - 5.2


def attenuation_in_silicon(wavelength: float) -> float:
    """Linear attenuation coefficient of silicon in 1/mm, as dxtbx takes it."""
    return attenuation_coefficient.get_table("Si").mu_at_angstrom(wavelength) / 10


def make_beam(params: libtbx.phil.scope_extract) -> Beam:
    """The true beam: along -z but for a small tilt towards the rotation axis (x)."""
    tilt = np.radians(params.tilt)
    beam = BeamFactory.make_beam(sample_to_source=(np.sin(tilt), 0, np.cos(tilt)), wavelength=params.wavelength)
    beam.set_polarization_fraction(params.polarisation_fraction)
    return beam


def make_goniometer() -> Goniometer:
    """A spindle along +x, as dxtbx takes it for a Pilatus."""
    return GoniometerFactory.single_axis()


def make_detector(params: libtbx.phil.scope_extract, beam: Beam, multi_panel: bool = False) -> Detector:
    """The true detector.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        The ``detector`` scope.
    beam : Beam
        The true beam.
    multi_panel : bool
        A panel for every module instead of one for all.
    """
    fast, slow = _tilted_axes(params.tilt)
    normal = np.cross(fast, slow)
    s0 = np.array(beam.get_unit_s0())
    hit = s0 * params.distance / (s0 @ normal)
    x, y = beam_centre(params)
    origin = hit - PIXEL_SIZE * (x * fast + y * slow)
    mu = attenuation_in_silicon(beam.get_wavelength())
    detector = Detector()
    whole = [Module((0, 0), image_size(params))]
    for number, module in enumerate(modules(params) if multi_panel else whole):
        panel = detector.add_panel()
        panel.set_name(f"Panel{number}" if multi_panel else "Panel")
        panel.set_type("SENSOR_PAD")
        corner = origin + PIXEL_SIZE * (module.offset[0] * fast + module.offset[1] * slow)
        panel.set_frame(tuple(fast), tuple(slow), tuple(corner))
        _describe(panel, module, mu, params.thickness)
    return detector


def _tilted_axes(tilt: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Fast and slow axis of a detector along +x, -y after rotations (degrees) about the one, then about the other."""
    first, second = np.radians(tilt)
    slow = np.array([0, -np.cos(first), -np.sin(first)])
    fast = np.array([1.0, 0, 0])
    fast = np.cos(second) * fast + np.sin(second) * np.cross(slow, fast)
    return fast, slow


def _describe(panel: Panel, module: Module, mu: float, thickness: float) -> None:
    panel.set_pixel_size((PIXEL_SIZE, PIXEL_SIZE))
    panel.set_image_size(module.size)
    panel.set_trusted_range((0 if limits_are_trusted() else -1, COUNT_CUTOFF))  # a zero is a measurement
    panel.set_raw_image_offset(module.offset)
    if thickness > 0:
        panel.set_thickness(thickness)
        panel.set_material("Si")
        panel.set_mu(mu)
        panel.set_px_mm_strategy(ParallaxCorrectedPxMmStrategy(mu, thickness))
    else:
        panel.set_px_mm_strategy(SimplePxMmStrategy())
