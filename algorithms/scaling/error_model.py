r"""How much observations scatter beyond counting statistics.

The error model is refined from the scatter between Laue mates: the residuals r_i = y_i - u_i I of the signals from the
weighted mean I = sum(w u y) / W, W = sum(w u^2), of their voxel. If the signals have the variances v,

    E[r_i^2] = L_i(v) = v_i - 2 w_i u_i^2 v_i / W + u_i^2 sum_j(w_j^2 u_j^2 v_j) / W^2

for any weights that do not depend on y, and with v = a^2 (u I + n) + a^2 b^2 (u I)^2 this is linear in a^2 and a^2 b^2,

    E[r_i^2] = a^2 L_i(u I + n) + a^2 b^2 L_i(u^2 I^2).

So the two come from a weighted linear regression of the squared residuals, without bias by degrees of freedom or by the
skewness of low counts (a moment estimate, needs no distribution). Three things matter when counts are low:

- In the first term the merged I stands for the true one, not its posterior mean E. Voxels that by chance have more
  photons scatter more as well, for the third moment of counts is not 0. For counts in lumps of a^2 photons (third
  moment a^2 v) and weights w = 1/v the regression of r_i^2 on I has exactly the slope a^2 dL_i(u I + n)/dI; both are
  a^2 [u_i - 2 w_i u_i^3 / W + u_i^2 sum_j(w_j^2 u_j^3) / W^2]. So r_i^2 - a^2 L_i(u I + n) is uncorrelated with I,
  and no weight or bin that depends on I, or on E, makes a bias. (Without background it is the multinomial distribution
  of a voxel's photons, given their sum.)
- In the second, E[I^2] = E^2 + posterior variance.
- A square weighs as one over its variance, 2 D^2 + a^4 D with D = L(v) from E: that of the normal distribution and the
  excess (fourth cumulant) of such counts. Squares of residuals of a voxel are not independent, so standard deviations
  come from the scatter of the voxels' sums (the "sandwich").

Sources: Evans & Murshudov (2013) Acta Cryst. D69, 1204 and dials/algorithms/scaling/error_model (form, habit, tables);
McCullagh & Nelder (1989) Generalized Linear Models, ch. 9-10 (quasi-likelihood, modelling of dispersion); Liang & Zeger
(1986) Biometrika 73, 13, theorem 2 (sandwich over groups); Buehlmann (1967), see ``expectation.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import libtbx.phil
import numpy as np
from dials.util import tabulate

if TYPE_CHECKING:  # they import this file
    from dials_diffuse.algorithms.scaling.expectation import MergedVoxels
    from dials_diffuse.algorithms.scaling.observations import GroupedObservations

logger = logging.getLogger("dials.diffuse.scaling")

#: Cycles of merging and refinement at most.
MAX_CYCLES = 20
#: Converged when a^2 and a^2 b^2 change by less than this, in their standard deviations.
TOLERANCE = 0.05
#: Probability of a residual beyond which it is an outlier. Leaving out so few lowers a by less than 3e-4.
OUTLIER_PROBABILITY = 1e-5
#: Part of the residuals that is left out at first, until it is known what an outlier is: the largest of every bin.
TRIMMED = 0.01
#: b is 0 unless b^2 is this many standard deviations above it ...
SIGNIFICANT = 3.0
#: ... and as well determined as by this many equal voxels. A few left zingers make a large b, which hides them.
LEAST_FOR_B = 50
#: Where bins over the quantities of observations begin and end: tenths, and the brightest, which b is made for.
QUANTILES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 0.999, 1)
#: Shells of |q|, of equal volume.
SHELLS = 10
#: What differs by less, relatively, is the same: rounding must not decide what is left out.
TIE = 1e-9
#: Least observations in a bin, and degrees of freedom and photons to refine with.
LEAST = 100
#: Observations that are enough to refine with: they determine a to 5e-4.
ENOUGH = 2_000_000
#: Observations, evenly spread, that the bins' limits come from.
SAMPLE = 1_000_000


@dataclass(frozen=True)
class ErrorModel:
    """Variance of an observation's photons: a^2 (expected photons + var(B) + (b s)^2), s the part that I makes.

    The form of DIALS's error model (dials/algorithms/scaling/error_model/error_model.py), with the variance by counting
    taken from expected, not observed, counts.
    """

    a: float = 1.0
    b: float = 0.0

    def variance(self, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Variance of N - B in photons^2, shape (n,).

        Parameters
        ----------
        signal : ndarray, shape (n,)
            Photons s that the voxel's own intensity is expected to give.
        noise : ndarray, shape (n,)
            Photons that are expected from everything else, plus the variance of what is subtracted for them.
        """
        return self.a**2 * (signal + noise + (self.b * signal) ** 2)


