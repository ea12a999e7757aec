"""The crystal's diffuse intensity as an analytic function of (h, k, l): broad clouds, halos and an isotropic part.

With q = |q| and all vectors r symmetrised over the Laue group,

    clouds   S_1 (q/q_0)^2 exp(1 - (q/q_0)^2) [sum_k A_k mean_j cos(2 pi h.r_kj) + A_0]^2, the square's mean being 1;
    halos    S_2 (B q^2/2) exp(1 - B q^2/2) [w^2 / (D^2 + w^2)]^2, D^2 = sum_j W_j sin^2(pi h.r_j) / pi^2;
    Compton  S_3 [1 - 2^-(q/q_half)^2].

With the contents of the unit cell given (atoms.py) the clouds are those of the square above, divided by its mean over
the shell of q, times the mean coherent diffuse intensity; incoherent scattering comes on top, and there are no halos.

The r_kj are a few interatomic distances, so the clouds are those of an interference function and never negative. The
r_j are the shortest lattice vectors (centring translations included), so D is periodic, vanishes at the lattice points
only, and is the distance to them for small D (for a cell with right angles): the dispersion of acoustic phonons.
"""

from __future__ import annotations

from typing import NamedTuple

import libtbx.phil
import numpy as np
from cctbx import sgtbx, uctbx
from numba import njit

from dials_diffuse.algorithms.simulation.atoms import Atoms

#: Taylor coefficients of sin(pi r), odd powers to r^17: good to 1e-13 for |r| <= 1/2.
_SINE = tuple(np.pi * (-(np.pi**2)) ** i / np.prod(np.arange(1.0, 2 * i + 2)) for i in range(9))
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8 = _SINE

NUMBER_OF_CLOUD_VECTORS = 6

#: Steps of q^2 in the table of absolute intensities, from 0 to the square of 2 / wavelength.
STEPS = 40_000


class Diffuse(NamedTuple):
    """Constants of the diffuse intensity, in a form that compiled code takes.

    Attributes
    ----------
    metric : ndarray, shape (6,)
        q^2 = m0 h^2 + m1 k^2 + m2 l^2 + m3 hk + m4 hl + m5 kl, in 1/A^2.
    scale : float
        Photons / (s sr) that a strength of 1 stands for.
    clouds, halos, compton : float
        Strengths S_1, S_2, S_3.
    cloud_vectors : ndarray, shape (n, 4)
        Fractional coordinates of r_kj, and A_k / (number of j).
    cloud_constant : float
        A_0.
    halo_vectors : ndarray, shape (n, 4)
        Fractional coordinates of r_j, and W_j / pi^2 in 1/A^2.
    q0_squared, half_b, width_squared, q_half_squared : float
        q_0^2, B/2, w^2, q_half^2 / ln 2.
    absolute : ndarray, shape (STEPS + 1, 2)
        Over q^2 in steps of ``q_squared_step``: what multiplies the clouds' square, and what is added, in electrons^2
        per unit cell. Empty where intensities are not absolute.
    q_squared_step : float
    """

    metric: np.ndarray
    scale: float
    clouds: float
    halos: float
    compton: float
    cloud_vectors: np.ndarray
    cloud_constant: float
    halo_vectors: np.ndarray
    q0_squared: float
    half_b: float
    width_squared: float
    q_half_squared: float
    absolute: np.ndarray
    q_squared_step: float


