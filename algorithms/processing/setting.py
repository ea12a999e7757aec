"""All sweeps in the setting of the first, where the lattice allows several."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from cctbx import sgtbx
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.processing import dials_steps
from dials_diffuse.algorithms.processing.numbers import cell_of
from dials_diffuse.algorithms.processing.record import key_of
from dials_diffuse.algorithms.processing.steps import LeftOut
from dials_diffuse.algorithms.processing.sweeps import Sweep
from dials_diffuse.algorithms.processing.work import Work, included

logger = logging.getLogger("dials.diffuse.process")


def bring_into_one_setting(sweeps: Sequence[Sweep], work: Work) -> None:
    """Compare the Bragg intensities of all integrated sweeps, and reindex where need be.

    Sets ``numbers["settings"]``, one for each lattice, ``numbers["operator"]`` and, after dials.reindex, ``files`` and
    ``numbers["cells"]``.
    """
    compared = [sweep for sweep in included(sweeps) if sweep.state == "integrated" and not sweep.is_stills]
    if len(compared) < len(included(sweeps)):
        logger.warning("Sweeps that are not integrated, and stills, are taken to be in one setting.")
    files = [file for sweep in compared for file in sweep.files_of("integrated")]
    key = key_of([work.runner.record.hash(file) for file in files])
    found = work.runner.compute("consistent indexing", key, lambda: find_settings(compared)) if compared else {}
    for sweep in compared:
        sweep.numbers["settings"] = found[sweep.name]
    work.for_all(compared, lambda sweep, nproc: _reindex(sweep, work))


def find_settings(sweeps: Sequence[Sweep]) -> dict[str, list[dict]]:
    """The setting of each lattice of each sweep against the first lattice of the first.

    Returns
    -------
    dict of str to list of dict
        By the sweep's name, for each of its experiments: ``operator``, ``correlation``, ``alternatives``,
        ``confident``, ``ambiguous``, ``reason`` as in Reindexing, and ``space_group``, what dials.reindex is to set
        after the operator, None if that is what comes out.
    """
    from dials_diffuse.algorithms.processing.consistent_indexing import consistent_indexing

    names, experiments, reflections = [], [], []
    for sweep in sweeps:
        expt, refl = sweep.files_of("integrated")
        table = flex.reflection_table.from_file(str(refl))
        for experiment in ExperimentList.from_file(expt, check_format=False):
            names.append(sweep.name)
            experiments.append(ExperimentList([experiment]))
            reflections.append(table.select_on_experiment_identifiers([experiment.identifier]))
    found: dict[str, list[dict]] = {sweep.name: [] for sweep in sweeps}
    if len(experiments) == 1:
        return found
    group = experiments[0][0].crystal.get_space_group()
    logging.getLogger("dials.util.filter_reflections").setLevel(logging.WARNING)
    for name, experiment, setting in zip(names, experiments, consistent_indexing(experiments, reflections)):
        found[name].append(
            {
                "operator": setting.operator,
                "correlation": _json(setting.correlation),
                "alternatives": {op: [_json(cc), int(n)] for op, (cc, n) in setting.alternatives.items()},
                "confident": bool(setting.confident),
                "ambiguous": setting.ambiguous,
                "reason": setting.reason,
                "space_group": _group_to_set(experiment[0].crystal, setting.operator, group),
            }
        )
    return found


def _json(correlation: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(correlation) else float(correlation)


def _group_to_set(crystal, operator: str | None, group: sgtbx.space_group) -> str | None:
    if operator is None or crystal.change_basis(sgtbx.change_of_basis_op(operator)).get_space_group() == group:
        return None
    return group.type().lookup_symbol()


def _reindex(sweep: Sweep, work: Work) -> None:
    """dials.reindex, if need be."""
    settings = sweep.numbers["settings"]
    if not settings:
        return
    operators = {setting["operator"] for setting in settings}
    if None in operators:
        raise LeftOut(next(setting["reason"] for setting in settings if setting["operator"] is None).rstrip("."))
    if len(operators) > 1:
        raise LeftOut(
            f"its lattices are in different settings ({' and '.join(sorted(operators))}): take integrated.* apart with "
            "dials.split_experiments and give the parts as sweeps"
        )
    for setting in settings:
        if setting["ambiguous"] and not setting["confident"]:
            logger.warning("%s: its setting is not certain: %s", sweep.name, setting["reason"])
    (operator,), group = operators, settings[0]["space_group"]
    sweep.numbers["operator"] = operator
    if operator != "h,k,l" or group:
        sweep.files = work.runner.run(dials_steps.reindex(sweep, operator, group, work.parameters))
        experiments = ExperimentList.from_file(sweep.files[0], check_format=False)
        sweep.numbers["cells"] = [cell_of(experiment.crystal) for experiment in experiments]
