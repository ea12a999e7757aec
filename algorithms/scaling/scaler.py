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

is of the size of the parameters alone (variable projection: Golub & Pereyra (2003) Inverse Problems 19, R1). With E,
not the noisy I, in J and w, the step is Fisher's scoring for the Poisson likelihood given the photons of each voxel,
and the estimate stays unbiased at low counts. The equations are made in ``least_squares.py``, the restraints in
``restraints.py``; they are solved in ``normal_equations.py``.

Where there are many observations, a step is first solved for by the A of a sample (``sample.py``), which is what
preconditions a few steps of conjugate gradients with that of all: the sample alone would send parameters that it hardly
sees far beyond their minimum, further every cycle. So the cost of a cycle is linear in the observations.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import libtbx.phil
import numpy as np
import scipy.sparse
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.design import Block, Design
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import RadialBins, RadialPrior
from dials_diffuse.algorithms.scaling.gauges import Gauges
from dials_diffuse.algorithms.scaling.least_squares import LeastSquares, curvature_block
from dials_diffuse.algorithms.scaling.linearised import (
    CHUNK,
    CurrentModels,
    Linearised,
    curvature_times,
    radial_sums,
    totals,
)
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.normal_equations import (
    BlockInverse,
    Covariance,
    Operator,
    conjugate_gradients,
)
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions, repeated, total
from dials_diffuse.algorithms.scaling.parts import parts_of
from dials_diffuse.algorithms.scaling.restraints import MEAN_LOOSENESS, restraints
from dials_diffuse.algorithms.scaling.sample import Sample, choose_sample
from dials_diffuse.algorithms.scaling.smoothness import Smoothness
from dials_diffuse.algorithms.scaling.survey import Survey, survey
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.log_levels import experiments_name
from dials_diffuse.parallel import number_of_processes
from dials_diffuse.stills import is_still

logger = logging.getLogger("dials.diffuse.scaling")

#: Larger data are first fitted by the sample of voxels that the curvature is taken from, to this change of chi-squared.
ROUGH_TOLERANCE = 1e-4
#: How exactly a step is solved for, relatively: where A is that of all observations (at 1e-3 what is known least stays
#: sigmas off), and where a sample's is to precondition.
EXACT, NEARLY = 1e-4, 1e-2
#: With that preconditioner: so little less chi-squared by a step of conjugate gradients, for each parameter, is enough.
#: (Not relative to what there was: tight gauges have most of that.)
ENOUGH = 0.01
#: Once no parameter has moved by more, relatively, the curvature stays as it is.
NEAR = 0.15


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
class Curvature:
    """A: the problem of a sample of the observations, a chunk at a time, and the blocks of the parts."""

    chunks: list[LeastSquares]
    blocks: list[np.ndarray]


