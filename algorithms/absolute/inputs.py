"""The files that the program was given: scaled data, and integrated Bragg reflections of the same sweeps."""

from __future__ import annotations

import json
from dataclasses import replace

from dials.util import Sorry

from dials_diffuse.algorithms.merging.merge import COLUMNS
from dials_diffuse.dataset import EXPT_KEY, Dataset
from dials_diffuse.program import Session


def separate(session: Session) -> tuple[Dataset, Session]:
    """Tell scaled from integrated files: scaled experiments have a grid, scaled observations a response.

    Identifiers do not tell, for both may have the same.

    Parameters
    ----------
    session : Session
        Of the program. Its reflections are taken.

    Returns
    -------
    Dataset
        The scaled observations, in memory.
    Session
        The same with the integrated files alone, which may be none.

    Raises
    ------
    Sorry
        If there are no scaled data, or experiments without reflections, or observations are too many for the memory.
    """
    expts = list(zip(session.experiment_files, session.experiments))
    refls = list(zip(session.reflection_files, session.reflections))
    session.reflections.clear()
    has_grid = [_has_grid(name) for name, _ in expts]
    has_response = ["response" in getattr(table, "columns", table) for _, table in refls]
    parts = [
        replace(
            session,
            experiment_files=[name for (name, _), has in zip(expts, has_grid) if has is scaled],
            experiments=[part for (_, part), has in zip(expts, has_grid) if has is scaled],
            reflection_files=[name for (name, _), has in zip(refls, has_response) if has is scaled],
            reflections=[table for (_, table), has in zip(refls, has_response) if has is scaled],
        )
        for scaled in (True, False)
    ]
    if not parts[0].experiment_files or not parts[0].reflection_files:
        raise Sorry("dials.diffuse_absolute needs scaled.expt and scaled.refl, the output of dials.diffuse_scale.")
    if bool(parts[1].experiment_files) != bool(parts[1].reflection_files):
        given = (*parts[1].experiment_files, *parts[1].reflection_files)
        raise Sorry(f"{given[0]} comes alone: give integrated.expt and integrated.refl, both.")
    return Dataset.from_session(parts[0], "dials.diffuse_scale", COLUMNS).in_memory(), parts[1]


def _has_grid(filename: str) -> bool:
    with open(filename) as handle:
        return EXPT_KEY in json.load(handle)
