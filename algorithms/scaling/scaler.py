r"""Refinement of the scaling models of all experiments together.

The photons of observation i of voxel v are expected to be

    g_i a_i d_i (b_i I_v + c_i) + B_i,

with a, b, c, d (and the terms of plug-ins) functions of parameters p. A cycle merges the observations with the models
as they are (``expectation.py``), which gives every voxel its I_v and posterior mean E_v, and then makes a step of
weighted least squares,

    minimise  sum_i w_i (y_i - g_i a_i d_i (b_i I_v + c_i))^2 + restraints,   w_i = 1 / expected variance of y_i.

To fit p with the intensities held where they are, and merge again, in turns, converges slowly where sweeps share few
voxels, for p and I then give way to each other by small steps. So the intensities are eliminated instead: the normal
equations of p and all I_v have a diagonal block for the intensities, D, whose Schur complement

    A = sum_i w_i J_i^T J_i - sum_v C_v^T C_v / D_v
    J_i = derivative of the expected photons at I = E_v,   u_i = g_i a_i d_i b_i
    C_v = sum_i w_i u_i J_i,   D_v = sum_i w_i u_i^2

is as small as the number of parameters (variable projection: Golub & Pereyra (2003) Inverse Problems 19, R1). With E,
not the noisy I, in J and w, the step is Fisher's scoring for the Poisson likelihood given the photons of each voxel,
and the estimate stays unbiased at low counts.

The gradient takes all observations, A a random part of the voxels where there are many: a curvature need not be exact
for the steps to lead to the exact minimum. So the cost of a cycle is linear in the observations, and A costs as many
operations as its part of the voxels times p^2.

Restraints: smoothness (``smoothness.py``), the gauges (``gauges.py``), and very loosely the mean of every sweep's b
near 1, of its c near 0 and of terms of plug-ins near nothing, where no data determine them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import libtbx.phil
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
from dxtbx.model.experiment_list import ExperimentList
from numba import njit

from dials_diffuse.algorithms.scaling.design import Design, PlacedDesign
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import MergedVoxels, merge_voxels
from dials_diffuse.algorithms.scaling.gauges import Gauges
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.smoothness import Smoothness
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.log_levels import experiments_name
from dials_diffuse.parallel import number_of_processes
from dials_diffuse.stills import is_still

logger = logging.getLogger("dials.diffuse.scaling")

#: Looseness of the restraints of the terms' means to nothing: of b relative to the mean, of others in their units.
MEAN_LOOSENESS = 10.0
#: Tightness of the gauges against the curvature of the data.
GAUGE = 1e3
#: Observations in a chunk, and numbers in its part of the mixed block C, which bound memory.
CHUNK, CHUNK_NUMBERS = 50_000, 10_000_000
#: Observations that the curvature is taken from, at least, and for each parameter.
CURVATURE_OBSERVATIONS, CURVATURE_OBSERVATIONS_EACH = 300_000, 60
#: Bins of |q| that have as many of them each, where there are so many.
RADIAL_BINS = 50
#: Larger data are first fitted by the sample of voxels that the curvature is taken from, to this change of chi-squared.
ROUGH_TOLERANCE = 1e-4
#: Once chi-squared changes by less, the curvature stays as it is.
NEAR = 1e-3
#: With more parameters, whose matrices take long, the smoothness that fewer observations or experiments tell, and the
#: curvature of the sample, serve for all.
MANY_PARAMETERS = 1000


@dataclass
class Cycle:
    """What one cycle found.

    Attributes
    ----------
    objective, chi_squared : float
        Weighted sum of squared residuals before the cycle's step, and the same by degree of freedom.
    change : float
        Of the objective since the cycle before, relative.
    shift : float
        Largest change of a parameter by the step, relative (of c: to the mean intensity).
    smoothness : dict of str to float
        After the step.
    """

    objective: float
    chi_squared: float
    change: float
    shift: float
    smoothness: dict[str, float]


@dataclass
class Found:
    """What a refinement has found besides the parameters: names of terms, smoothness, curvature, and of how many
    observations that is."""

    terms: list[str]
    smoothness: dict[str, float]
    curvature: np.ndarray | None
    observations: int


@dataclass
class _Sample:
    """Some of m voxels (k of them), which of n observations are theirs (bool), and how many voxels each stands for."""

    voxels: np.ndarray
    chosen: np.ndarray
    stands_for: np.ndarray


@dataclass
class _Chunk:
    """The least-squares problem of n observations of m voxels: see :class:`PlacedDesign` and the module's docstring."""

    column: np.ndarray
    jacobian: np.ndarray
    weight: np.ndarray
    residual: np.ndarray
    voxel: np.ndarray
    information: np.ndarray


