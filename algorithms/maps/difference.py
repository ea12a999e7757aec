"""What one map has more than another, after they are put on one scale."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.equivalents import representatives, slabs
from dials_diffuse.algorithms.maps.radial import Shells, shells_of
from dials_diffuse.algorithms.maps.two_maps import check_same_lattice, in_box_of
from dials_diffuse.map_file import DiffuseMap

logger = logging.getLogger("dials.diffuse.maps")


@dataclass
class RelativeScale:
    """first = factor x second + offset(|q|).

    Attributes
    ----------
    factor, error : float
        And its standard deviation, multiplied by the square root of ``chi_squared`` where that is above 1.
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
    weights that do not depend on s the errors of y would make s too small.)

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
    from scipy.optimize import minimize_scalar

    chosen = np.isfinite(first.intensity) & np.isfinite(other.intensity)
    chosen &= (first.fields["filled"] | other.fields["filled"]) == 0
    chosen &= (first.intensity_errors > 0) & (other.intensity_errors > 0)
    voxels = representatives(other, chosen)
    if len(voxels) == 0:
        raise Sorry(f"{name} has no voxel with an intensity and an error in common with the first map.")
    x, x_variance = (first.fields[field][voxels.position].astype(float) for field in ("intensity", "intensity_errors"))
    y, y_variance = voxels.values(), voxels.values("intensity_errors") ** 2
    x_variance **= 2
    shells = shells_of(voxels.q, params.shells if params.offset else 1)
    number = shells.number(voxels.q)

    def residual(factor: float) -> tuple[float, np.ndarray]:
        weight = 1 / (x_variance + factor**2 * y_variance)
        rest = x - factor * y
        offset = _offset(shells, number, weight, rest) if params.offset else np.zeros(len(shells))
        return float(np.sum(weight * (rest - offset[number]) ** 2)), offset

    factor, error = params.scale, 0.0
    freedom = max(len(x) - 1 - params.offset * len(shells), 1)
    if factor is None:
        guess = np.sqrt(_power(x, x_variance, shells, number, params) / _power(y, y_variance, shells, number, params))
        if not 0 < guess < np.inf:
            raise Sorry(f"{name} or the first map is nothing but noise: give difference.scale.")
        found = minimize_scalar(
            lambda log: residual(np.exp(log))[0], bracket=(np.log(guess) - 0.1, np.log(guess) + 0.1), tol=1e-10
        )
        factor = float(np.exp(found.x))
        step = 1e-3
        curvature = (
            residual(np.exp(found.x + step))[0] - 2 * found.fun + residual(np.exp(found.x - step))[0]
        ) / step**2
        error = factor * np.sqrt(2 / curvature * max(found.fun / freedom, 1)) if curvature > 0 else np.inf
    chi_squared, offset = residual(factor)
    q = shells.sums(number, voxels.q) / shells.sums(number, None)
    return RelativeScale(factor, float(error), q, offset, chi_squared / freedom)


def _offset(shells: Shells, number: np.ndarray, weight: np.ndarray, rest: np.ndarray) -> np.ndarray:
    return shells.sums(number, weight * rest) / shells.sums(number, weight)


def _power(values, variance, shells, number, params) -> float:
    """Sum of squares without what the errors add; about the shells' means if there is an offset."""
    if params.offset:
        values = values - (shells.sums(number, values) / shells.sums(number, None))[number]
    return max(float(np.sum(values**2 - variance)), 0.0) or float(np.sum(values**2))
