"""The true instrument: dxtbx models of beam and detector, and what its headers say instead."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from cctbx.eltbx import attenuation_coefficient
from dials.util import Sorry
from dxtbx.model import (
    Beam,
    BeamFactory,
    Detector,
    Panel,
    ParallaxCorrectedPxMmStrategy,
    SimplePxMmStrategy,
)

from dials_diffuse.algorithms.simulation.counting import largest_value
from dials_diffuse.algorithms.simulation.mounting import rotation
from dials_diffuse.images import limits_are_trusted

PIXEL_SIZE = 0.172  # mm
MODULE = (487, 195)  # pixels along fast and slow (dxtbx/format/FormatPilatusHelpers.py)
GAP = (7, 17)
MODULES = {"100K": (1, 1), "300K": (1, 3), "1M": (2, 5), "2M": (3, 8), "6M": (5, 12)}
#: Panels under one another in the raw image, and their size unless asked for.
TILTED_PANELS = {"barrel": (24, (487, 60)), "two_modules": (2, MODULE)}
#: Pixels without sensor between neighbouring panels of these.
TILTED_GAP = 7
#: A panel's axes before it is tilted.
FAST, SLOW = np.array([1.0, 0, 0]), np.array([0, -1.0, 0])
#: Fast axis, slow axis, origin (mm) of a panel.
Frame = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Module:
    """A rectangle of active pixels: offset in the raw image and size along fast and slow, in pixels."""

    offset: tuple[int, int]
    size: tuple[int, int]


def modules(params: libtbx.phil.scope_extract) -> list[Module]:
    """The modules of a detector in the order in which dxtbx numbers the panels of a Pilatus."""
    if params.model == "custom":
        return [Module((0, 0), tuple(params.image_size))]
    if params.model in TILTED_PANELS:
        number, size = TILTED_PANELS[params.model]
        size = tuple(params.panel_size or size)
        return [Module((0, i * size[1]), size) for i in range(number)]
    fast, slow = MODULES[params.model]
    return [
        Module((i * (MODULE[0] + GAP[0]), j * (MODULE[1] + GAP[1])), MODULE) for j in range(slow) for i in range(fast)
    ]


def image_size(params: libtbx.phil.scope_extract) -> tuple[int, int]:
    """Pixels of a raw image along fast and slow."""
    last = modules(params)[-1]
    return last.offset[0] + last.size[0], last.offset[1] + last.size[1]


def beam_centre(params: libtbx.phil.scope_extract) -> tuple[float, float]:
    """Where the beam meets a flat detector, in pixels."""
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


def make_detector(params: libtbx.phil.scope_extract, beam: Beam, multi_panel: bool = False) -> Detector:
    """The true detector.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        All parameters of the simulation.
    beam : Beam
        The true beam.
    multi_panel : bool
        A panel for every module of a flat detector instead of one for all.
    """
    described = params.detector
    if described.model in TILTED_PANELS:
        return _make(params, beam, modules(described), _tilted_frames(described))
    fast, slow = _tilted_axes(described.tilt)
    normal = np.cross(fast, slow)
    s0 = np.array(beam.get_unit_s0())
    hit = s0 * described.distance / (s0 @ normal)
    x, y = beam_centre(described)
    origin = hit - PIXEL_SIZE * (x * fast + y * slow)
    panels = modules(described) if multi_panel else [Module((0, 0), image_size(described))]
    frames = [(fast, slow, origin + PIXEL_SIZE * (panel.offset[0] * fast + panel.offset[1] * slow)) for panel in panels]
    return _make(params, beam, panels, frames)


def header_models(params: libtbx.phil.scope_extract) -> tuple[Beam, Detector]:
    """Beam and detector as headers describe them: without tilts, the beam's place and the distance a little wrong.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        All parameters of the simulation. The errors shift the whole detector.
    """
    upright = copy.deepcopy(params)
    upright.beam.tilt, upright.detector.tilt = 0.0, (0.0, 0.0)
    beam = make_beam(upright.beam)
    detector = make_detector(upright, beam)
    x, y = params.header.beam_centre_error
    shift = np.array([-x * PIXEL_SIZE, y * PIXEL_SIZE, -params.header.distance_error]) * params.header.perturb
    for panel in detector:
        panel.set_frame(panel.get_fast_axis(), panel.get_slow_axis(), tuple(np.array(panel.get_origin()) + shift))
    return beam, detector


def _tilted_axes(tilt: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Fast and slow axis of a detector along +x, -y after rotations (degrees) about the one, then about the other."""
    first, second = np.radians(tilt)
    slow = np.array([0, -np.cos(first), -np.sin(first)])
    fast = np.array([1.0, 0, 0])
    fast = np.cos(second) * fast + np.sin(second) * np.cross(slow, fast)
    return fast, slow


