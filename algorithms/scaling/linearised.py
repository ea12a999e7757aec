"""The models as they are in a cycle, at observations: what these are merged to, and the problem of least squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.design import Design, PlacedDesign, Values
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import (
    RadialBins,
    RadialPrior,
    RadialSums,
    posterior_mean,
    weighted_means,
)
from dials_diffuse.algorithms.scaling.least_squares import LeastSquares
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition
from dials_diffuse.grid import GlobalGrid

#: Observations at a time.
CHUNK = 50_000
#: Names by which partitions keep what the models say of their observations.
FACTOR, OFFSET = "factor", "offset"


@dataclass(frozen=True)
class CurrentModels:
    """The models with the parameters that they have in a cycle.

    Attributes
    ----------
    design : Design
    experiments : ExperimentList
    grid : GlobalGrid
    parameters : ndarray, shape (p,)
    """

    design: Design
    experiments: ExperimentList
    grid: GlobalGrid
    parameters: np.ndarray

    @classmethod
    def of_experiments(cls, experiments: ExperimentList, grid: GlobalGrid) -> CurrentModels:
        """The scaling models that the experiments have."""
        design = Design([experiment.scaling_model for experiment in experiments])
        return cls(design, experiments, grid, design.parameters)

    def place(self, observations: GroupedObservations) -> PlacedDesign:
        """The design at observations."""
        q = observations.spread(self.grid.q(observations.voxels))
        return self.design.place(
            self.experiments, observations.experiment, observations.panel, observations.position, q
        )

    def factors(self, observations: GroupedObservations, values: Values) -> tuple[np.ndarray, np.ndarray]:
        """a d b, and the photons of the excess background, shape (n,) each."""
        return values.outer * values.inner, observations.response * values.outer * values.offset

    def evaluate(self, observations: GroupedObservations) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`factors` at any observations."""
        found = np.empty((2, len(observations)))
        for _, chosen, part in observations.parts(CHUNK):
            found[:, chosen] = self.factors(part, self.place(part).values(self.parameters))
        return found[0], found[1]


@dataclass(frozen=True)
class Linearised:
    """The models with what is expected of the observations: makes problems of least squares.

    Attributes
    ----------
    models : CurrentModels
    error_model : ErrorModel
    bins : RadialBins
    prior : RadialPrior or None
        None if there is no expectation yet.
    """

    models: CurrentModels
    error_model: ErrorModel
    bins: RadialBins
    prior: RadialPrior | None

    def sums(self, observations: GroupedObservations) -> RadialSums:
        """What the next prior is made of."""
        factor, offset = self.models.evaluate(observations)
        scaled = observations.scaled(factor, offset, self.error_model)
        return RadialSums.of(self.bins, scaled, self.models.grid.q(scaled.voxels), self.prior)

    def problem(
        self, observations: GroupedObservations, placed: PlacedDesign, stands_for: np.ndarray | None = None
    ) -> LeastSquares:
        """The problem of whole voxels.

        Parameters
        ----------
        observations : GroupedObservations
            Not scaled.
        placed : PlacedDesign
            The design at them.
        stands_for : ndarray, shape (m,), optional
            How many voxels each stands for.
        """
        q = self.models.grid.q(observations.voxels)
        values = placed.values(self.models.parameters)
        scaled = observations.scaled(*self.models.factors(observations, values), self.error_model)
        expected = scaled.spread(posterior_mean(*weighted_means(scaled, q, self.prior), q, self.prior))
        u, signal = scaled.response, scaled.signal
        weight = 1 / self.error_model.variance(u * expected, scaled.noise)
        merged = scaled.sum(weight * u * signal) / scaled.sum(weight * u**2)
        if stands_for is not None:
            weight = weight * scaled.spread(stands_for)
        slopes = placed.slopes(values, observations.response, expected)
        residual = signal - u * scaled.spread(merged)
        return LeastSquares(placed, slopes, u, residual, weight, scaled.first)

    def problems(self, observations: GroupedObservations) -> Iterator[LeastSquares]:
        """The problems of all observations, a chunk at a time."""
        for _, _, part in observations.parts(CHUNK):
            yield self.problem(part, self.models.place(part))


@dataclass
class Totals:
    """Sums over observations: w J^T r, shape (p,), and w r^2."""

    gradient: np.ndarray
    objective: float

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.gradient + other.gradient, self.objective + other.objective)


def totals(linearised: Linearised, partition: Partition, observations: GroupedObservations) -> Totals:
    """Of a partition."""
    found = Totals(np.zeros(linearised.models.design.size), 0.0)
    for problem in linearised.problems(observations):
        found += Totals(problem.gradient, problem.objective)
    return found


def curvature_times(
    linearised: Linearised, vector: np.ndarray, partition: Partition, observations: GroupedObservations
) -> np.ndarray:
    """A x, shape (p,), of a partition."""
    found = np.zeros_like(vector)
    for problem in linearised.problems(observations):
        found += problem.curvature_times(vector)
    return found


def radial_sums(linearised: Linearised, partition: Partition, observations: GroupedObservations) -> RadialSums:
    """Of a partition."""
    found = RadialSums.none(len(linearised.bins))
    for _, _, part in observations.parts(CHUNK):
        found += linearised.sums(part)
    return found


def put_factors(models: CurrentModels, partition: Partition, observations: GroupedObservations) -> None:
    """Evaluate the models at all observations of a partition, which keeps it."""
    factor, offset = models.evaluate(observations)
    partition.put(FACTOR, factor)
    partition.put(OFFSET, offset)


def scaled_by_factors(
    error_model: ErrorModel, partition: Partition, observations: GroupedObservations
) -> GroupedObservations:
    """View: scaled, by what :func:`put_factors` has put."""
    return observations.scaled(partition.get(FACTOR), partition.get(OFFSET), error_model)