class MultiBatchScaler:
    """Refines the scaling models of experiments so that equivalent observations agree.

    Parameters
    ----------
    observations : VoxelPartitions or GroupedObservations
        Not scaled. Voxels that were observed once do not count. Those of an experiment beyond the list are a reference
        (scaled already).
    experiments : ExperimentList
    models : sequence of DiffuseScalingModel
        Of the experiments; changed in place.
    grid : GlobalGrid
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.scale.phil_scope`.
    error_model : ErrorModel
    smoothness : dict of str to float, optional
        What was found by another that refined these models before: it is begun with.

    Attributes
    ----------
    cycles : list of Cycle
    parameters : ndarray, shape (p,)
    covariance : Covariance
        Of the parameters after the last cycle.
    prior : RadialPrior
        What is expected of the voxels with the models as they are.
    survey : Survey
    sample : Sample
        For the curvature.
    """

    def __init__(
        self,
        observations: VoxelPartitions | GroupedObservations,
        experiments: ExperimentList,
        models: Sequence[DiffuseScalingModel],
        grid: GlobalGrid,
        params: libtbx.phil.scope_extract,
        error_model: ErrorModel,
        smoothness: dict[str, float] | None = None,
    ) -> None:
        if isinstance(observations, GroupedObservations):
            observations = VoxelPartitions.of(observations, params.mp)
        self.partitions = observations.viewed(repeated)
        self.experiments = experiments
        self.grid = grid
        self.params = params.scaling
        self.nproc = params.mp.nproc
        self.error_model = error_model
        self.design = Design(models)
        self.parameters = self.design.parameters
        look = partial(survey, self._current)
        self.survey: Survey = total(self.partitions.map(look, "Looking at the observations"))
        self._bins = RadialBins.with_least(1 / grid.d_min, self.survey.voxels)
        self.prior: RadialPrior | None = None
        self._reference = self._reference_experiments()
        self.gauges = Gauges(self.design, experiments, self._reference)
        self.smoothness = Smoothness(self.design, self.params.smoothness)
        self.smoothness.size.update(smoothness or {})
        self.parts = parts_of(self.design)
        self.covariance = Covariance(self.parts, [np.zeros((len(part.columns),) * 2) for part in self.parts])
        self.cycles: list[Cycle] = []
        self._take(choose_sample(self.partitions, self.survey.n_observations, grid, self.design.size, self.params.seed))

    @property
    def _current(self) -> CurrentModels:
        return CurrentModels(self.design, self.experiments, self.grid, self.parameters)

    @property
    def _linearised(self) -> Linearised:
        return Linearised(self._current, self.error_model, self._bins, self.prior)

    def _take(self, sample: Sample) -> None:
        """Take a sample for the curvature."""
        self.sample = sample
        self.placed = self._current.place(sample.observations)

    def _reference_experiments(self) -> np.ndarray:
        """The first sweep with observations; where that is a still, all stills: one alone would be a poor unit.

        None if there is a reference besides.
        """
        if self.survey.observations[-1]:
            return np.empty(0, dtype=int)
        observed = np.flatnonzero(self.survey.observations)
        if len(observed) == 0:
            return np.array([0])
        still = np.array([is_still(self.experiments[int(i)]) for i in observed])
        return observed[still] if still[0] else observed[:1]

    def fit(self, level: int = logging.INFO) -> None:
        """Refine, and put parameters and standard deviations into the models; ``level`` is that of the log."""
        if self.survey.n_voxels == 0:
            logger.warning(
                "No voxel was observed more than once, so the scales cannot be determined from these data: b is 1."
            )
        else:
            if not self.sample.is_all:
                self._fit_sample()
            self._refine(level, self.params.tolerance)
            if level >= logging.INFO:
                self._report_undetermined()
        self.design.put(self.parameters, np.sqrt(self.covariance.variances))
        for model in self.design.models:
            model.set_scaling_model_as_scaled()

    def _fit_sample(self) -> None:
        """Come near by the sample alone."""
        sampled = copy.copy(self)
        observations = self.sample.observations
        sampled.partitions = VoxelPartitions.of(observations, self.nproc)
        sampled.survey = total(sampled.partitions.map(partial(survey, self._current)))
        sampled._bins = RadialBins.with_least(self._bins.q_max, sampled.survey.voxels)
        sampled.sample = Sample(observations, np.ones(len(observations.voxels)), True)
        sampled.cycles = []
        sampled._refine(logging.DEBUG, ROUGH_TOLERANCE)
        self.parameters = sampled.parameters
        logger.info("Fitted to a sample of %d observations first.", len(observations))

    def _refine(self, level: int, tolerance: float) -> None:
        """Cycles of merging and fitting until the objective stays the same."""
        n, m = self.survey.n_observations, self.survey.n_voxels
        logger.log(
            level,
            "Scaling (%s) on %d observations of %d voxels that were observed more than once, %d parameters",
            ", ".join(self.design.names),
            n,
            m,
            self.design.size,
        )
        previous, shift, curvature = np.inf, np.inf, None
        for number in range(1, self.params.max_cycles + 1):
            self.merge()
            gradient, objective = self._gradient()
            change = abs(previous - objective) / max(objective, 1e-12) if number > 1 else np.inf
            if curvature is None or shift > NEAR:
                curvature = self._curvature()
            shift = self._step(curvature, gradient)
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

    def merge(self) -> None:
        """Find what is to be expected of the voxels with the models as they are."""
        self.prior = None
        for _ in range(2):  # the mean, then the variance about it
            sums = self.partitions.map(partial(radial_sums, self._linearised), "Mean intensities")
            self.prior = total(sums).prior()

    def evaluate(self, observations: GroupedObservations) -> tuple[np.ndarray, np.ndarray]:
        """The models at any observations: a d b, and the photons of the excess background, shape (n,) each."""
        return self._current.evaluate(observations)

    def _gradient(self) -> tuple[np.ndarray, float]:
        """Sum of w J^T r over all observations, shape (p,), and the sum of w r^2."""
        found = total(self.partitions.map(partial(totals, self._linearised), "Scaling"))
        return found.gradient, found.objective

    def _curvature(self) -> Curvature:
        """A, from the sample of voxels."""
        observations, stands_for, linearised = self.sample.observations, self.sample.stands_for, self._linearised

        def of_chunk(chunk: tuple[slice, slice, GroupedObservations]) -> LeastSquares:
            voxels, chosen, part = chunk
            return linearised.problem(part, self.placed.select(chosen), stands_for[voxels])

        with ThreadPoolExecutor(number_of_processes(self.nproc, len(self.parts))) as pool:
            chunks = list(pool.map(of_chunk, observations.parts(CHUNK)))
            return Curvature(chunks, list(pool.map(lambda part: curvature_block(part, chunks), self.parts)))

    def _step(self, curvature: Curvature, gradient: np.ndarray) -> float:
        """Solve for shifts, finding the smoothness on the way; the largest change of a parameter in its unit."""
        intensity = float(self.prior.mean.mean())
        unit = self.units(intensity)
        differences = self.smoothness.differences(self.parameters, unit)
        held = restraints(self.gauges, self.smoothness, differences, self.parameters, unit, intensity)
        units = [unit[part.columns] for part in self.parts]
        blocks = [block * own * own[:, None] for block, own in zip(curvature.blocks, units)]
        rows, targets = held.equations(float(np.median(np.concatenate([np.diag(block) for block in blocks]))))
        inverse = BlockInverse(self.parts, blocks, rows)

        def matrix(data: Operator) -> Operator:
            return lambda vector: unit * data(unit * vector) + rows.T @ (rows @ vector)

        right, of_sample = unit * gradient + rows.T @ targets, matrix(partial(self._sample_times, curvature))
        if self.sample.is_all:
            shift = unit * conjugate_gradients(of_sample, right, inverse, EXACT)
        else:
            near = partial(conjugate_gradients, of_sample, inverse=inverse, relative=NEARLY)
            shift = unit * conjugate_gradients(matrix(self._all_times), right, near, 0.0, ENOUGH * len(right))
        self.covariance = inverse.covariance(unit)
        if self.smoothness.is_sought:
            prior = BlockInverse(self.parts, [np.zeros_like(block) for block in blocks], held.without_data())
            self.smoothness.update(differences, shift, self.covariance.of, prior.covariance(unit).of)
        before = self.parameters
        self.parameters = self._limited(before + shift)
        return float(np.max(np.abs(self.parameters - before) / np.maximum(unit, np.abs(before))))

    def _all_times(self, vector: np.ndarray) -> np.ndarray:
        """A x of all observations, shape (p,)."""
        look = partial(curvature_times, self._linearised, vector)
        return total(self.partitions.map(look, "Scaling"))

    def _sample_times(self, curvature: Curvature, vector: np.ndarray) -> np.ndarray:
        """A x of the sample, shape (p,)."""
        with ThreadPoolExecutor(number_of_processes(self.nproc, len(curvature.chunks))) as pool:
            return sum(pool.map(lambda chunk: chunk.curvature_times(vector), curvature.chunks))

    def units(self, intensity: float) -> np.ndarray:
        """Units in which all parameters are about 1, shape (p,).

        1 for factors and exponents, the mean intensity for c; divided by the size of a term's covariate.
        """
        unit, sizes = np.ones(self.design.size), dict(zip(self.design.names, self.survey.covariate_sizes))
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

    def _error(self, row: scipy.sparse.csr_matrix, block: Block) -> float:
        """Standard deviation of a combination of a block's parameters."""
        weights = row.toarray().ravel()[block.columns]
        return float(np.sqrt(weights @ self.covariance.of(block.columns) @ weights))

    def _report_undetermined(self) -> None:
        """Say which sweeps' scales the data leave open."""
        group = self.survey.groups
        rows = self.gauges.mean("scale")
        blocks = [block for block in self.design.blocks if block.term.name == "scale"]
        errors = np.array([self._error(row, block) for row, block in zip(rows, blocks)]) / (rows @ self.parameters)
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
