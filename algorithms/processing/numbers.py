"""Key numbers of a sweep: how many spots, how well they fit, the cell, the mosaicity."""

from __future__ import annotations

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.stills import is_still


def spot_numbers(reflections: flex.reflection_table) -> dict:
    """Spots and how many of them are indexed, from ``indexed.refl`` or ``refined.refl``."""
    indexed = reflections.get_flags(reflections.flags.indexed).count(True)
    return {"spots": len(reflections), "indexed": indexed}


def refinement_numbers(experiments: ExperimentList, reflections: flex.reflection_table) -> dict:
    """RMSDs of the spots used in refinement, in pixels and (not of stills) images; mean cell of each crystal."""
    used = reflections.get_flags(reflections.flags.used_in_refinement)
    numbers: dict = {"cells": [cell_of(experiment.crystal) for experiment in experiments]}
    if used.count(True):
        chosen = reflections.select(used)
        delta = flumpy.to_numpy(chosen["xyzcal.px"] - chosen["xyzobs.px.value"])
        numbers["rmsd"] = np.sqrt((delta**2).mean(axis=0)).tolist()[: 2 if is_still(experiments[0]) else 3]
    return numbers


def cell_of(crystal) -> list[float]:
    """Edges in Angstrom and angles in degrees; of a crystal that varies through the scan, the mean."""
    if not crystal.num_scan_points:
        return list(crystal.get_unit_cell().parameters())
    points = range(crystal.num_scan_points)
    return np.mean([crystal.get_unit_cell_at_scan_point(i).parameters() for i in points], axis=0).tolist()


def mosaicity(experiments: ExperimentList) -> float | None:
    """sigma_m of the profile models in degrees, averaged over crystals and scan; None without profile models."""
    values = []
    for experiment in experiments:
        if experiment.profile is not None:
            sigma = experiment.profile.to_dict().get("sigma_m")
            values.append(np.mean(sigma) if sigma is not None else np.nan)
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