@dataclass
class Scatter:
    """Residuals of n observations from the means of their m voxels, and what to expect of them.

    Attributes
    ----------
    part : GroupedObservations
        The observations.
    voxels, chosen : slice
        Which of all voxels and observations these are.
    residual : ndarray, shape (n,)
        y - u I, photons.
    counting, excess : ndarray, shape (n,)
        What to expect of the squared residual: a^2 counting + a^2 b^2 excess.
    signal : ndarray, shape (n,)
        u E, photons that are expected from the voxel itself.
    variance : ndarray, shape (n,)
        Of y, by the error model.
    residual_variance : ndarray, shape (n,)
        D, of the residual, from E.
    """

    part: GroupedObservations
    voxels: slice
    chosen: slice
    residual: np.ndarray
    counting: np.ndarray
    excess: np.ndarray
    signal: np.ndarray
    variance: np.ndarray
    residual_variance: np.ndarray

    @property
    def chi_squared(self) -> np.ndarray:
        """r^2 / v, shape (n,)."""
        return self.residual**2 / self.variance

    @property
    def degrees_of_freedom(self) -> np.ndarray:
        """E[r^2] / v, shape (n,): by how much less than 1 chi_squared is because the mean follows the observation."""
        model = self.part.error_model
        return model.a**2 * (self.counting + model.b**2 * self.excess) / self.variance


def scatter(observations: GroupedObservations, q: np.ndarray, merged: MergedVoxels) -> Iterator[Scatter]:
    """Residuals of observations from what they were merged to, in chunks of whole voxels.

    Parameters
    ----------
    observations : GroupedObservations
        n scaled observations of m voxels, every one observed more than once.
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.
    merged : MergedVoxels
        By :func:`merge_voxels` of these observations with their error model.
    """
    model = observations.error_model
    for voxels, chosen, part in observations.parts():
        u = part.response
        intensity, expected = merged.intensity[voxels], merged.expected[voxels]
        weight = 1 / part.variance(merged.prior.mean_at(q[voxels]))  # that of merge_voxels
        information = part.sum(weight * u**2)
        coefficient = weight * u / part.spread(information)  # of y in I
        between = merged.prior.variance_at(q[voxels])
        posterior_variance = between / (between * information + 1)
        signal = u * part.spread(expected)
        excess = _of_residuals(part, coefficient, u**2 * part.spread(expected**2 + posterior_variance))
        variance = model.variance(signal, part.noise)
        from_expected = model.a**2 * (_of_residuals(part, coefficient, signal + part.noise) + model.b**2 * excess)
        yield Scatter(
            part,
            voxels,
            chosen,
            residual=part.signal - u * part.spread(intensity),
            counting=_of_residuals(part, coefficient, u * part.spread(intensity) + part.noise),
            excess=excess,
            signal=signal,
            variance=variance,
            residual_variance=np.maximum(from_expected, 1e-9 * variance),  # rounding, where one outweighs its mates
        )