def _tilted_frames(params: libtbx.phil.scope_extract) -> list[Frame]:
    """Fast axis, slow axis, origin of the panels of a barrel or of two modules, the detector's tilt included.

    Raises
    ------
    Sorry
        If the beam centre is given, which such a detector has not.
    """
    if params.beam_centre is not None:
        raise Sorry(f"detector.beam_centre does not go with detector.model={params.model}: leave it out.")
    placed = _barrel(params) if params.model == "barrel" else _two_modules(params)
    fast, slow = _tilted_axes(params.tilt)
    tilt = np.array([fast, -slow, np.cross(fast, -slow)]).T
    hit = np.array([0, 0, -params.distance])
    return [(tilt @ fast, tilt @ slow, hit + tilt @ (origin - hit)) for fast, slow, origin in placed]


def _barrel(params: libtbx.phil.scope_extract) -> list[Frame]:
    """Panels that touch a cylinder round the rotation axis (x) in their middles, as of a Pilatus 12M; the beam meets
    the barrel a little off its middle, within a panel."""
    number, size = len(modules(params)), modules(params)[0].size
    step = 2 * np.degrees(np.arctan((size[1] + TILTED_GAP) * PIXEL_SIZE / 2 / params.distance))
    if number * step > 330:
        raise Sorry(f"{number} panels of {size[1]} pixels do not fit round a barrel of {params.distance:g} mm.")
    frames = []
    for i in range(number):
        turn = rotation((1, 0, 0), (number / 2 - 0.8 - i) * step)
        centre = np.array([4.2 * PIXEL_SIZE, 0, -params.distance])
        frames.append(_frame(turn @ FAST, turn @ SLOW, turn @ centre, size))
    return frames


def _two_modules(params: libtbx.phil.scope_extract) -> list[Frame]:
    """A module above the beam and one below, leant towards the crystal like a V and twisted a little, the lower further
    away by an eighth."""
    frames, size = [], modules(params)[0].size
    for side, lean, twist, distance in ((1, 14, 1.5, params.distance), (-1, -17, -2, 1.125 * params.distance)):
        turn = rotation((1, 0, 0), lean) @ rotation((0, 0, 1), twist)
        away = turn @ np.array([5.3, side * (size[1] / 2 + TILTED_GAP), 0]) * PIXEL_SIZE
        frames.append(_frame(turn @ FAST, turn @ SLOW, away - np.array([0, 0, distance]), size))
    return frames


def _frame(fast: np.ndarray, slow: np.ndarray, centre: np.ndarray, size: tuple[int, int]) -> Frame:
    return fast, slow, centre - 0.5 * PIXEL_SIZE * (size[0] * fast + size[1] * slow)


def _make(params: libtbx.phil.scope_extract, beam: Beam, panels: list[Module], frames: list[Frame]) -> Detector:
    mu = attenuation_in_silicon(beam.get_wavelength())
    detector = Detector()
    for number, (module, frame) in enumerate(zip(panels, frames)):
        panel = detector.add_panel()
        panel.set_name(f"Panel{number}" if len(panels) > 1 else "Panel")
        panel.set_type("SENSOR_PAD")
        panel.set_frame(*(tuple(vector) for vector in frame))
        _describe(panel, module, mu, params)
    return detector


def _describe(panel: Panel, module: Module, mu: float, params: libtbx.phil.scope_extract) -> None:
    panel.set_pixel_size((PIXEL_SIZE, PIXEL_SIZE))
    panel.set_image_size(module.size)
    panel.set_trusted_range((0 if limits_are_trusted() else -1, largest_value(params)))  # a zero is a measurement
    panel.set_raw_image_offset(module.offset)
    panel.set_gain(params.detector.gain)
    panel.set_pedestal(params.detector.pedestal)
    if params.detector.thickness > 0:
        panel.set_thickness(params.detector.thickness)
        panel.set_material("Si")
        panel.set_mu(mu)
        panel.set_px_mm_strategy(ParallaxCorrectedPxMmStrategy(mu, params.detector.thickness))
    else:
        panel.set_px_mm_strategy(SimplePxMmStrategy())