def make_diffuse(params: libtbx.phil.scope_extract) -> Diffuse:
    """The diffuse intensity that the parameters describe, with scale 1."""
    cell, space_group = params.crystal.unit_cell, params.crystal.space_group.group()
    laue_group = space_group.build_derived_laue_group()
    h2, k2, l2, hk, hl, kl = cell.reciprocal().metrical_matrix()
    vectors, constant = _clouds(params, cell, laue_group)
    absolute, step = np.empty((0, 2)), 1.0
    if params.absolute.crystal is not None:
        atoms, step = Atoms(params), (2 / params.beam.wavelength) ** 2 / STEPS
        q = np.sqrt(step * np.arange(STEPS + 1))
        coarse = np.linspace(0, q[-1], STEPS // 20)
        shape = np.interp(q, coarse, _mean_over_shell(vectors, constant, cell, coarse))
        absolute = np.ascontiguousarray(np.stack([atoms.diffuse(q) / shape, atoms.incoherent(q)], axis=1))
    return Diffuse(
        metric=np.array([h2, k2, l2, 2 * hk, 2 * hl, 2 * kl]),
        scale=1.0,
        clouds=params.clouds.strength if not len(absolute) else 1.0,
        halos=params.halos.strength if not len(absolute) else 0.0,
        compton=params.compton.strength,
        cloud_vectors=vectors,
        cloud_constant=constant,
        halo_vectors=_halos(cell, space_group, laue_group),
        q0_squared=params.clouds.q_peak**2,
        half_b=params.bragg.b_factor / 2,
        width_squared=params.halos.width**2,
        q_half_squared=params.compton.q_half**2 / np.log(2),
        absolute=absolute,
        q_squared_step=step,
    )


def orbit(vector: np.ndarray, group: sgtbx.space_group) -> np.ndarray:
    """The different vectors, up to their sign, that the rotations of a group make of one, shape (n, 3)."""
    images = [np.array(op.r().as_double()).reshape(3, 3) @ vector for op in group]
    different = []
    for image in images:
        if not any(np.allclose(image, other) or np.allclose(image, -other) for other in different):
            different.append(image)
    return np.array(different)


def _clouds(
    params: libtbx.phil.scope_extract, cell: uctbx.unit_cell, group: sgtbx.space_group
) -> tuple[np.ndarray, float]:
    """Cosines of equal variance, the sum of all being t, and A_0^2 = 1 - t.

    For a sum of many cosines the square then has the mean 1 and the variance 4 t (1-t) + 2 t^2, which is contrast^2.
    """
    variance = 1 - np.sqrt(1 - params.clouds.contrast**2 / 2)
    random = np.random.RandomState(params.seed + 104729)
    rows = []
    for length in np.linspace(*params.clouds.length, NUMBER_OF_CLOUD_VECTORS):
        direction = random.normal(size=3)
        vector = np.array(cell.fractionalize(tuple(length * direction / np.linalg.norm(direction))))
        equivalent = orbit(vector, group)
        amplitude = np.sqrt(2 * variance / (NUMBER_OF_CLOUD_VECTORS * len(equivalent)))  # mean_j has variance 1 / 2n
        rows += [(*r, amplitude) for r in equivalent]
    return np.array(rows), float(np.sqrt(1 - variance))


def _mean_over_shell(vectors: np.ndarray, constant: float, cell: uctbx.unit_cell, q: np.ndarray) -> np.ndarray:
    """Mean of the clouds' square over all directions of q, same shape: that of cos(2 pi q.r) is sinc(2 q r)."""
    r, amplitude = vectors[:, :3] @ np.array(cell.orthogonalization_matrix()).reshape(3, 3).T, vectors[:, 3]
    sums = np.linalg.norm([r[:, None] + r, r[:, None] - r], axis=-1).reshape(-1)
    products = np.tile(np.multiply.outer(amplitude, amplitude).ravel() / 2, 2)
    lengths = np.concatenate([np.linalg.norm(r, axis=1), sums])
    weights = np.concatenate([2 * constant * amplitude, products])
    mean = np.full(len(q), constant**2)
    for length, weight in zip(lengths, weights):
        mean += weight * np.sinc(2 * q * length)
    return mean


def _halos(cell: uctbx.unit_cell, space_group: sgtbx.space_group, group: sgtbx.space_group) -> np.ndarray:
    """Lattice vectors with weights such that sum_j W_j (h.r_j)^2 is q^2 on average over directions, exactly for axes at
    right angles."""
    reciprocal = np.array(cell.reciprocal().parameters()[:3])
    rows: list[tuple] = []
    for axis, translation in enumerate(np.eye(3)):
        equivalent = orbit(translation, group)
        if not any(np.allclose(np.abs(translation), np.abs(row[:3])) for row in rows):
            rows += [(*r, reciprocal[axis] ** 2) for r in equivalent]
    for op in space_group:
        translation = np.array(op.t().as_double())
        if op.r().is_unit_mx() and np.any(translation):
            rows += [(*r, np.mean(reciprocal**2)) for r in orbit(translation, group)]
    vectors = np.array(rows)
    orthogonal = np.array(cell.orthogonalization_matrix()).reshape(3, 3)
    trace = np.sum(vectors[:, 3] * np.sum((vectors[:, :3] @ orthogonal.T) ** 2, axis=1))
    vectors[:, 3] *= 3 / trace / np.pi**2
    return vectors


@njit(inline="always")
def _sine_squared(x):
    """sin^2(pi x)."""
    r = x - np.rint(x)
    t = r * r
    s = r * (_S0 + t * (_S1 + t * (_S2 + t * (_S3 + t * (_S4 + t * (_S5 + t * (_S6 + t * (_S7 + t * _S8))))))))
    return s * s


# Each of the next four is one plain loop: the compiler then makes vector instructions of it, seven times faster.


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _add_waves(h, k, l, x, y, z, a, b, out):
    for i in range(out.size):
        out[i] += a - b * _sine_squared(h[i] * x + k[i] * y + l[i] * z)


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _add_squares(amplitude, weight, out):
    for i in range(out.size):
        out[i] += weight * amplitude[i] * amplitude[i]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _add_peaks(distance, width_squared, weight, out):
    for i in range(out.size):
        peak = width_squared / (distance[i] + width_squared)
        out[i] += weight * peak * peak


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _transform(m, x, y, z, h, k, l):
    for i in range(h.size):
        h[i] = m[0, 0] * x[i] + m[0, 1] * y[i] + m[0, 2] * z[i]
        k[i] = m[1, 0] * x[i] + m[1, 1] * y[i] + m[1, 2] * z[i]
        l[i] = m[2, 0] * x[i] + m[2, 1] * y[i] + m[2, 2] * z[i]


@njit(cache=True, error_model="numpy")
def _add_shapes(h, k, l, model, weight, work, clouds, halos):
    """Add the clouds' and the halos' dependence on direction, times a weight."""
    if model.clouds > 0:
        work[:] = model.cloud_constant
        for x, y, z, a in model.cloud_vectors:
            _add_waves(h, k, l, x, y, z, a, 2 * a, work)
        _add_squares(work, weight, clouds)
    if model.halos > 0:
        work[:] = 0
        for x, y, z, w in model.halo_vectors:
            _add_waves(h, k, l, x, y, z, 0.0, -w, work)
        _add_peaks(work, model.width_squared, weight, halos)


@njit(cache=True, error_model="numpy")
def _combine(h, k, l, model, clouds, halos, out):
    """Multiply the shapes by their dependence on |q|."""
    m0, m1, m2, m3, m4, m5 = model.metric
    last = len(model.absolute) - 2
    for i in range(out.size):
        q2 = m0 * h[i] ** 2 + m1 * k[i] ** 2 + m2 * l[i] ** 2 + m3 * h[i] * k[i] + m4 * h[i] * l[i] + m5 * k[i] * l[i]
        if last > 0:
            step = q2 / model.q_squared_step
            row = min(int(step), last)
            factor = model.absolute[row, 0] + (step - row) * (model.absolute[row + 1, 0] - model.absolute[row, 0])
            added = model.absolute[row, 1] + (step - row) * (model.absolute[row + 1, 1] - model.absolute[row, 1])
            out[i] = model.scale * (factor * clouds[i] + added)
            continue
        cloud = q2 / model.q0_squared
        halo = q2 * model.half_b
        out[i] = model.scale * (
            model.clouds * cloud * np.exp(1 - cloud) * clouds[i]
            + model.halos * halo * np.exp(1 - halo) * halos[i]
            + model.compton * (1 - np.exp(-q2 / model.q_half_squared))
        )


@njit(cache=True, error_model="numpy")
def diffuse_intensity(h, k, l, model, out):
    """Diffuse intensity of points in reciprocal space.

    Parameters
    ----------
    h, k, l : ndarray of float64, shape (n,)
        Fractional Miller indices.
    model : Diffuse
        The function.
    out : ndarray of float64, shape (n,)
        Overwritten with photons / (s sr).
    """
    clouds, halos, work = np.zeros(h.size), np.zeros(h.size), np.empty(h.size)
    _add_shapes(h, k, l, model, 1.0, work, clouds, halos)
    _combine(h, k, l, model, clouds, halos, out)


@njit(cache=True, error_model="numpy")
def diffuse_image(q, to_hkl, model, out):
    """Diffuse intensity that pixels see, averaged over several rotations of the crystal (which leave |q| as it is).

    Parameters
    ----------
    q : ndarray, shape (3, slow, fast)
        Scattering vectors in the laboratory, 1/A.
    to_hkl : ndarray, shape (samples, 3, 3)
        For each rotation the matrix that takes q to (h, k, l).
    out : ndarray, shape (slow, fast)
        Overwritten with photons / (s sr).
    """
    slow, fast = out.shape
    block = 256  # pixels, so that all buffers stay in the fastest cache
    buffers = np.empty((6, block))
    for row in range(slow):
        for start in range(0, fast, block):
            stop = min(start + block, fast)
            n = stop - start
            h, k, l, work = buffers[0, :n], buffers[1, :n], buffers[2, :n], buffers[3, :n]
            clouds, halos = buffers[4, :n], buffers[5, :n]
            clouds[:] = 0
            halos[:] = 0
            for m in to_hkl:
                _transform(m, q[0, row, start:stop], q[1, row, start:stop], q[2, row, start:stop], h, k, l)
                _add_shapes(h, k, l, model, 1 / len(to_hkl), work, clouds, halos)
            _combine(h, k, l, model, clouds, halos, out[row, start:stop])


@njit(cache=True, error_model="numpy")
def diffuse_voxels(index, ndiv, nodes, weights, model, out):
    """Mean diffuse intensity over the boxes (index +- 1/2) / ndiv by a product of Gauss-Legendre rules on (-1, 1)."""
    samples = nodes.size
    points = samples**3
    h, k, l, value, share = np.empty(points), np.empty(points), np.empty(points), np.empty(points), np.empty(points)
    for i in range(points):
        share[i] = weights[i % samples] * weights[i // samples % samples] * weights[i // samples**2] / 8
    for v in range(out.size):
        for i in range(points):
            h[i] = (index[v, 0] + nodes[i % samples] / 2) / ndiv[0]
            k[i] = (index[v, 1] + nodes[i // samples % samples] / 2) / ndiv[1]
            l[i] = (index[v, 2] + nodes[i // samples**2] / 2) / ndiv[2]
        diffuse_intensity(h, k, l, model, value)
        out[v] = np.sum(share * value)