class MultiBatchScaler:
    """Refines the scaling models of experiments so that equivalent observations agree.

    Parameters
    ----------
    observations : GroupedObservations
        Not scaled. Voxels that were observed once do not count.
    experiments : ExperimentList
        The first that has observations is the reference, whose mean b is 1; if it is a still, all stills together.
    models : sequence of DiffuseScalingModel
        One for each experiment: where the refinement starts, and what :meth:`fit` changes.
    grid : GlobalGrid
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.scale.phil_scope`.
    error_model : ErrorModel
    has_reference : bool
        Whether the last of the observations' experiments, beyond those of the list, is a reference on its own scale.
    previous : Found, optional
        What was found by another that refined these models before, on nearly the same observations: it is begun with.

    Attributes
    ----------
    cycles : list of Cycle
    parameters, covariance : ndarray, shape (p,), (p, p)
    merged : MergedVoxels
        Of :attr:`observations`, with the models as they are.
    """

    def __init__(
        self,
        observations: GroupedObservations,
        experiments: ExperimentList,
        models: Sequence[DiffuseScalingModel],
        grid: GlobalGrid,
        params: libtbx.phil.scope_extract,
        error_model: ErrorModel,
        has_reference: bool = False,
        previous: Found | None = None,
    ) -> None:
        self.observations = observations.repeated()
        self.experiments = experiments
        self.grid = grid
        self.q = grid.q(self.observations.voxels)
        self.params = params.scaling
        self.nproc = params.nproc
        self.error_model = error_model
        self.design = Design(models)
        self.placed = self._place(self.observations)
        self._reference = np.empty(0, dtype=int) if has_reference else self._reference_experiments()
        self.gauges = Gauges(self.design, experiments, self._reference)
        self.smoothness = Smoothness(self.design, self.params.smoothness)
        self.parameters = self.design.parameters
        self.covariance = np.zeros((self.design.size,) * 2)
        self.cycles: list[Cycle] = []
        self._sample = self._choose_sample()
        self._curvature_now: np.ndarray | None = None
        self._seeks_smoothness = True
        if previous is not None and previous.terms == self.design.names:
            self._go_on_from(previous)

    def _reference_experiments(self) -> np.ndarray:
        """The first sweep with observations; where that is a still, all stills: one alone would be a poor unit."""
        observed = np.unique(self.observations.experiment)
        if len(observed) == 0:
            return np.array([0])
        still = np.array([is_still(self.experiments[i]) for i in observed])
        return observed[still] if still[0] else observed[:1]

    def _choose_sample(self) -> _Sample:
        """Voxels that count for the curvature: as many at every |q|, so that what few voxels tell is not left out."""
        wanted = max(CURVATURE_OBSERVATIONS, CURVATURE_OBSERVATIONS_EACH * self.design.size)
        multiplicity = self.observations.multiplicity
        bins = np.minimum(self.q / max(self.q.max(initial=0), 1e-12) * RADIAL_BINS, RADIAL_BINS - 1).astype(int)
        held = np.bincount(bins, multiplicity, RADIAL_BINS)
        share = np.minimum(wanted / RADIAL_BINS / np.maximum(held, 1), 1)[bins]
        if wanted > 0.5 * len(self.observations.rows):
            share = np.ones(len(share))
        inside = np.random.default_rng(self.params.seed).random(len(self.q)) < share
        return _Sample(np.flatnonzero(inside), self.observations.spread(inside), 1 / share[inside])

    def fit(self, level: int = logging.INFO) -> None:
        """Refine, and put parameters and standard deviations into the models; ``level`` is that of the log."""
        if len(self.q) == 0:
            logger.warning(
                "No voxel was observed more than once, so the scales cannot be determined from these data: b is 1."
            )
        else:
            if self._curvature_now is None and self._sample.chosen.mean() < 0.5:
                self._fit_sample()
            self._refine(level, self.params.tolerance)
            if level >= logging.INFO:
                self._report_undetermined()
        self.design.put(self.parameters, np.sqrt(np.diag(self.covariance)))
        for model in self.design.models:
            model.set_scaling_model_as_scaled()

    def _fit_sample(self) -> None:
        """Come near by the sample alone."""
        sampled = copy.copy(self)
        sampled.observations, sampled.placed = (
            each.select(self._sample.chosen) for each in (self.observations, self.placed)
        )
        sampled.q, sampled.cycles = self.q[self._sample.voxels], []
        whole = np.ones(len(sampled.q))
        sampled._sample = _Sample(np.arange(len(whole)), np.ones(len(sampled.observations.rows), dtype=bool), whole)
        sampled._refine(logging.DEBUG, ROUGH_TOLERANCE)
        self.parameters = sampled.parameters
        self._go_on_from(sampled.found)
        logger.info("Fitted to a sample of %d observations first.", len(sampled.observations.rows))

    @property
    def found(self) -> Found | None:
        """What a later refinement can begin with; None if nothing was refined."""
        if self._curvature_now is None:
            return None
        return Found(self.design.names, dict(self.smoothness.size), self._curvature_now, len(self.observations.rows))

    def _go_on_from(self, found: Found) -> None:
        """Begin with a smoothness; where parameters are many, it is not sought further, and the curvature is kept."""
        self.smoothness.size.update(found.smoothness)
        if self.design.size > MANY_PARAMETERS:
            self._seeks_smoothness = False
            if found.curvature is not None:
                self._curvature_now = found.curvature * (len(self.observations.rows) / found.observations)

    def _refine(self, level: int, tolerance: float) -> None:
        """Cycles of merging and fitting until the objective stays the same."""
        n, m = len(self.observations.rows), len(self.q)
        logger.log(
            level,
            "Scaling (%s) on %d observations of %d voxels that were observed more than once, %d parameters",
            ", ".join(self.design.names),
            n,
            m,
            self.design.size,
        )
        previous = np.inf
        for number in range(1, self.params.max_cycles + 1):
            self.merge()
            gradient, objective = self._gradient()
            change = abs(previous - objective) / max(objective, 1e-12) if number > 1 else np.inf
            if self._curvature_now is None or number > 1 and change > NEAR:
                self._curvature_now = self._curvature()
            shift = self._step(self._curvature_now, gradient)
            self.cycles.append(Cycle(objective, objective / (n - m), change, shift, dict(self.smoothness.size)))
            logger.log(
                level,
                "Cycle %2d: reduced chi-squared %.5f (change %.1e), largest shift %.1e",
                number,
                objective / (n - m),
                change,
                shift,
            )
            if change < tolerance:
                logger.log(level, "Converged.")
                break
            previous = objective
        else:
            level = logging.WARNING if level >= logging.INFO else level
            logger.log(level, "Not converged after %d cycles: raise scaling.max_cycles.", self.params.max_cycles)
        self.covariance = self._covariance()

    def merge(self) -> None:
        """Merge the observations with the models as they are."""
        factor, offset = self._evaluate(self.observations, self.placed)
        self.scaled = self.observations.scaled(factor, offset, self.error_model)
        self.merged: MergedVoxels = merge_voxels(self.scaled, self.q)

    def evaluate(self, observations: GroupedObservations) -> tuple[np.ndarray, np.ndarray]:
        """The models at any observations: a d b, and the photons of the excess background, shape (n,) each."""
        return self._evaluate(observations, self._place(observations))

    def _place(self, observations: GroupedObservations) -> PlacedDesign:
        q = observations.spread(self.grid.q(observations.voxels))
        return self.design.place(
            self.experiments, observations.experiment, observations.panel, observations.position, q
        )

    def _evaluate(self, observations: GroupedObservations, placed: PlacedDesign) -> tuple[np.ndarray, np.ndarray]:
        factor, offset = np.empty((2, len(observations.rows)))

        def of_chunk(voxels: slice, chosen: slice) -> None:
            values = placed.values(self.parameters, placed.basis(chosen))
            factor[chosen] = values.outer * values.inner
            offset[chosen] = observations.response[chosen] * values.outer * values.offset

        for _ in self._over_chunks(of_chunk, observations):
            pass
        return factor, offset

    def _over_chunks(self, function: Callable, observations: GroupedObservations) -> Iterator:
        """Results of a function of chunks of voxels and their observations, in order; few wait to be taken."""
        chunks = list(observations.chunks(CHUNK))
        nproc = number_of_processes(self.nproc, len(chunks))
        with ThreadPoolExecutor(nproc) as pool:
            for begin in range(0, len(chunks), 4 * nproc):
                yield from pool.map(lambda chunk: function(*chunk), chunks[begin : begin + 4 * nproc])

    def _gradient(self) -> tuple[np.ndarray, float]:
        """Sum of w J^T r over all observations, shape (p,), and the sum of w r^2."""
        gradient, objective = np.zeros(self.design.size), 0.0

        def of_chunk(voxels: slice, chosen: slice) -> tuple[np.ndarray, float]:
            chunk = self._linearise(self.scaled, self.observations, self.placed, self.merged.expected, voxels, chosen)
            part = np.zeros(self.design.size)
            _add_gradient(chunk.column, chunk.jacobian, chunk.weight * chunk.residual, part)
            return part, float(np.sum(chunk.weight * chunk.residual**2))

        for of_gradient, of_objective in self._over_chunks(of_chunk, self.observations):
            gradient += of_gradient
            objective += of_objective
        return gradient, objective

    def _curvature(self) -> np.ndarray:
        """A of the module's docstring, shape (p, p), from the sample of voxels."""
        sample, size = self._sample, self.design.size
        observations, scaled, placed = (
            each if sample.chosen.all() else each.select(sample.chosen)
            for each in (self.observations, self.scaled, self.placed)
        )
        expected = self.merged.expected[sample.voxels]
        normal, mixed = np.zeros((size, size)), np.zeros((size, size), order="F")
        for part, rows in observations.chunks(CHUNK, max(int(CHUNK_NUMBERS / size), 1)):
            chunk = self._linearise(scaled, observations, placed, expected, part, rows)
            stands_for = sample.stands_for[part][chunk.voxel]
            mix = np.zeros((part.stop - part.start, size))
            scale = chunk.weight * scaled.response[rows] * np.sqrt(stands_for / chunk.information[chunk.voxel])
            _add_mixed(chunk.column, chunk.jacobian, scale, chunk.voxel, mix)
            mixed = scipy.linalg.blas.dsyrk(1.0, mix.T, beta=1.0, c=mixed, overwrite_c=1)
            order = np.argsort(placed.experiment[rows], kind="stable")  # for the cache's sake
            _add_curvature(chunk.column[order], chunk.jacobian[order], (chunk.weight * stands_for)[order], normal)
        normal -= mixed
        normal += np.triu(normal, 1).T
        return normal

    def _linearise(
        self,
        scaled: GroupedObservations,
        observations: GroupedObservations,
        placed: PlacedDesign,
        expected: np.ndarray,
        voxels: slice,
        chosen: slice,
    ) -> _Chunk:
        """The least-squares problem of a chunk of whole voxels."""
        first = observations.first[voxels.start : voxels.stop + 1] - chosen.start
        voxel = np.repeat(np.arange(len(first) - 1), np.diff(first))
        u, signal, intensity = scaled.response[chosen], scaled.signal[chosen], expected[voxels][voxel]
        weight = 1 / self.error_model.variance(u * intensity, scaled.noise[chosen])
        information = np.add.reduceat(weight * u**2, first[:-1])
        merged = np.add.reduceat(weight * u * signal, first[:-1]) / information
        basis = placed.basis(chosen)
        values = placed.values(self.parameters, basis)
        jacobian = placed.jacobian(basis, values, observations.response[chosen], intensity)
        return _Chunk(basis[0], jacobian, weight, signal - u * merged[voxel], voxel, information)

    def _step(self, normal: np.ndarray, gradient: np.ndarray) -> float:
        """Solve for shifts, finding the smoothness on the way; the largest change of a parameter in its unit.

        Shifts are solved for, not parameters, for the tight gauges would drown the loose restraints in rounding
        otherwise; and in units in which all are about 1.
        """
        intensity = float(self.merged.prior.mean.mean())
        unit = self.units(intensity)
        left, right = normal * unit * unit[:, None], gradient * unit
        tight = GAUGE**2 * np.median(np.diag(left))
        conditions, targets = self.gauges.conditions(self.parameters, intensity)
        conditions = conditions * unit
        size = np.abs(conditions).sum(axis=1)
        conditions, targets = conditions / size[:, None], targets / size
        squares = conditions.T @ conditions
        left += tight * squares
        right += tight * conditions.T @ (targets - conditions @ (self.parameters / unit))
        level = np.zeros_like(left)
        for name, term in zip(self.design.names, self.design.classes):
            rows = self.gauges.mean(name)
            level += rows.T @ rows
            means, nil = rows @ (self.parameters / unit), rows @ (term.null_parameter_value / unit)
            looseness = MEAN_LOOSENESS * (means if name == "scale" else np.ones(len(means)))
            rows /= looseness[:, None]
            left += rows.T @ rows
            right += rows.T @ ((nil - means) / looseness)
        differences = self.smoothness.differences(self.parameters, unit)
        restraint, pull = self.smoothness.restraints(differences)
        restraint *= unit * unit[:, None]
        self._unit, self._precision = unit, left + restraint
        if self._seeks_smoothness:
            covariance = self._covariance()
            shift = covariance @ (right / unit + pull)
            prior = _inverse(GAUGE**2 * np.median(np.diag(restraint) + np.diag(level)) * squares + level + restraint)
            self.smoothness.update(differences, shift, covariance, prior * unit * unit[:, None])
        else:
            shift = unit * _solve(self._precision, right + pull * unit)
        before = self.parameters
        self.parameters = self._limited(before + shift)
        return float(np.max(np.abs(self.parameters - before) / np.maximum(unit, np.abs(before))))

    def _covariance(self) -> np.ndarray:
        """Of the parameters, by the last step's precision, shape (p, p)."""
        return _inverse(self._precision) * self._unit * self._unit[:, None]

    def units(self, intensity: float) -> np.ndarray:
        """Units in which all parameters are about 1, shape (p,).

        1 for factors and exponents, the mean intensity for c; divided by the size of a term's covariate.
        """
        unit, sizes = np.ones(self.design.size), dict(zip(self.design.names, self.placed.covariate_sizes))
        for block in self.design.blocks:
            is_offset = block.term.role == "offset" and not block.term.exponential
            unit[block.columns] = (intensity if is_offset else 1.0) / sizes[block.term.name]
        return unit

    def _limited(self, found: np.ndarray) -> np.ndarray:
        """Factors stay positive, come what may."""
        limited = found.copy()
        for block in self.design.blocks:
            if block.term.role != "offset" and not block.term.exponential:
                limited[block.columns] = np.maximum(found[block.columns], 0.2 * self.parameters[block.columns])
        return limited

    def _report_undetermined(self) -> None:
        """Say which sweeps' scales the data leave open."""
        n, m = len(self.experiments), len(self.q)
        mine = self.observations.experiment < n
        voxel = n + self.observations.spread(np.arange(m))[mine]
        links = scipy.sparse.coo_matrix(
            (np.ones(len(voxel)), (self.observations.experiment[mine], voxel)), (n + m,) * 2
        )
        group = scipy.sparse.csgraph.connected_components(links, directed=False)[1][:n]
        rows = self.gauges.mean("scale")
        errors = np.sqrt(((rows @ self.covariance) * rows).sum(axis=1)) / (rows @ self.parameters)
        open_ = errors > 0.5 * MEAN_LOOSENESS
        if len(self._reference):
            linked = group == np.bincount(group[self._reference]).argmax()
            open_ |= ~linked
        if open_.any():
            logger.warning(
                "Scaling: %s no voxel with %s, directly or through others: the scale cannot be determined, and "
                "the mean b is left at 1.",
                experiments_name(np.flatnonzero(open_)) + (" share" if open_.sum() > 1 else " shares"),
                f"sweep {np.flatnonzero(linked)[0]}" if len(self._reference) else "the reference",
            )


