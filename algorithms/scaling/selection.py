"""Which terms the data ask for: those that improve the prediction of observations that were not fitted."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import libtbx.phil
import numpy as np
from dials.util import tabulate
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.few_experiments import by_experiment, largest_experiments, of_experiments
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions, number_of_observations, random_voxels, repeated
from dials_diffuse.algorithms.scaling.scaler import MultiBatchScaler
from dials_diffuse.algorithms.scaling.terms import scaling_terms, term_class
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.stills import is_still

logger = logging.getLogger("dials.diffuse.scaling")

#: Observations that terms are chosen by, at most.
OBSERVATIONS = 600_000
#: Parts of the detector along each edge that tell visits apart.
PARTS = 6
#: A term must improve the prediction by so many standard deviations of the improvement.
SIGNIFICANT = 4.0
#: Trials need not converge as well as the final refinement.
TOLERANCE = 1e-4


@dataclass
class Trial:
    """A model that was tried.

    Attributes
    ----------
    terms : list of str
    gain, error : float
        By how much the sum of squared deviations of held-out observations from the prediction, in units of their
        expected variances, is lower than without the last term; and the standard deviation of that.
    accepted : bool
    """

    terms: list[str]
    gain: float
    error: float
    accepted: bool


def choose_terms(
    partitions: VoxelPartitions,
    experiments: ExperimentList,
    grid: GlobalGrid,
    params: libtbx.phil.scope_extract,
    error_model: ErrorModel,
) -> tuple[list[str], list[Trial]]:
    """Add terms to b, one after the other, the best first, as long as they improve the prediction.

    Held out are visits at random: all observations of a voxel by one sweep in one part of the detector. Their intensity
    is predicted from the other visits of the voxel and its Laue mates, by the model that was fitted to those. (Single
    observations would not do: what is wrong in one place of the detector is wrong in their neighbours as well.) Where
    experiments are many, those with the most observations serve.

    Parameters
    ----------
    partitions : VoxelPartitions
        Observations, not scaled, without outliers.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.scale.phil_scope`.

    Returns
    -------
    names : list of str
        Of the terms.
    trials : list of Trial
    """
    params, n_all = copy.deepcopy(params), len(experiments)
    params.scaling.tolerance = TOLERANCE
    rng = np.random.default_rng(params.scaling.seed)
    counts = sum(partitions.map(partial(by_experiment, n_all), "Observations"))
    taken = largest_experiments(counts, experiments, list(scaling_terms()), params.scaling, grid)
    if len(taken) < n_all:
        logger.info("Terms are chosen by %d of %d experiments.", len(taken), n_all)
        partitions = partitions.viewed(partial(of_experiments, taken))
        experiments = ExperimentList([experiments[int(i)] for i in taken])
    partitions = partitions.viewed(repeated)
    share = OBSERVATIONS / max(sum(partitions.map(number_of_observations, "Observations")), 1)
    observations = partitions.gather(partial(random_voxels, grid=grid, share=share, seed=params.scaling.seed))
    out = _visits(observations, rng) < params.scaling.held_out
    training, held = observations.select(~out).repeated(), observations.select(out)

    def fit(models: Sequence[DiffuseScalingModel]) -> _Prediction:
        scaler = MultiBatchScaler(training, experiments, models, grid, params, error_model)
        scaler.fit(logging.DEBUG)
        return _Prediction(scaler, training, held, grid)

    def with_term(models: Sequence[DiffuseScalingModel], name: str) -> list[DiffuseScalingModel]:
        return [
            model.with_term(term_class(name).for_experiment(experiment, params.scaling, grid.d_min))
            for model, experiment in zip(models, experiments)
        ]

    chosen = [DiffuseScalingModel.for_experiment(e, ["scale"], params.scaling, grid.d_min) for e in experiments]
    best, trials = fit(chosen), []
    rotation = max((abs(np.ptp(e.scan.get_oscillation_range())) for e in experiments if not is_still(e)), default=0)
    left = [name for name, term in scaling_terms().items() if name != "scale" and term.least_rotation <= rotation]
    while left:
        tried = []
        for name in left:
            models = with_term(chosen, name)
            if any(name in model.components for model in models):
                prediction = fit(models)
                tried.append((*best.improvement(prediction), name, models, prediction))
        if not tried:
            break
        tried.sort(key=lambda trial: -trial[0])
        for i, (gain, error, name, _, _) in enumerate(tried):
            accepted = i == 0 and gain > SIGNIFICANT * error
            trials.append(Trial([*best.names, name], gain, error, accepted))
        if not trials[-len(tried)].accepted:
            break
        _, _, name, chosen, best = tried[0]
        left.remove(name)
    _log(trials, best.names)
    return best.names, trials


def _visits(observations: GroupedObservations, rng: np.random.Generator) -> np.ndarray:
    """A number from 0 to 1 for every observation, shape (n,), the same for those of one visit."""
    part = np.floor(observations.position[:, :2] / (observations.position[:, :2].max(axis=0) + 1) * PARTS).astype(int)
    voxel = observations.spread(np.arange(len(observations.voxels)))
    place = ((observations.experiment * PARTS + part[:, 0]) * PARTS + part[:, 1]) * 1024 + observations.panel % 1024
    _, place = np.unique(place, return_inverse=True)
    _, visit = np.unique(voxel * (place.max() + 1) + place.ravel(), return_inverse=True)
    return rng.random(visit.max() + 1)[visit.ravel()]


class _Prediction:
    """Held-out observations as a refined model predicts them."""

    def __init__(
        self, scaler: MultiBatchScaler, training: GroupedObservations, held: GroupedObservations, grid: GlobalGrid
    ) -> None:
        self.names = scaler.design.names
        merged = merge_voxels(training.scaled(*scaler.evaluate(training), scaler.error_model), grid.q(training.voxels))
        known = grid.index2key(training.voxels)
        voxel = np.searchsorted(known, grid.index2key(held.voxels))
        found = known[np.minimum(voxel, len(known) - 1)] == grid.index2key(held.voxels)
        usable = held.spread(found)
        voxel = held.spread(voxel)[usable]
        held = held.select(usable)
        factor, offset = scaler.evaluate(held)
        scaled = held.scaled(factor, offset, scaler.error_model)
        expected = scaled.response * merged.expected[voxel]
        self._deviation = scaled.signal - expected
        self._variance = scaler.error_model.variance(expected, scaled.noise)
        self._held = held

    def improvement(self, other: _Prediction) -> tuple[float, float]:
        """How much lower the other's sum of squares is, and the standard deviation of that (over voxels)."""
        gain = self._held.sum((self._deviation**2 - other._deviation**2) / self._variance)
        return float(gain.sum()), float(np.sqrt(np.sum(gain**2)))


def _log(trials: list[Trial], chosen: list[str]) -> None:
    rows = [
        [", ".join(trial.terms), f"{trial.gain:.1f}", f"{trial.error:.1f}", "accepted" if trial.accepted else ""]
        for trial in trials
    ]
    header = ["Terms", "Held-out squares less by", "Error", ""]
    logger.info("\nChoice of terms by held-out observations:\n%s\nTerms: %s", tabulate(rows, header), ", ".join(chosen))
