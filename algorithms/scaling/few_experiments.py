"""Some of many experiments, for what the whole need not be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import libtbx.phil
import numpy as np
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.grid import GlobalGrid

#: Parameters of their models together, about.
PARAMETERS = 1500


def largest_experiments(
    observations: GroupedObservations,
    experiments: ExperimentList,
    terms: Sequence[str],
    params: libtbx.phil.scope_extract,
    grid: GlobalGrid,
) -> tuple[GroupedObservations, ExperimentList, np.ndarray]:
    """The experiments with the most observations, two at least, whose models have :data:`PARAMETERS` together.

    Parameters
    ----------
    terms : sequence of str
        Of the models.
    params : libtbx.phil.scope_extract
        The ``scaling`` scope of :data:`dials_diffuse.phil_scope.scale.phil_scope`.

    Returns
    -------
    observations : GroupedObservations
        Theirs.
    experiments : ExperimentList
    taken : ndarray, shape (k,), int
        Their numbers.
    """
    order = np.argsort(-np.bincount(observations.experiment, minlength=len(experiments)), kind="stable")
    sizes = [DiffuseScalingModel.for_experiment(experiments[int(i)], terms, params, grid.d_min).n_params for i in order]
    n = max(int(np.searchsorted(np.cumsum(sizes), PARAMETERS)), 2)
    if n >= len(order):
        return observations, experiments, np.arange(len(experiments))
    taken = np.sort(order[:n])
    number = np.full(len(experiments), -1, dtype=np.int32)
    number[taken] = np.arange(n)
    chosen = observations.select(number[observations.experiment] >= 0)
    chosen = replace(chosen, experiment=number[chosen.experiment])
    return chosen, ExperimentList([experiments[int(i)] for i in taken]), taken