def _of_residuals(part: GroupedObservations, coefficient: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """L(v) of the module's docstring, shape (n,), with the ``coefficient`` w u / W of each y in I."""
    u = part.response
    return variance * (1 - 2 * coefficient * u) + u**2 * part.spread(part.sum(coefficient**2 * variance))


def reduced_chi_squared(observations: GroupedObservations, q: np.ndarray, merged: MergedVoxels) -> tuple[float, float]:
    """sum(r^2 / v) over sum(E[r^2] / v), 1 if the errors are right, and its standard deviation.

    Parameters as of :func:`scatter`.
    """
    sums = _BinSums(1)
    for part in scatter(observations, q, merged):
        sums.add(np.zeros(len(part.residual), dtype=np.int64), part)
    return float(sums.chi_squared[0]), float(sums.error[0])


def refine_error_model(
    observations: GroupedObservations, q: np.ndarray, params: libtbx.phil.scope_extract | None = None
) -> tuple[ErrorModel, dict]:
    """Refine the error model so that the scatter between Laue mates is what it says.

    Residuals that are all but impossible (:data:`OUTLIER_PROBABILITY`) by the model of the cycle before are left out,
    the worst of a voxel in each cycle, as it spoils the mean for its mates. The first cycle has no such model; it
    leaves out the largest of the residuals at every brightness, so that neither zingers nor a large b mislead it.

    Parameters
    ----------
    observations : GroupedObservations
        n scaled observations of m voxels. Their own error model is not used. :data:`ENOUGH` of them serve as well as
        all there are.
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.
    params : libtbx.phil.scope_extract, optional
        The ``error_model`` scope of :data:`dials_diffuse.phil_scope.error_model.phil_scope`, with the a and b that are
        not to be refined.

    Returns
    -------
    ErrorModel
        With b = 0 if the data do not need it; a = 1 and b = 0 if there are fewer than :data:`LEAST` degrees of freedom
        or photons.
    dict
        The report, JSON-ready: ``a``, ``a_error``, ``b``, ``b_error`` (standard deviations, None of what was not
        refined; of b = 0 how much it could be), ``observations``, ``voxels``, ``outliers`` (numbers), ``cycles``.
        ``before`` (counting statistics alone: a = 1, b = 0) and ``after`` have reduced chi-squared in bins of ``q``,
        ``counts`` (expected photons) and ``i_over_sigma`` of observations: lists of dicts with ``low``, ``high``,
        ``observations``, ``degrees_of_freedom``, ``chi_squared``, ``error``. ``overall`` has such a dict, without the
        limits, of ``before`` and ``after``.
    """
    from dials_diffuse.algorithms.scaling.expectation import merge_voxels

    a, b = (None, None) if params is None else (params.a, params.b)
    estimate = _Estimate.fixed(ErrorModel(1.0 if a is None else a, 0.0 if b is None else b))
    observations, q = _with_mates(observations, q, np.ones(len(observations), dtype=bool))
    photons = np.sum(observations.signal + observations.noise)
    if min(len(observations.rows) - len(q), photons) < LEAST:
        logger.warning("Too few observations have Laue mates, or photons: the error model is not refined.")
        return estimate.model, _report(estimate, observations, q, 0, 0)
    outliers, significance = 0, 0.0
    for cycle in range(1, MAX_CYCLES + 1):
        observations = replace(observations, error_model=estimate.model)
        equations, outlier = _equations(observations, q, merge_voxels(observations, q), trim=cycle == 1)
        previous, estimate = estimate, equations.solve(a, b, significance)
        outliers += int(outlier.sum())
        logger.debug("Error model, cycle %d: %s, %d outliers", cycle, estimate.model, outliers)
        if outlier.any():
            observations, q = _with_mates(observations, q, ~outlier)
        near = cycle > 1 and estimate.is_near(previous)
        if b is None and (near or cycle == MAX_CYCLES // 2) and not equations.support_b(estimate):
            significance = np.inf  # go on without b
        elif near:
            break
    else:
        logger.warning("The error model has not converged after %d cycles.", MAX_CYCLES)
    report = _report(estimate, observations, q, outliers, cycle)
    report.update({f"{name}_error": None for name, given in (("a", a), ("b", b)) if given is not None})
    logger.info("Error model: a = %.4f, b = %.4f", estimate.model.a, estimate.model.b)
    return estimate.model, report


@dataclass
class _Estimate:
    """theta = (a^2, a^2 b^2), shape (2,), and its covariance, shape (2, 2)."""

    theta: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fixed(cls, model: ErrorModel) -> _Estimate:
        return cls(model.a**2 * np.array([1, model.b**2]), np.zeros((2, 2)))

    @property
    def b_squared(self) -> float:
        return float(self.theta[1] / self.theta[0])

    @property
    def model(self) -> ErrorModel:
        return ErrorModel(float(np.sqrt(self.theta[0])), float(np.sqrt(self.b_squared)))

    @property
    def a_error(self) -> float:
        return float(np.sqrt(self.covariance[0, 0] / self.theta[0]) / 2)

    @property
    def b_squared_error(self) -> float:
        gradient = np.array([-self.b_squared, 1]) / self.theta[0]
        return float(np.sqrt(max(gradient @ self.covariance @ gradient, 0)))

    @property
    def b_error(self) -> float:
        """How much b rises when b^2 does by its standard deviation: finite at b = 0, too."""
        return float(np.sqrt(self.b_squared + self.b_squared_error) - np.sqrt(self.b_squared))

    def is_near(self, other: _Estimate) -> bool:
        return bool(np.all(np.abs(self.theta - other.theta) <= TOLERANCE * np.sqrt(np.diag(self.covariance))))


@dataclass
class _Equations:
    """Equations of theta, sums over voxels.

    Attributes
    ----------
    normal, right : ndarray, shape (2, 2), (2,)
        normal @ theta = right.
    noise : ndarray, shape (2, 2)
        Covariance of the right side.
    squares : float
        Sum of the squares of the voxels' parts of normal[1, 1].
    """

    normal: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))
    right: np.ndarray = field(default_factory=lambda: np.zeros(2))
    noise: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))
    squares: float = 0.0

    def support_b(self, estimate: _Estimate) -> bool:
        """If the estimate's b is 0, or so significant and determined by so many voxels that it is to be believed."""
        significant = estimate.b_squared > SIGNIFICANT * estimate.b_squared_error
        return estimate.b_squared == 0 or (significant and self.normal[1, 1] ** 2 > LEAST_FOR_B * self.squares)

    def solve(self, a: float | None, b: float | None, significance: float) -> _Estimate:
        """theta; with b = 0 if b^2 is not more than ``significance`` standard deviations above 0, or is undetermined.

        Parameters
        ----------
        a, b : float or None
            Values that are given; None is refined.
        """
        if b is not None:
            return self._linear(a, b)
        estimate = None
        if self.normal[0, 1] ** 2 < (1 - 1e-9) * self.normal[0, 0] * self.normal[1, 1]:
            estimate = self._linear(a, None)
            if estimate.theta[0] > 0 and estimate.b_squared > significance * estimate.b_squared_error:
                return estimate
        without = self._linear(a, 0.0)
        without.covariance[1, 1] = estimate.covariance[1, 1] if estimate is not None else np.inf
        return without

    def _linear(self, a: float | None, b: float | None) -> _Estimate:
        """theta = origin + free @ x, with as many x as there are parameters to refine."""
        columns = [] if a is not None else [(1, b**2 if b is not None else 0)]
        columns += [] if b is not None else [(0, 1)]
        free = np.array(columns, dtype=float).reshape(-1, 2).T
        origin = np.zeros(2) if a is None else a**2 * np.array([1, b**2 if b is not None else 0])
        inverse = free @ np.linalg.inv(free.T @ self.normal @ free) @ free.T
        theta = origin + inverse @ (self.right - self.normal @ origin)
        return _Estimate(theta, inverse @ self.noise @ inverse)


