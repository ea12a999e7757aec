"""From corrected to scaled observations."""

from __future__ import annotations

import logging

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import tabulate
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.scaler import MultiBatchScaler
from dials_diffuse.dataset import Dataset

logger = logging.getLogger("dials.diffuse.scaling")


def scale(dataset: Dataset, params: libtbx.phil.scope_extract) -> dict:
    """Refine the scale b(phi) of every sweep.

    Parameters
    ----------
    dataset : Dataset
        Corrected observations of one or more sweeps. Changed in place: every experiment gets its scaling model, the
        observations the column ``inverse_scale_factor``.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.command_line.diffuse_scale.phil_scope`.

    Returns
    -------
    dict
        The report, JSON-ready: ``cycles`` (reduced chi-squared, smoothness, largest change), ``sweeps`` (for each
        experiment the knots' parameters, their standard deviations, the degrees between them, numbers of observations).

    Raises
    ------
    Sorry
        If there are no observations.
    """
    observations = GroupedObservations.from_dataset(dataset)
    for experiment in dataset.experiments:
        experiment.scaling_model = DiffuseScalingModel.for_experiment(experiment, params.scaling.scale_interval)
    scaler = MultiBatchScaler(observations, dataset.experiments, dataset.grid, params.scaling)
    scaler.fit()
    table = dataset.observations
    frame = flumpy.to_numpy(table["xyzobs.px.value"].parts()[2])
    table["inverse_scale_factor"] = flex.double(scaler.scales(flumpy.to_numpy(table["id"]), frame))
    return _report(scaler)


def _report(scaler: MultiBatchScaler) -> dict:
    """Write a line for every sweep to the log, and return what goes into the JSON file."""
    used = scaler.observations.repeated()
    sweeps, lines = [], []
    for i, model in enumerate(scaler.models):
        term = model.components["scale"]
        parameters, errors = np.array(term.parameters), np.array(term.parameter_esds)
        b = scaler.curve(i)
        sweeps.append(
            {
                "observations": int(np.sum(scaler.observations.experiment == i)),
                "observations_used": int(np.sum(used.experiment == i)),
                "degrees_between_knots": model.configdict["scale_rot_interval"],
                "parameters": parameters.tolist(),
                "standard_deviations": errors.tolist(),
                "mean": float(b.mean()),
            }
        )
        counts = [sweeps[-1]["observations"], sweeps[-1]["observations_used"]]
        lines.append(
            [i, *counts, len(parameters), *(f"{x:.4f}" for x in (b.mean(), b.min(), b.max(), np.median(errors)))]
        )
    header = ["Sweep", "Observations", "Used in the fit", "Parameters", "Mean b", "Lowest", "Highest", "Median error"]
    logger.info("\n%s", tabulate(lines, header))
    return {"cycles": [vars(cycle) for cycle in scaler.cycles], "sweeps": sweeps}
