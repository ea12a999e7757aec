"""What one map has more than another, after they are put on one scale."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.equivalents import Representatives, representatives, slabs
from dials_diffuse.algorithms.maps.radial import Shells, shells_of
from dials_diffuse.algorithms.maps.two_maps import check_same_lattice, in_box_of
from dials_diffuse.map_file import DiffuseMap

logger = logging.getLogger("dials.diffuse.maps")

#: Voxels that the factor is found from, at most.
MOST = 1_000_000
#: Rounds of weights.
ROUNDS = 20
#: Deviations, in standard deviations, from which a voxel has no weight: 95 % efficiency if all are normal.
BIWEIGHT = 4.685


@dataclass
class RelativeScale:
    """first = factor x second + offset(|q|).

    Attributes
    ----------
    factor, error : float
        And its standard deviation.
    q, offset : ndarray, shape (n,)
        Mean |q| of shells in 1/A, and the offset there; 0 if none was wanted.
    chi_squared : float
        Reduced: above 1 where the maps differ by more than their errors.
    """

    factor: float
    error: float
    q: np.ndarray
    offset: np.ndarray
    chi_squared: float

    def offset_at(self, q: np.ndarray) -> np.ndarray:
        """Interpolated linearly, of the shape of ``q``."""
        return np.interp(q, self.q, self.offset)


def difference(diffuse_map: DiffuseMap, second: DiffuseMap, name: str, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """The first map less the scaled second one, where both have intensities. The first map's arrays are changed.

    Errors are of both. The half maps are left out; ``observations`` and ``pixels`` stay the first map's.

    Parameters
    ----------
    diffuse_map, second : DiffuseMap
    name : str
        Of the second, for messages.
    params : libtbx.phil.scope_extract
        The scope ``difference``: ``scale``, ``offset``, ``shells``.

    Raises
    ------
    Sorry
        If the maps have other voxels, none in common, or nothing to scale by.
    """
    check_same_lattice(diffuse_map, second, name)
    other = in_box_of(diffuse_map, second, ("intensity", "intensity_errors", "filled"))
    scale = relative_scale(diffuse_map, other, name, params)
    logger.info(
        "First map = %.5g +- %.2g times %s%s; reduced chi-squared %.3g",
        scale.factor,
        scale.error,
        name,
        f" + an offset from {scale.offset.min():.4g} to {scale.offset.max():.4g}" if params.offset else "",
        scale.chi_squared,
    )
    fields = diffuse_map.fields
    for planes in slabs(diffuse_map):
        offset = scale.offset_at(diffuse_map.q(planes))
        fields["intensity"][planes] -= scale.factor * other.intensity[planes] + offset
        errors = np.hypot(fields["intensity_errors"][planes], scale.factor * other.intensity_errors[planes])
        fields["intensity_errors"][planes] = errors
    measured = np.isfinite(fields["intensity"])
    for field in [field for field in fields if field.startswith("half_")]:
        del fields[field]
    for field in {"observations", "pixels"} & set(fields):
        fields[field][~measured] = 0
    fields["filled"] |= other.fields["filled"]
    fields["filled"][~measured] = 0
    diffuse_map.grid = other.grid
    return diffuse_map


def relative_scale(first: DiffuseMap, other: DiffuseMap, name: str, params: libtbx.phil.scope_extract) -> RelativeScale:
    """The factor (and the offset by shells) that brings two maps together, with the errors of both.

    It minimises sum (x - s y - o)^2 / (sigma_x^2 + s^2 sigma_y^2) over the voxels that were measured in both, one of
    each set of equivalent ones: Deming (1943) Statistical Adjustment of Data; York (1966) Can. J. Phys. 44, 1079. (With
    weights that do not depend on s the errors of y would make s too small.) Voxels in which the maps differ are
    what is looked for, so that these lose their weight: Tukey's biweight (Beaton & Tukey (1974) Technometrics 16, 147).

    Parameters
    ----------
    first, other : DiffuseMap
        In one box.
    name, params
        As for :func:`difference`.

    Raises
    ------
    Sorry
        As there.
    """
    chosen = np.isfinite(first.intensity) & np.isfinite(other.intensity)
    chosen &= (first.fields["filled"] | other.fields["filled"]) == 0
    chosen &= (first.intensity_errors > 0) & (other.intensity_errors > 0)
    voxels = representatives(other, chosen)
    if len(voxels) == 0:
        raise Sorry(f"{name} has no voxel with an intensity and an error in common with the first map.")
    pair = _Pair.of(first, voxels, params)
    weights, factor = np.ones(len(pair.x)), params.scale
    if factor is None:
        factor = pair.guess()
        if not 0 < factor < np.inf:
            raise Sorry(f"{name} or the first map is nothing but noise: give difference.scale.")
    for round in range(ROUNDS):
        before = factor
        if params.scale is None:
            factor = pair.best(factor, weights)
        deviation = pair.deviations(factor, weights)[0]
        limit = BIWEIGHT * max(1.0, 1.4826 * float(np.median(np.abs(deviation))))
        weights = np.maximum(1 - (deviation / limit) ** 2, 1e-3) ** 2
        if abs(factor - before) < 1e-6 * factor and round > 0:
            break
    deviation, offset = pair.deviations(factor, weights)
    error = pair.error(factor, weights) if params.scale is None else 0.0
    freedom = max(len(pair.x) - (params.scale is None) - params.offset * len(pair.shells), 1)
    q = pair.shells.sums(pair.number, pair.q) / pair.shells.sums(pair.number, None)
    return RelativeScale(factor, error, q, offset, float(deviation @ deviation) / freedom)


@dataclass
class _Pair:
    """Voxels of two maps: intensities, variances, |q|, shells; shape (m,)."""

    x: np.ndarray
    x_variance: np.ndarray
    y: np.ndarray
    y_variance: np.ndarray
    q: np.ndarray
    shells: Shells
    number: np.ndarray
    with_offset: bool

    @classmethod
    def of(cls, first: DiffuseMap, voxels: Representatives, params: libtbx.phil.scope_extract) -> _Pair:
        """Every so many of the voxels, if they are more than :data:`MOST`."""
        every = slice(None, None, len(voxels) // MOST + 1)
        place = tuple(n[every] for n in voxels.position)
        x, x_error = (first.fields[name][place].astype(float) for name in ("intensity", "intensity_errors"))
        y, y_error = (voxels.of.fields[name][place].astype(float) for name in ("intensity", "intensity_errors"))
        q = voxels.q[every]
        shells = shells_of(q, params.shells if params.offset else 1)
        return cls(x, x_error**2, y, y_error**2, q, shells, shells.number(q), params.offset)

    def deviations(self, factor: float, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x - s y - o) / sigma, shape (m,), and the best offset o of each shell."""
        variance = self.x_variance + factor**2 * self.y_variance
        rest = self.x - factor * self.y
        if not self.with_offset:
            return rest / np.sqrt(variance), np.zeros(len(self.shells))
        weight = weights / variance
        offset = self.shells.sums(self.number, weight * rest) / self.shells.sums(self.number, weight)
        return (rest - offset[self.number]) / np.sqrt(variance), offset

    def objective(self, logarithm: float, weights: np.ndarray) -> float:
        return float(weights @ self.deviations(np.exp(logarithm), weights)[0] ** 2)

    def best(self, start: float, weights: np.ndarray) -> float:
        """The factor of the least objective."""
        from scipy.optimize import minimize_scalar

        bracket = (np.log(start) - 0.05, np.log(start) + 0.05)
        return float(np.exp(minimize_scalar(self.objective, bracket, args=(weights,), tol=1e-8).x))

    def error(self, factor: float, weights: np.ndarray) -> float:
        """Standard deviation of the factor, from the curvature of the objective; times its square root above 1."""
        at, step = np.log(factor), 1e-3
        least = self.objective(at, weights)
        curvature = self.objective(at + step, weights) - 2 * least + self.objective(at - step, weights)
        return float(factor * step * np.sqrt(2 / max(curvature, 1e-300) * max(least / weights.sum(), 1)))

    def guess(self) -> float:
        """From the maps' powers, without what errors add; about the shells' means if there is an offset."""
        powers = []
        for values, variance in ((self.x, self.x_variance), (self.y, self.y_variance)):
            if self.with_offset:
                means = self.shells.sums(self.number, values) / self.shells.sums(self.number, None)
                values = values - means[self.number]
            power = float(values @ values)
            powers.append(max(power - float(variance.sum()), 0.01 * power))
        return float(np.sqrt(powers[0] / powers[1])) if powers[1] > 0 else np.inf