def _equations(
    observations: GroupedObservations, q: np.ndarray, merged: MergedVoxels, trim: bool
) -> tuple[_Equations, np.ndarray]:
    """Regression of the squared residuals (the module's docstring), and which observations, bool, are outliers."""
    model = observations.error_model
    theta = _Estimate.fixed(model).theta
    equations = _Equations()
    outlier = np.zeros(len(observations.rows), dtype=bool)
    for part in scatter(observations, q, merged):
        group, variance, square = part.part, part.residual_variance, part.residual**2
        weight = 1 / (variance * (2 * variance + model.a**4))
        if trim:
            weight[_largest(square / variance, part.signal)] = 0
        else:
            ratio = _outlyingness(part)
            worst = np.maximum.reduceat(ratio, group.first[:-1])
            # Of a pair both are as bad: which one is worse by rounding must not matter.
            bad = outlier[part.chosen] = (ratio > 1) & (ratio > (1 - TIE) * group.spread(worst))
            weight[bad] = 0
        x = np.stack([part.counting, part.excess])
        equations.normal += (x * weight) @ x.T
        equations.right += x @ (weight * square)
        equations.squares += float(np.sum(np.add.reduceat(weight * part.excess**2, group.first[:-1]) ** 2))
        weight *= square - theta @ x
        scores = np.add.reduceat(x * weight, group.first[:-1], axis=1)
        equations.noise += scores @ scores.T
    return equations, outlier


