"""Bragg peaks: Gaussians in reciprocal space with Wilson's distribution of intensities, integrated over each frame."""

from __future__ import annotations

import math
from typing import NamedTuple

import libtbx.phil
import numpy as np
from cctbx import crystal, miller
from dxtbx import flumpy
from dxtbx.model import Detector
from numba import njit

from dials_diffuse.algorithms.simulation.atoms import Atoms

#: Distance from a peak's centre, in standard deviations, beyond which it is left out.
REACH = 6.5


class Bragg(NamedTuple):
    """The peaks, in a form that compiled code takes.

    Attributes
    ----------
    hkl : ndarray of int, shape (n, 3)
        Both of a Friedel pair are there; systematic absences are not.
    intensity : ndarray, shape (n,)
        Integral of the peak over reciprocal space, photons / (s sr A^3).
    sigma : ndarray, shape (n,)
        Standard deviation of the Gaussian in every direction, 1/A.
    lookup : ndarray of int32, shape (2H+1, 2K+1, 2L+1)
        Row of (h+H, k+K, l+L), -1 where there is no peak.
    """

    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    lookup: np.ndarray


def make_bragg(params: libtbx.phil.scope_extract, d_min: float) -> Bragg:
    """All peaks to a resolution of d_min (A): their mean is exp(-B q^2 / 2), or in absolute units |F|^2 / V.

    Reflections are stronger on the mean by the number of symmetry operations, centring included, that leave them as
    they are; only in absolute units that is taken care of.
    """
    symmetry = crystal.symmetry(
        unit_cell=params.crystal.unit_cell,
        space_group=params.crystal.space_group.group(),
        assert_is_compatible_unit_cell=False,
    )
    unique = miller.build_set(symmetry, anomalous_flag=False, d_min=d_min).map_to_asu()
    unique = unique.select(~unique.sys_absent_flags().data())
    index = _indices(unique)
    wilson = -np.log(_uniform(index, params.seed))  # the same for acentric and centric reflections
    intensities = miller.array(unique, data=flumpy.from_numpy(wilson)).expand_to_p1().generate_bijvoet_mates()
    q_squared = flumpy.to_numpy(intensities.d_star_sq().data())
    hkl = _indices(intensities)
    reach = np.abs(hkl).max(axis=0, initial=1)
    lookup = np.full(tuple(2 * reach + 1), -1, dtype=np.int32)
    lookup[tuple((hkl + reach).T)] = np.arange(len(hkl))
    if params.absolute.crystal is None:
        mean = np.exp(-params.bragg.b_factor * q_squared / 2)
    else:
        equal = flumpy.to_numpy(intensities.epsilons().data()) * symmetry.space_group().n_ltr()
        mean = equal * Atoms(params).bragg(np.sqrt(q_squared)) / params.crystal.unit_cell.volume()
    return Bragg(
        hkl=hkl,
        intensity=flumpy.to_numpy(intensities.data()) * mean,
        sigma=np.sqrt(params.bragg.sigma**2 + np.radians(params.bragg.mosaicity) ** 2 * q_squared),
        lookup=lookup,
    )


def _indices(reflections: miller.set) -> np.ndarray:
    return np.rint(flumpy.to_numpy(reflections.indices().as_vec3_double())).astype(np.int64)


def _uniform(index: np.ndarray, seed: int) -> np.ndarray:
    """Numbers in (0, 1) that depend on the Miller index and the seed only (splitmix64, Steele et al. 2014)."""
    h, k, l = (index + 1024).astype(np.uint64).T
    state = (h << np.uint64(42)) + (k << np.uint64(21)) + l + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for multiplier, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(multiplier)
    state ^= state >> np.uint64(31)
    return (state.astype(np.float64) + 0.5) / 2.0**64