def _factor(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factor (lower) of a matrix scaled to a unit diagonal, for the rounding's sake, and the scales."""
    scale = 1 / np.sqrt(np.diag(matrix))
    return scipy.linalg.cho_factor(matrix * scale * scale[:, None], lower=True, overwrite_a=True), scale


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x of matrix x = right, for a positive definite matrix."""
    factor, scale = _factor(matrix)
    return scale * scipy.linalg.cho_solve(factor, scale * right)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a positive definite matrix."""
    factor, scale = _factor(matrix)
    inverse, _ = scipy.linalg.lapack.dpotri(factor[0], lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return inverse * scale * scale[:, None]


@njit(cache=True, nogil=True)
def _add_gradient(column, jacobian, weighted_residual, gradient):
    for i in range(len(column)):
        for k in range(column.shape[1]):
            gradient[column[i, k]] += jacobian[i, k] * weighted_residual[i]


@njit(cache=True, nogil=True)
def _add_mixed(column, jacobian, scale, voxel, mix):
    for i in range(len(column)):
        for k in range(column.shape[1]):
            mix[voxel[i], column[i, k]] += jacobian[i, k] * scale[i]


@njit(cache=True, nogil=True)
def _add_curvature(column, jacobian, weight, normal):
    """The upper triangle of sum w J^T J."""
    for i in range(len(column)):
        for k in range(column.shape[1]):
            value = weight[i] * jacobian[i, k]
            if value != 0:
                row = column[i, k]
                for l in range(column.shape[1]):
                    if column[i, l] >= row:
                        normal[row, column[i, l]] += value * jacobian[i, l]