def _largest(ratio: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Which ratios, shape (n,), bool, are the largest :data:`TRIMMED` of their bin of signals."""
    number = np.searchsorted((1 - TIE) * np.quantile(signal, QUANTILES[1:-1]), signal, side="right")
    limit = np.full(len(QUANTILES), np.inf)
    for i in np.unique(number):
        limit[i] = np.quantile(ratio[number == i], 1 - TRIMMED)
    return ratio > (1 + TIE) * limit[number]


def _outlyingness(part: Scatter) -> np.ndarray:
    """Residuals relative to the limit beyond which they are outliers, shape (n,); 0 where they are far from it.

    The limit is that of counts in lumps of a^2 photons, or of 1 if a is less, with the variance of the residual.
    Residuals below 0 are less skewed, but those of pairs are mirror images of each other: the limit of the wide side
    serves for both.
    """
    lump = max(part.part.error_model.a, 1.0) ** 2
    variance, ratio = part.residual_variance, np.zeros(len(part.residual))
    far = part.residual**2 > 16 * variance  # the limit of the normal distribution, 4.3, is the least
    ratio[far] = np.abs(part.residual[far]) / (lump * _poisson_limit(variance[far] / lump**2))
    return ratio


def _poisson_limit(variance: np.ndarray) -> np.ndarray:
    """How far above its mean a Poisson count comes with :data:`OUTLIER_PROBABILITY`; interpolated, shape as given."""
    from scipy.special import pdtrik

    mean = np.geomspace(1e-6, 1e6, 1000)
    limit = pdtrik(1 - OUTLIER_PROBABILITY, mean) + 1 - mean
    above = np.maximum(variance / mean[-1], 1)  # normal, there
    return np.interp(np.log(np.maximum(variance, mean[0])), np.log(mean), limit) * np.sqrt(above)


class _BinSums:
    """Sums of chi-squared over bins."""

    def __init__(self, bins: int) -> None:
        self.observations = np.zeros(bins, dtype=np.int64)
        self.sums, self.products = np.zeros((2, bins)), np.zeros((2, 2, bins))

    def add(self, number: np.ndarray, part: Scatter) -> None:
        """Add observations, whose bins are ``number``, shape (n,), int."""
        bins, voxels = len(self.observations), len(part.part.voxels)
        key = part.part.spread(np.arange(voxels) * bins) + number
        values = (part.chi_squared, part.degrees_of_freedom)
        of_voxels = np.stack([np.bincount(key, value, voxels * bins).reshape(voxels, bins) for value in values])
        self.observations += np.bincount(number, minlength=bins)
        self.sums += of_voxels.sum(axis=1)
        self.products += np.einsum("ivb,jvb->ijb", of_voxels, of_voxels)

    @property
    def chi_squared(self) -> np.ndarray:
        """Reduced chi-squared of the bins; NaN where there is nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums[0] / self.sums[1]

    @property
    def error(self) -> np.ndarray:
        """Its standard deviation: that of a ratio of sums over voxels, which are independent."""
        ratio = self.chi_squared
        variance = self.products[0, 0] - 2 * ratio * self.products[0, 1] + ratio**2 * self.products[1, 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.maximum(variance, 0)) / self.sums[1]

    def to_list(self, edges: np.ndarray) -> list[dict]:
        """JSON-ready, of the bins that hold anything; ``edges`` has one more entry than there are bins."""
        return [
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "observations": int(self.observations[i]),
                "degrees_of_freedom": float(self.sums[1, i]),
                "chi_squared": float(self.chi_squared[i]),
                "error": float(self.error[i]),
            }
            for i in np.flatnonzero(self.sums[1] > 0)
        ]