@njit(cache=True, error_model="numpy")
def bragg_intensity(hkl, model, orthogonal, out):
    """Intensity of the nearest peak at points in reciprocal space, photons / (s sr).

    Parameters
    ----------
    hkl : ndarray, shape (n, 3)
        Fractional Miller indices.
    model : Bragg
        The peaks.
    orthogonal : ndarray, shape (3, 3)
        The B matrix: q = B h, in 1/A.
    """
    reach = (np.array(model.lookup.shape) - 1) // 2
    for i in range(len(hkl)):
        out[i] = 0
        a, b, c = round(hkl[i, 0]), round(hkl[i, 1]), round(hkl[i, 2])
        if abs(a) > reach[0] or abs(b) > reach[1] or abs(c) > reach[2]:
            continue
        row = model.lookup[int(a + reach[0]), int(b + reach[1]), int(c + reach[2])]
        if row >= 0:
            d = orthogonal @ (hkl[i] - np.array([float(a), float(b), float(c)]))
            variance = model.sigma[row] ** 2
            out[i] = model.intensity[row] * math.exp(-0.5 * (d @ d) / variance) / (2 * math.pi * variance) ** 1.5


class Frame(NamedTuple):
    """What decides where a frame's peaks fall.

    Attributes
    ----------
    setting : ndarray, shape (3, 3)
        S R(phi) F U B at the middle of the frame: q_lab = setting h.
    axis : ndarray, shape (3,)
        Rotation axis in the laboratory.
    width : float
        Rotation of the frame in radians; 0 of a still.
    s0 : ndarray, shape (3,)
        Of length 1/wavelength.
    panels : ndarray, shape (panels, 3, 3)
        Inverses of dxtbx's d matrices: each takes a ray to (x, y, 1) in mm up to a factor.
    rows : ndarray of int, shape (panels, 2)
        First row of a panel in the raw image, and the one after its last.
    distances : ndarray, shape (panels,)
        Along the normals, in mm.
    pixel_size : float
        In mm.
    """

    setting: np.ndarray
    axis: np.ndarray
    width: float
    s0: np.ndarray
    panels: np.ndarray
    rows: np.ndarray
    distances: np.ndarray
    pixel_size: float


def make_frame(setting: np.ndarray, axis: np.ndarray, width: float, s0: np.ndarray, detector: Detector) -> Frame:
    """The frame that the models describe; ``width`` in radians. All panels are as wide as the raw image."""
    first = np.array([panel.get_raw_image_offset()[1] for panel in detector])
    height = np.array([panel.get_image_size()[1] for panel in detector])
    return Frame(
        setting=np.ascontiguousarray(setting),
        axis=axis,
        width=width,
        s0=s0,
        panels=np.array([panel.get_D_matrix() for panel in detector]).reshape(-1, 3, 3),
        rows=np.stack([first, first + height], axis=1),
        distances=np.array([abs(panel.get_distance()) for panel in detector]),
        pixel_size=detector[0].get_pixel_size()[0],
    )


