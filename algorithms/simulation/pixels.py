"""What a pixel sees and how it responds: scattering vectors, Omega, P, E, A, and the pixels that are out of use.

Written from the formulas, not with the code that corrects data: the two are to check each other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import libtbx.phil
import numpy as np
from cctbx.eltbx import attenuation_coefficient
from dxtbx.model import Beam, Detector, Panel

from dials_diffuse.algorithms.simulation import instrument

#: Dry air by mass (US Standard Atmosphere 1976) and its density at 20 C, 101.325 kPa in g/cm^3.
AIR = {"N": 0.7552, "O": 0.2315, "Ar": 0.0133}
AIR_DENSITY = 1.2041e-3


@dataclass(frozen=True)
class Pixels:
    """The pixels of a panel or of the whole raw image, in which panels lie under one another; gaps included.

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


def laboratory_positions(panel: Panel, thickness: float) -> np.ndarray:
    """Where the rays that the pixels' centres count meet the front of the sensor, in mm, shape (3, slow, fast).

    A ray at an angle to the normal is absorbed along its path, on average at the attenuation length
    o = 1/mu - (t/cos + 1/mu) exp(-mu t/cos), so the pixel that counts it lies o s1 further out
    (dxtbx/model/parallax_correction.h).
    """
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
    """The pixels of the raw image of the simulated instrument.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        All parameters of the simulation.
    detector : Detector
        The true one; a flat one as one panel.
    beam : Beam
        The true one.
    """
    q, response = zip(*(_rays_and_response(params, panel, beam) for panel in detector))
    joined = np.concatenate(q, axis=1)
    return Pixels(
        q=joined,
        q_length=np.linalg.norm(joined, axis=0),
        response=np.concatenate(response),
        active=_active(params.detector),
        transmission=np.concatenate([_beam_stop(params, panel, beam) for panel in detector]),
    )


def split(pixels: Pixels, detector: Detector) -> tuple[Pixels, ...]:
    """Views of the raw image's pixels, one a panel."""
    parts = {field.name: split_image(getattr(pixels, field.name), detector) for field in fields(pixels)}
    return tuple(Pixels(**dict(zip(parts, panel))) for panel in zip(*parts.values()))


def split_image(image: np.ndarray, detector: Detector) -> tuple[np.ndarray, ...]:
    """Views of a raw image (..., slow, fast), one a panel; all are as wide as the raw image."""
    starts = [panel.get_raw_image_offset()[1] for panel in detector]
    return tuple(image[..., y : y + panel.get_image_size()[1], :] for y, panel in zip(starts, detector))


def _rays_and_response(params: libtbx.phil.scope_extract, panel: Panel, beam: Beam) -> tuple[np.ndarray, np.ndarray]:
    """q, shape (3, slow, fast), and Omega P E A, shape (slow, fast), of a panel."""
    position = laboratory_positions(panel, params.detector.thickness)
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
    return ray / beam.get_wavelength() - np.array(beam.get_s0())[:, None, None], response


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


def _beam_stop(params: libtbx.phil.scope_extract, panel: Panel, beam: Beam) -> np.ndarray:
    """A disc on the beam and an arm from it down to the edge: on each panel round the point where the beam meets, or
    would meet, its plane."""
    fast, slow = panel.get_image_size()
    x0, y0, depth = np.array(panel.get_D_matrix()).reshape(3, 3) @ np.array(beam.get_s0())
    if depth <= 0:
        return np.ones((slow, fast))
    x = (np.arange(fast) + 0.5) * instrument.PIXEL_SIZE - x0 / depth
    y = (np.arange(slow)[:, None] + 0.5) * instrument.PIXEL_SIZE - y0 / depth
    stop = params.beam_stop
    shadow = (x**2 + y**2 < stop.radius**2) | ((np.abs(x) < stop.arm_width / 2) & (y > 0) & (stop.radius > 0))
    return np.where(shadow, stop.transmission, 1.0)


def bad_pixels(params: libtbx.phil.scope_extract, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat indices in the raw image of hot pixels, their counts per frame, and flat indices of dead pixels."""
    random = np.random.RandomState(params.seed + 7919)
    hot_number, dead_number = params.detector.hot_pixels, params.detector.dead_pixels
    chosen = random.choice(np.flatnonzero(active), hot_number + dead_number, replace=False)
    return chosen[:hot_number], 10 ** random.uniform(1.5, 4, hot_number), chosen[hot_number:]
