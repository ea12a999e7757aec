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
from dials_diffuse.log_levels import DETAILED

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
    table["offset.sum.value"] = flex.double(len(table), 0.0)
    table["flags"] = flex.size_t(len(table), 0)
    table["inverse_scale_factor"] = flex.double(scaler.scales(flumpy.to_numpy(table["id"]), frame))
    return _report(scaler)


def _report(scaler: MultiBatchScaler) -> dict:
    """Write a line for every sweep to the log (a summary if they are many), and return what goes into the JSON file."""
    n = len(scaler.models)
    observations = np.bincount(scaler.observations.experiment, minlength=n)
    used = np.bincount(scaler.observations.repeated().experiment, minlength=n)
    sweeps, lines = [], []
    for i, model in enumerate(scaler.models):
        term = model.components["scale"]
        parameters, errors = np.array(term.parameters), np.array(term.parameter_esds)
        b = scaler.curve(i)
        sweeps.append(
            {
                "observations": int(observations[i]),
                "observations_used": int(used[i]),
                "degrees_between_knots": model.configdict["scale_rot_interval"],
                "parameters": parameters.tolist(),
                "standard_deviations": errors.tolist(),
                "mean": float(b.mean()),
            }
        )
        lines.append([observations[i], used[i], len(parameters), b.mean(), b.min(), b.max(), np.median(errors)])
    columns = ["Observations", "Used in the fit", "Parameters", "Mean b", "Lowest", "Highest", "Median error"]
    if n <= DETAILED:
        rows = [[i, *line[:3], *(f"{x:.4f}" for x in line[3:])] for i, line in enumerate(lines)]
        logger.info("\n%s", tabulate(rows, ["Sweep", *columns]))
    else:
        shares = {"least": 0, "quarter": 25, "median": 50, "three quarters": 75, "most": 100}
        rows = [[name, *(f"{x:.5g}" for x in np.percentile(lines, share, axis=0))] for name, share in shares.items()]
        logger.info("\n%s", tabulate(rows, [f"Of {n} sweeps", *columns]))
    return {"cycles": [vars(cycle) for cycle in scaler.cycles], "sweeps": sweeps}
