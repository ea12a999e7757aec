"""Scaling of a data set: choice of terms, refinement, and what comes of it."""

from __future__ import annotations

import logging

import libtbx
import libtbx.phil

from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.scaler import MultiBatchScaler
from dials_diffuse.algorithms.scaling.selection import choose_terms
from dials_diffuse.dataset import Dataset

logger = logging.getLogger("dials.diffuse.scaling")


def scale(dataset: Dataset, params: libtbx.phil.scope_extract) -> dict:
    """Refine the scaling models of all experiments.

    Parameters
    ----------
    dataset : Dataset
        Corrected observations of one or more sweeps. Changed in place: every experiment gets its scaling model, the
        observations the columns ``inverse_scale_factor``, ``offset.sum.value``, ``flags``.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.command_line.diffuse_scale.phil_scope`.

    Returns
    -------
    dict
        The report, JSON-ready.

    Raises
    ------
    Sorry
        If there are no observations.
    """
    observations = GroupedObservations.from_dataset(dataset)
    if params.scaling.terms is libtbx.Auto:
        models, trials = choose_terms(observations, dataset.experiments, dataset.grid, params, ErrorModel())
    else:
        names = " ".join(params.scaling.terms).replace(",", " ").split()
        models = [
            DiffuseScalingModel.for_experiment(experiment, names, params.scaling, dataset.grid.d_min)
            for experiment in dataset.experiments
        ]
    scaler = MultiBatchScaler(observations, dataset.experiments, models, dataset.grid, params, ErrorModel())
    scaler.fit()
    for experiment, model in zip(dataset.experiments, models):
        experiment.scaling_model = model
    apply_models(dataset)
    return {"cycles": [vars(cycle) for cycle in scaler.cycles]}