def _report(estimate: _Estimate, observations: GroupedObservations, q: np.ndarray, outliers: int, cycles: int) -> dict:
    """What :func:`refine_error_model` returns."""
    errors = (estimate.a_error, estimate.b_error)
    a_error, b_error = (error if 0 < error < np.inf else None for error in errors)
    report = {
        "a": estimate.model.a,
        "a_error": a_error,
        "b": estimate.model.b,
        "b_error": b_error,
        "observations": len(observations.rows),
        "voxels": len(q),
        "outliers": outliers,
        "cycles": cycles,
    }
    before, after = _tables(observations, q, estimate.model) if len(q) else ({}, {})
    overall = {"before": before.pop("overall", []), "after": after.pop("overall", [])}
    return {**report, "overall": overall, "before": before, "after": after}


def _tables(observations: GroupedObservations, q: np.ndarray, model: ErrorModel) -> list[dict[str, list[dict]]]:
    """Reduced chi-squared in bins, with counting statistics alone and with the model; the bins are those of the model.

    Bins of expected photons and I/sigma are of equal numbers, but finer where it is brightest.
    """
    from dials_diffuse.algorithms.scaling.expectation import merge_voxels

    both = [replace(observations, error_model=x) for x in (ErrorModel(), model)]
    merged = [merge_voxels(x, q) for x in both]
    sample = np.arange(0, len(observations.rows), len(observations.rows) // SAMPLE + 1)
    voxel = np.searchsorted(observations.first, sample, side="right") - 1
    signal, noise = observations.response[sample] * merged[1].expected[voxel], observations.noise[sample]
    quantiles = [x for x in QUANTILES if x in (0, 1) or len(observations.rows) * min(x, 1 - x) >= LEAST]
    edges = {
        "q": (np.arange(SHELLS + 1) / SHELLS) ** (1 / 3) * q.max(),
        "counts": np.quantile(signal + noise, quantiles),
        "i_over_sigma": np.quantile(signal / np.sqrt(model.variance(signal, noise)), quantiles),
        "overall": np.array([q.min(), q.max()]),
    }
    sums = [{name: _BinSums(len(edge) - 1) for name, edge in edges.items()} for _ in both]
    for parts in zip(*(scatter(x, q, y) for x, y in zip(both, merged))):
        part = parts[1]
        values = {
            "q": part.part.spread(q[part.voxels]),
            "counts": part.signal + part.part.noise,
            "i_over_sigma": part.signal / np.sqrt(part.variance),
            "overall": part.signal,
        }
        for name, value in values.items():
            number = np.searchsorted(edges[name][1:-1], value, side="right")
            for x, y in zip(sums, parts):
                x[name].add(number, y)
    return [{name: x[name].to_list(edge) for name, edge in edges.items()} for x in sums]


def error_model_summary(report: dict) -> str:
    """What the log says of the report of :func:`refine_error_model`."""
    value = {name: f"{report[name]:.4f}" + _plus_minus(report[f"{name}_error"]) for name in ("a", "b")}
    lines = [
        "",
        "Error model: variance = a^2 (expected photons + variance of the background + (b I)^2)",
        f"  a = {value['a']}, b = {value['b']}",
        f"  from {report['observations']} observations of {report['voxels']} voxels, {report['outliers']} outliers "
        "left out",
        "",
        "Reduced chi-squared between Laue mates, by counting statistics alone (before) and by the error model (after):",
    ]
    names = {"q": "|q| (1/A)", "counts": "Expected photons", "i_over_sigma": "I/sigma"}
    for name, title in names.items():
        pairs = zip(report["before"].get(name, []), report["after"].get(name, []))
        rows = [
            [f"{x['low']:.4g} - {x['high']:.4g}", x["observations"], f"{x['chi_squared']:.3f}"]
            + [f"{y['chi_squared']:.3f}", f"{y['error']:.3f}"]
            for x, y in pairs
        ]
        lines.append(tabulate(rows, [title, "Observations", "Before", "After", "Error"]))
    return "\n".join(lines)


def _plus_minus(error: float | None) -> str:
    return f" +- {error:.4f}" if error is not None else " (not refined)"


def _with_mates(
    observations: GroupedObservations, q: np.ndarray, chosen: np.ndarray
) -> tuple[GroupedObservations, np.ndarray]:
    """Those of the ``chosen`` observations, shape (n,), bool, with Laue mates among them, and |q| of their voxels."""
    mates = observations.sum(chosen.astype(np.int64)) > 1
    return observations.select(chosen & observations.spread(mates)), q[mates]
