"""Some of many experiments, for what the whole need not be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import libtbx.phil
import numpy as np
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition
from dials_diffuse.grid import GlobalGrid

#: Parameters of their models together, about.
PARAMETERS = 1500


def largest_experiments(
    counts: np.ndarray,
    experiments: ExperimentList,
    terms: Sequence[str],
    params: libtbx.phil.scope_extract,
    grid: GlobalGrid,
) -> np.ndarray:
    """The experiments with the most observations, two at least, whose models have :data:`PARAMETERS` together.

    Parameters
    ----------
    counts : ndarray, shape (experiments,), int
        Observations of each.
    terms : sequence of str
        Of the models.
    params : libtbx.phil.scope_extract
        The ``scaling`` scope of :data:`dials_diffuse.phil_scope.scale.phil_scope`.

    Returns
    -------
    ndarray, shape (k,), int
        Their numbers, increasing.
    """
    order = np.argsort(-counts, kind="stable")
    sizes = [DiffuseScalingModel.for_experiment(experiments[int(i)], terms, params, grid.d_min).n_params for i in order]
    n = max(int(np.searchsorted(np.cumsum(sizes), PARAMETERS)), 2)
    return np.arange(len(experiments)) if n >= len(order) else np.sort(order[:n])


def by_experiment(n: int, partition: Partition, observations: GroupedObservations) -> np.ndarray:
    """Number of observations of each of n experiments."""
    return np.bincount(observations.experiment, minlength=n)


def of_experiments(numbers: np.ndarray, partition: Partition, observations: GroupedObservations) -> GroupedObservations:
    """View: the observations of some experiments, which are counted anew; ``numbers`` are theirs, increasing."""
    place = np.minimum(np.searchsorted(numbers, observations.experiment), len(numbers) - 1)
    chosen = observations.select(numbers[place] == observations.experiment)
    return replace(chosen, experiment=np.searchsorted(numbers, chosen.experiment).astype(np.int32))
