r"""Refinement of the scales of all sweeps together.

The photons of observation i of voxel v are expected to be g_i b_i I_v + B_i, with b = basis @ p linear in the
parameters p. A cycle merges the observations with the scales as they are (``expectation.py``), which gives every
voxel its I_v and posterior mean E_v, and then solves for the parameters by weighted least squares,

    minimise  sum_i w_i (y_i - g_i b_i I_v)^2 + restraints,   w_i = 1 / (g_i b_i E_v + B_i + var B_i).

To fit b with the intensities held where they are, and merge again, in turns, converges slowly where sweeps share few
voxels, for b and I then give way to each other by small steps. So the intensities are eliminated instead: the normal
equations of p and all I_v have a diagonal block for the intensities, D, whose Schur complement

    A = sum_i w_i J_i^T J_i - sum_v C_v^T C_v / D_v
    J_i = g_i E_v basis_i,   C_v = sum_i w_i u_i J_i,   D_v = sum_i w_i u_i^2,   u_i = g_i b_i

is as small as the number of parameters (variable projection: Golub & Pereyra (2003) Inverse Problems 19, R1). With E,
not the noisy I, in J and w, the step is Fisher's scoring for the Poisson likelihood given the photons of each voxel,
and the estimate stays unbiased at low counts.

Restraints: differences of neighbouring parameters within a sweep are expected to be of size ``smoothness`` (a random
walk, whose size is found by maximum marginal likelihood), the mean of each sweep very loosely to be near 1. They hold
what the data do not determine level, and at 1.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import libtbx
import libtbx.phil
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.log_levels import experiments_name

logger = logging.getLogger("dials.diffuse.scaling")

#: Relative change between knots that is expected where nothing is known.
INITIAL_SMOOTHNESS = 0.05
#: Looseness of the restraint of each sweep's mean to 1, relative to the mean.
MEAN_LOOSENESS = 10.0
#: Tightness of the gauge (mean b of the reference is 1); made exact after each step.
GAUGE = 1e4
#: Where the smoothness is looked for.
SMOOTHNESS_RANGE = (1e-4, 1.0)


@dataclass
class Cycle:
    """What one cycle found: reduced chi-squared before its step, the smoothness used, and the largest change of b."""

    chi_squared: float
    smoothness: float
    shift: float


#: Reduced chi-squared above which the errors are called too small.
CALIBRATED = 1.5


@dataclass
class MultiBatchScaler:
    """Refines the scaling models of experiments so that equivalent observations agree.

    Parameters
    ----------
    observations : GroupedObservations
    experiments : ExperimentList
        Their scaling models, :class:`DiffuseScalingModel`, are refined in place. The first that has observations is the
        reference: its mean b is 1. If it is a still, that holds for all stills together.
    grid : GlobalGrid
    params : libtbx.phil.scope_extract
        The ``scaling`` scope of :data:`dials_diffuse.phil_scope.scale.phil_scope`.

    Attributes
    ----------
    cycles : list of Cycle
        Filled by :meth:`fit`.
    parameters, covariance : ndarray, shape (p,), (p, p)
        Of the parameters of all experiments, one after the other.
    """

    observations: GroupedObservations
    experiments: ExperimentList
    grid: GlobalGrid
    params: libtbx.phil.scope_extract
    cycles: list[Cycle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models: list[DiffuseScalingModel] = [experiment.scaling_model for experiment in self.experiments]
        terms = [model.components["scale"] for model in self.models]
        tables = [term.basis_table() for term in terms]
        self._table = scipy.sparse.block_diag([scipy.sparse.csr_matrix(t) for t in tables], format="csr")
        self._first_row = np.concatenate([[0], np.cumsum([len(table) for table in tables])])
        self._slices = _consecutive([term.n_params for term in terms])
        self._mean = np.zeros((len(terms), self._table.shape[1]))  # mean b of each sweep as a function of parameters
        for i, table in enumerate(tables):
            self._mean[i, self._slices[i]] = table.mean(axis=0)
        self._reference = self._reference_experiments()
        self._gauge = self._mean[self._reference].mean(axis=0)
        self.parameters = np.concatenate([np.asarray(term.parameters) for term in terms])
        self.covariance = np.zeros((len(self.parameters),) * 2)
        self.smoothness = INITIAL_SMOOTHNESS if self.params.smoothness is libtbx.Auto else self.params.smoothness

    def _reference_experiments(self) -> np.ndarray:
        """The first sweep with observations; where that is a still, all stills: one alone would be a poor unit."""
        observed = np.unique(self.observations.experiment)
        still = np.array([model.configdict["s_norm_fac"] is None for model in self.models])[observed]
        return observed[still] if still[0] else observed[:1]

    def scales(self, experiment: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """b of observations, shape (n,), from their experiments and positions (array index units), shape (n,) each."""
        return (self._table @ self.parameters)[self._rows(experiment, frame)]

    def curve(self, experiment: int) -> np.ndarray:
        """b of an experiment at equal steps of rotation over its scan."""
        return (self._table @ self.parameters)[self._first_row[experiment] : self._first_row[experiment + 1]]

    def fit(self) -> None:
        """Refine, and put the parameters and their standard deviations into the experiments' models."""
        repeated = self.observations.repeated()
        if len(repeated.voxels) == 0:
            logger.warning(
                "No voxel was observed more than once, so the scales cannot be determined from these data: b is 1."
            )
        else:
            self._report_undetermined(self._refine(repeated))
        for model, part in zip(self.models, self._slices):
            term = model.components["scale"]
            term.parameters = flex.double(self.parameters[part])
            term.parameter_esds = flex.double(np.sqrt(np.diag(self.covariance)[part]))
            model.set_scaling_model_as_scaled()

    def _refine(self, observations: GroupedObservations) -> np.ndarray:
        """Cycles of merging and fitting until chi-squared stays the same; the last normal matrix, shape (p, p)."""
        q = self.grid.q(observations.voxels)
        rows = self._rows(observations.experiment, observations.position[:, 2])
        logger.info(
            "Scaling on %d observations of %d voxels that were observed more than once, %d parameters",
            len(observations.rows),
            len(observations.voxels),
            len(self.parameters),
        )
        freedom = len(observations.rows) - len(observations.voxels)
        previous = np.inf
        for number in range(1, self.params.max_cycles + 1):
            scale = (self._table @ self.parameters)[rows]
            expected = merge_voxels(
                observations.scaled(scale, np.zeros(len(scale)), observations.error_model), q
            ).expected
            normal, gradient, chi_squared = self._normal_equations(observations, rows, scale, expected)
            before = self._table @ self.parameters
            self._step(normal, gradient)
            shift = float(np.max(np.abs(self._table @ self.parameters / before - 1)))
            self.cycles.append(Cycle(chi_squared / freedom, float(self.smoothness), shift))
            change = abs(previous - chi_squared) / max(chi_squared, 1e-12)
            logger.info(
                "Cycle %2d: reduced chi-squared %.5f (change %.1e), smoothness %.4f, largest change of b %.1e",
                number,
                chi_squared / freedom,
                change,
                self.smoothness,
                shift,
            )
            if change < self.params.tolerance:
                logger.info("Converged.")
                break
            previous = chi_squared
        else:
            logger.warning("Not converged after %d cycles: raise scaling.max_cycles.", self.params.max_cycles)
        if chi_squared / freedom > CALIBRATED:
            logger.warning(
                "Equivalent voxels differ %.1f times more than counting statistics allow: something else than b varies "
                "(absorption, background, shadows, the detector's own noise). The map's error bars know only of "
                "counting and are too small by about that factor.",
                np.sqrt(chi_squared / freedom),
            )
        return normal

    def _normal_equations(
        self, observations: GroupedObservations, rows: np.ndarray, scale: np.ndarray, expected: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """A and the gradient of the module's docstring, and chi-squared; accumulated over chunks of whole voxels."""
        size = len(self.parameters)
        normal, gradient, chi_squared = np.zeros((size, size)), np.zeros(size), 0.0
        for voxels, chosen in observations.chunks():
            first = observations.first[voxels.start : voxels.stop + 1] - chosen.start
            multiplicity = np.diff(first)
            response, signal = observations.response[chosen], observations.signal[chosen]
            u = response * scale[chosen]
            intensity = np.repeat(expected[voxels], multiplicity)
            weight = 1 / (u * intensity + observations.noise[chosen])
            information = np.add.reduceat(weight * u**2, first[:-1])
            merged = np.add.reduceat(weight * u * signal, first[:-1]) / information
            residual = signal - u * np.repeat(merged, multiplicity)
            jacobian = scipy.sparse.diags(response * intensity) @ self._table[rows[chosen]]
            gather = scipy.sparse.csr_matrix((weight * u, np.arange(len(u)), first), shape=(len(merged), len(u)))
            mixed = scipy.sparse.diags(information**-0.5) @ (gather @ jacobian)
            normal += (jacobian.T @ scipy.sparse.diags(weight) @ jacobian - mixed.T @ mixed).toarray()
            gradient += jacobian.T @ (weight * residual)
            chi_squared += float(np.sum(weight * residual**2))
        return normal, gradient, chi_squared

    def _step(self, normal: np.ndarray, gradient: np.ndarray) -> None:
        """Solve for new parameters, finding the smoothness on the way.

        The rows of the restraints' matrices are in units of their standard deviations. Shifts are solved for, not
        parameters, for the tight gauge would drown the loose restraints in rounding otherwise.
        """
        means = self._mean @ self.parameters
        loose = self._mean / (MEAN_LOOSENESS * means)[:, None]
        gauge = GAUGE * self._gauge  # its target is met before the step already
        left = normal + loose.T @ loose + np.outer(gauge, gauge)
        right = gradient + loose.T @ ((1 - means) / (MEAN_LOOSENESS * means))
        change, jacobian = self._changes(means)
        if self.params.smoothness is libtbx.Auto and len(change):
            self.smoothness = likeliest_smoothness(left, right, change, jacobian)
        self.covariance = np.linalg.inv(left + jacobian.T @ jacobian / self.smoothness**2)
        shift = self.covariance @ (right - jacobian.T @ change / self.smoothness**2)
        found = np.maximum(self.parameters + shift, 0.2 * self.parameters)  # b stays positive, come what may
        self.parameters = found / (self._gauge @ found)

    def _changes(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Changes from knot to knot relative to each sweep's mean, and their derivatives by all parameters.

        The derivative of the mean is in them: else the restraint would draw a whole sweep towards 0.
        """
        changes, jacobians = [np.empty(0)], [np.empty((0, len(self.parameters)))]
        for i, (part, mean) in enumerate(zip(self._slices, means)):
            change = np.diff(self.parameters[part]) / mean
            jacobian = -np.outer(change, self._mean[i])
            jacobian[:, part] += np.diff(np.eye(part.stop - part.start), axis=0)
            changes.append(change)
            jacobians.append(jacobian / mean)
        return np.concatenate(changes), np.concatenate(jacobians)

    def _rows(self, experiment: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Row of the table of basis functions for each observation, int32, shape (n,)."""
        rows = np.empty(len(frame), dtype=np.int32)
        order = np.argsort(experiment, kind="stable")
        edges = np.searchsorted(experiment[order], np.arange(len(self.models) + 1))
        for i, model in enumerate(self.models):
            chosen = order[edges[i] : edges[i + 1]]
            x = model.knots(frame[chosen])
            rows[chosen] = model.components["scale"].table_row(x) + self._first_row[i]
        return rows

    def _report_undetermined(self, normal: np.ndarray) -> None:
        """Say which sweeps' scales the data leave open; ``normal`` tells which parameters have voxels in common."""
        owner = np.repeat(np.arange(len(self.models)), [part.stop - part.start for part in self._slices])
        first, second = np.nonzero(normal)
        links = scipy.sparse.coo_matrix((np.ones(len(first)), (owner[first], owner[second])), (len(self.models),) * 2)
        _, group = scipy.sparse.csgraph.connected_components(links, directed=False)
        linked = group == np.bincount(group[self._reference]).argmax()
        means = self._mean @ self.parameters
        errors = np.sqrt(((self._mean @ self.covariance) * self._mean).sum(axis=1)) / means
        open_ = np.flatnonzero(~linked | (errors > 0.5 * MEAN_LOOSENESS))
        if len(open_):
            logger.warning(
                "Scaling: %s no voxel with sweep %d, directly or through others: the scale cannot be determined, and "
                "the mean b is left at 1.",
                experiments_name(open_) + (" share" if len(open_) > 1 else " shares"),
                np.flatnonzero(linked)[0],
            )


def likeliest_smoothness(left: np.ndarray, right: np.ndarray, change: np.ndarray, jacobian: np.ndarray) -> float:
    """Standard deviation s of changes from knot to knot that makes the data most probable.

    The parameters are integrated out: with H = left + J^T J / s^2 and g = right - J^T change / s^2, -2 log of the
    marginal likelihood is log det H + 2 n log s + |change|^2 / s^2 - g^T H^-1 g + constant (MacKay (1992) Neural
    Computation 4, 415, sec. 4, for a quadratic log-likelihood).

    Parameters
    ----------
    left, right : ndarray, shape (p, p), (p,)
        Normal equations of the shifts of the parameters, without the restraint in question.
    change, jacobian : ndarray, shape (n,), (n, p)
        The n changes, and their derivatives by the parameters.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize_scalar

    inner, outer = jacobian.T @ jacobian, jacobian.T @ change

    def minus_twice_log(log_s: float) -> float:
        precision = np.exp(-2 * log_s)
        factor = cho_factor(left + inner * precision)
        gradient = right - outer * precision
        determinant = 2 * np.sum(np.log(np.diag(factor[0])))
        fit = change @ change * precision - gradient @ cho_solve(factor, gradient)
        return float(determinant + 2 * len(change) * log_s + fit)

    bounds = np.log(SMOOTHNESS_RANGE)
    return float(np.exp(minimize_scalar(minus_twice_log, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))


def _consecutive(sizes: list[int]) -> list[slice]:
    """Slices of the given sizes, one after the other."""
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return [slice(int(begin), int(end)) for begin, end in zip(edges[:-1], edges[1:])]
