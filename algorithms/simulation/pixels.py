"""What a pixel sees and how it responds: scattering vectors, Omega, P, E, A, and the pixels that are out of use.

Written from the formulas, not with the code that corrects data: the two are to check each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import libtbx.phil
import numpy as np
from cctbx.eltbx import attenuation_coefficient
from dxtbx.model import Beam, Detector

from dials_diffuse.algorithms.simulation import instrument

#: Dry air by mass (US Standard Atmosphere 1976) and its density at 20 C, 101.325 kPa in g/cm^3.
AIR = {"N": 0.7552, "O": 0.2315, "Ar": 0.0133}
AIR_DENSITY = 1.2041e-3


@dataclass(frozen=True)
class Pixels:
    """The pixels of the whole image, gaps included.

    Attributes
    ----------
    q : ndarray, shape (3, slow, fast)
        s1 - s0 of the pixels' centres in the laboratory frame, in 1/A.
    q_length : ndarray, shape (slow, fast)
        |q| in 1/A.
    response : ndarray, shape (slow, fast)
        Omega P E A, in steradian.
    active : ndarray of bool, shape (slow, fast)
        False in the gaps between modules.
    transmission : ndarray, shape (slow, fast)
        What the beam stop lets pass.
    """

    q: np.ndarray
    q_length: np.ndarray
    response: np.ndarray
    active: np.ndarray
    transmission: np.ndarray


def air_attenuation(wavelength: float) -> float:
    """Linear attenuation coefficient of air in 1/mm: density times the sum of mass fractions times mu/rho."""
    mass_attenuation = sum(
        fraction * attenuation_coefficient.get_table(element).mu_rho_at_angstrom(wavelength)
        for element, fraction in AIR.items()
    )
    return AIR_DENSITY * mass_attenuation / 10


def laboratory_positions(detector: Detector, thickness: float) -> np.ndarray:
    """Where the rays that the pixels' centres count meet the front of the sensor, in mm, shape (3, slow, fast).

    A ray at an angle to the normal is absorbed along its path, on average at the attenuation length
    o = 1/mu - (t/cos + 1/mu) exp(-mu t/cos), so the pixel that counts it lies o s1 further out
    (dxtbx/model/parallax_correction.h).
    """
    (panel,) = detector
    fast, slow, origin = (np.array(v) for v in (panel.get_fast_axis(), panel.get_slow_axis(), panel.get_origin()))
    width, height = panel.get_image_size()
    x = (np.arange(width) + 0.5) * instrument.PIXEL_SIZE
    y = (np.arange(height) + 0.5) * instrument.PIXEL_SIZE
    centres = origin[:, None, None] + fast[:, None, None] * x + slow[:, None, None] * y[:, None]
    if thickness == 0:
        return centres
    mu = panel.get_mu()
    ray = centres / np.linalg.norm(centres, axis=0)
    path = thickness / np.abs(np.tensordot(np.cross(fast, slow), ray, 1))
    depth = 1 / mu - (path + 1 / mu) * np.exp(-mu * path)
    along_fast = depth * np.tensordot(fast, ray, 1)
    along_slow = depth * np.tensordot(slow, ray, 1)
    return centres - fast[:, None, None] * along_fast - slow[:, None, None] * along_slow


def make_pixels(params: libtbx.phil.scope_extract, detector: Detector, beam: Beam) -> Pixels:
    """The pixels of the simulated instrument.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        All parameters of the simulation.
    detector : Detector
        The true one, as one panel.
    beam : Beam
        The true one.
    """
    (panel,) = detector
    position = laboratory_positions(detector, params.detector.thickness)
    distance = np.linalg.norm(position, axis=0)
    ray = position / distance
    cosine = np.abs(np.tensordot(np.array(panel.get_normal()), ray, 1))
    response = _solid_angle(params.response.solid_angle, cosine, distance, abs(panel.get_distance()))
    if params.response.polarisation:
        response *= _polarisation(beam, ray)
    if params.response.efficiency and params.detector.thickness > 0:
        response *= 1 - np.exp(-panel.get_mu() * params.detector.thickness / cosine)
    if params.response.air:
        response *= np.exp(-air_attenuation(beam.get_wavelength()) * distance)
    q = ray / beam.get_wavelength() - np.array(beam.get_s0())[:, None, None]
    return Pixels(
        q=q,
        q_length=np.linalg.norm(q, axis=0),
        response=response,
        active=_active(params.detector),
        transmission=_beam_stop(params),
    )


def _solid_angle(individual: bool, cosine: np.ndarray, distance: np.ndarray, normal_distance: float) -> np.ndarray:
    """Area cos / distance^2, in steradian."""
    area = instrument.PIXEL_SIZE**2
    return area * cosine / distance**2 if individual else np.full_like(cosine, area / normal_distance**2)


def _polarisation(beam: Beam, ray: np.ndarray) -> np.ndarray:
    """P = p [1 - (e.s1)^2] + (1-p) [1 - (n.s1)^2]: dipoles do not radiate along their axis.

    e is the direction of the electric field of the fraction p, n (normal to e and s0) that of the rest: Kahn et al.
    (1982), J. Appl. Cryst. 15, 330.
    """
    normal = np.array(beam.get_polarization_normal())
    field = np.cross(normal, np.array(beam.get_unit_s0()))
    fraction = beam.get_polarization_fraction()
    along_field = np.tensordot(field, ray, 1) ** 2
    along_normal = np.tensordot(normal, ray, 1) ** 2
    return fraction * (1 - along_field) + (1 - fraction) * (1 - along_normal)


def _active(params: libtbx.phil.scope_extract) -> np.ndarray:
    fast, slow = instrument.image_size(params)
    active = np.full((slow, fast), not params.gaps)
    for module in instrument.modules(params):
        (x, y), (width, height) = module.offset, module.size
        active[y : y + height, x : x + width] = True
    return active


def _beam_stop(params: libtbx.phil.scope_extract) -> np.ndarray:
    """A disc on the beam and an arm from it down to the edge."""
    fast, slow = instrument.image_size(params.detector)
    x0, y0 = instrument.beam_centre(params.detector)
    x = (np.arange(fast) + 0.5 - x0) * instrument.PIXEL_SIZE
    y = (np.arange(slow)[:, None] + 0.5 - y0) * instrument.PIXEL_SIZE
    stop = params.beam_stop
    shadow = (x**2 + y**2 < stop.radius**2) | ((np.abs(x) < stop.arm_width / 2) & (y > 0) & (stop.radius > 0))
    return np.where(shadow, stop.transmission, 1.0)


def bad_pixels(params: libtbx.phil.scope_extract, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat indices of hot pixels, their counts per frame, and flat indices of dead pixels."""
    random = np.random.RandomState(params.seed + 7919)
    hot_number, dead_number = params.detector.hot_pixels, params.detector.dead_pixels
    chosen = random.choice(np.flatnonzero(active), hot_number + dead_number, replace=False)
    return chosen[:hot_number], 10 ** random.uniform(1.5, 4, hot_number), chosen[hot_number:]