@njit(cache=True, error_model="numpy")
def add_bragg(q, frame, model, out):
    """Add the peaks' intensity, averaged over a frame's rotation, to the pixels near them.

    While the crystal turns by dphi, the point that a pixel sees moves by -axis x q dphi against the crystal: over a
    frame that is a straight line to 1e-5 of q, along which the mean of a Gaussian is a difference of error functions.

    Parameters
    ----------
    q : ndarray, shape (3, slow, fast)
        Scattering vectors of the raw image's pixels in the laboratory, 1/A.
    frame : Frame
        Where peaks fall.
    model : Bragg
        The peaks.
    out : ndarray, shape (slow, fast)
        Photons / (s sr), added to.
    """
    fast = out.shape[1]
    m, (ax, ay, az) = frame.setting, frame.axis
    half_width = frame.width / 2
    for row in range(len(model.hkl)):
        h, k, l = model.hkl[row]
        cx = m[0, 0] * h + m[0, 1] * k + m[0, 2] * l
        cy = m[1, 0] * h + m[1, 1] * k + m[1, 2] * l
        cz = m[2, 0] * h + m[2, 1] * k + m[2, 2] * l
        sigma = model.sigma[row]
        reach = _reach(cx, cy, cz, sigma, frame)
        if reach == 0:
            continue
        norm = model.intensity[row] / (2 * math.pi * sigma**2)
        for panel in range(len(frame.panels)):
            x, y, window = _window(cx, cy, cz, reach, frame, panel)
            if window == 0:
                continue
            first, end = frame.rows[panel]
            for j in range(max(first, first + int(y - window)), min(end, first + int(y + window) + 1)):
                for i in range(max(0, int(x - window)), min(fast, int(x + window) + 1)):
                    qx, qy, qz = q[0, j, i], q[1, j, i], q[2, j, i]
                    vx, vy, vz = ay * qz - az * qy, az * qx - ax * qz, ax * qy - ay * qx
                    v = math.sqrt(vx * vx + vy * vy + vz * vz)
                    dx, dy, dz = qx - cx, qy - cy, qz - cz
                    along = (dx * vx + dy * vy + dz * vz) / max(v, 1e-12)
                    across = dx * dx + dy * dy + dz * dz - along * along
                    half = max(v * half_width, 1e-6 * sigma)
                    if across > (REACH * sigma) ** 2 or abs(along) > REACH * sigma + half:
                        continue
                    scale = 1 / (math.sqrt(2.0) * sigma)
                    mean = math.erf((along + half) * scale) - math.erf((along - half) * scale)
                    out[j, i] += norm * math.exp(-0.5 * across / sigma**2) * mean / (4 * half)


@njit(cache=True, error_model="numpy", inline="always")
def _reach(cx, cy, cz, sigma, frame):
    """Within what distance a peak at c in the laboratory matters to the Ewald sphere, 1/A; 0 where it does not."""
    rx, ry, rz = frame.s0[0] + cx, frame.s0[1] + cy, frame.s0[2] + cz
    length = math.sqrt(rx**2 + ry**2 + rz**2)
    k0 = math.sqrt(frame.s0[0] ** 2 + frame.s0[1] ** 2 + frame.s0[2] ** 2)
    ax, ay, az = frame.axis
    vx, vy, vz = ay * cz - az * cy, az * cx - ax * cz, ax * cy - ay * cx
    sweep = abs(vx * rx + vy * ry + vz * rz) / length * frame.width / 2
    if abs(length - k0) > REACH * sigma + sweep:
        return 0.0
    return REACH * sigma + math.sqrt(vx**2 + vy**2 + vz**2) * frame.width / 2


@njit(cache=True, error_model="numpy", inline="always")
def _window(cx, cy, cz, reach, frame, panel):
    """Where a peak at c in the laboratory falls on a panel, in pixels, and within what distance it matters (0: it does
    not fall there)."""
    rx, ry, rz = frame.s0[0] + cx, frame.s0[1] + cy, frame.s0[2] + cz
    length = math.sqrt(rx**2 + ry**2 + rz**2)
    p = frame.panels[panel]
    depth = p[2, 0] * rx + p[2, 1] * ry + p[2, 2] * rz  # the third row is the panel's normal over its distance
    cosine = depth * frame.distances[panel] / length
    if cosine < 0.05:
        return 0.0, 0.0, 0.0
    x = (p[0, 0] * rx + p[0, 1] * ry + p[0, 2] * rz) / depth / frame.pixel_size
    y = (p[1, 0] * rx + p[1, 1] * ry + p[1, 2] * rz) / depth / frame.pixel_size
    # a distance in q is one on the panel times at least |s0| cos^2 / distance; parallax moves less than 2 pixels / cos
    k0 = math.sqrt(frame.s0[0] ** 2 + frame.s0[1] ** 2 + frame.s0[2] ** 2)
    return x, y, 2 / cosine + reach * frame.distances[panel] / (k0 * cosine**2 * frame.pixel_size)
