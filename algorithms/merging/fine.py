"""Observations on another grid than that of scaling: extracted and corrected as before, then the refined model applied.

What was done before is in the history: every program's parameters, the folder it ran in, and the SHA-256 of its inputs.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.correct import correct
from dials_diffuse.algorithms.extraction.extract import extract
from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.exclude_images import exclude_images
from dials_diffuse.algorithms.scaling.observations import scaled_observations
from dials_diffuse.algorithms.scaling.outliers import REASON, find_outliers
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions
from dials_diffuse.dataset import Dataset, forget_identifiers, models_and_reflections, read_diffuse_header
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.parameters import phil_scope
from dials_diffuse.phil_scope.outliers import phil_scope as outliers_scope
from dials_diffuse.program import Session
from dials_diffuse.provenance import ProcessRecord, hash_file

logger = logging.getLogger("dials.diffuse.merging")


def dataset_on_grid(session: Session, columns: tuple[str, ...]) -> Dataset:
    """The scaled data set that a program was given, on the grid that it was asked for.

    Parameters
    ----------
    session : Session
        With the parameters ``grid.ndiv``, ``d_min`` and ``mp``; where images are extracted again, reflection files
        are not needed.
    columns : tuple of str
        Columns that scaled observations must have.

    Raises
    ------
    Sorry
        As :meth:`Dataset.from_session` and :func:`fine_dataset`, or if several data sets are given.
    """
    params, made_by = session.params, "dials.diffuse_scale"
    if params.grid.ndiv is None and params.d_min is None:
        return Dataset.from_session(session, made_by, columns)
    if len(session.experiment_files) > 1:
        raise Sorry("grid.ndiv and d_min need one .expt file of all sweeps, as dials.diffuse_scale writes it.")
    coarse, history = read_diffuse_header(session.experiment_files[0], made_by)
    grid = fine_grid(coarse, params.grid.ndiv, params.d_min)
    if session.reflection_files and grid.ndiv == coarse.ndiv and grid.d_min >= coarse.d_min:
        return replace(Dataset.from_session(session, made_by, columns), grid=grid)
    session.reflections.clear()
    if grid.d_min < coarse.d_min:
        logger.warning("The scaling model was refined to %.2f A and is extrapolated beyond.", coarse.d_min)
    dataset = fine_dataset(session.experiments[0], history, grid, params.mp)
    dataset.history.append(session.record)
    return dataset


def fine_grid(grid: GlobalGrid, ndiv: list[int] | None, d_min: float | None) -> GlobalGrid:
    """The grid that is asked for: that of scaling but for what is given.

    Raises
    ------
    Sorry
        If ndiv does not fit the Laue group.
    """
    return replace(grid, ndiv=tuple(ndiv) if ndiv else grid.ndiv, d_min=d_min or grid.d_min)


def fine_dataset(
    experiments: ExperimentList,
    history: list[ProcessRecord],
    grid: GlobalGrid,
    mp: libtbx.phil.scope_extract,
) -> Dataset:
    """Extract the experiments of a scaled data set again on another grid, correct them and apply their scaling models.

    Parameters
    ----------
    experiments : ExperimentList
        Scaled.
    history : list of ProcessRecord
        Theirs. Extraction and correction run with the parameters recorded there, in the folders where they ran; masks
        are made anew, from reflections that must not have changed. Images that scaling excluded are left out again, and
        outliers are looked for with the parameters of scaling.
    grid : GlobalGrid
    mp : libtbx.phil.scope_extract
        The scope ``mp``.

    Returns
    -------
    Dataset
        Scaled observations on the grid.

    Raises
    ------
    Sorry
        If the history does not tell enough, an input is missing or has changed, or any of the steps says so.
    """
    if any(experiment.scaling_model is None for experiment in experiments):
        raise Sorry("The experiments have no scaling models: run dials.diffuse_scale first.")
    identifiers = list(experiments.identifiers())
    scaling = [record for record in history if record.program == "dials.diffuse_scale"]
    if not scaling:
        raise Sorry("The history does not tell how the data were scaled: run dials.diffuse_scale first.")
    runs = [
        [_Run(record, _parameters(record)) for record in _records(history, program, identifiers)]
        for program in ("dials.diffuse_extract", "dials.diffuse_correct")
    ]
    for run in (*runs[0], *runs[1]):
        run.check_inputs()  # all of them before the first frame is read
    tables = [_extract(run, identifiers, grid, mp) for run in runs[0]]
    whole = Dataset(experiments, _joined(tables, identifiers), grid, list(history))
    corrected = [_correct(run, whole) for run in runs[1]]
    whole.observations = _joined(corrected, identifiers)
    apply_models(whole)
    exclude_images(whole, None)  # those that the scans tell of
    outliers = outliers_scope.fetch(source=parse(scaling[-1].parameters)).extract().outlier
    _reject_outliers(whole, outliers, mp)
    return whole


@dataclass
class _Run:
    """One run of a program, to be done again.

    Attributes
    ----------
    record : ProcessRecord
    params : libtbx.phil.scope_extract
    """

    record: ProcessRecord
    params: libtbx.phil.scope_extract

    @contextlib.contextmanager
    def folder(self) -> Iterator[None]:
        """In the folder where it ran, if that is still there: relative names of files start from it."""
        here = os.getcwd()
        if os.path.isdir(self.record.folder):
            os.chdir(self.record.folder)
        try:
            yield
        finally:
            os.chdir(here)

    def given(self, what: str) -> list[str]:
        """Names of the files ``experiments`` or ``reflections`` that it was given."""
        definitions = (d.object for d in parse(self.record.parameters).all_definitions() if d.path == f"input.{what}")
        return [" ".join(word.value for word in definition.words) for definition in definitions]

    def check_inputs(self) -> None:
        """See that the files it needs are as they were: of a correction only masks and backgrounds are."""
        needed = dict(self.record.inputs)
        if self.record.program == "dials.diffuse_correct":
            for name in (*self.given("experiments"), *self.given("reflections")):
                needed.pop(name, None)
        with self.folder():
            for name, digest in needed.items():
                if not Path(name).is_file() or hash_file(name) != digest:
                    path = os.path.join(self.record.folder, name)
                    what = "has changed since" if Path(name).is_file() else "is missing:"
                    raise Sorry(
                        f"{path} {what} {self.record.program} read it, and is needed to extract again: put it back as "
                        "it was, or run extraction, correction and scaling again."
                    )


def _records(history: list[ProcessRecord], program: str, identifiers: list[str]) -> list[ProcessRecord]:
    """The last run of a program on each experiment.

    Raises
    ------
    Sorry
        If that cannot be told.
    """
    records = [record for record in history if record.program == program]
    chosen: list[ProcessRecord] = []
    for identifier in identifiers:
        of_experiment = [record for record in records if identifier in record.experiments]
        if not of_experiment:
            raise Sorry(
                f"The history does not tell how {program} was run (an older version of dials_diffuse wrote it): run "
                "the programs again, from extraction on."
            )
        if of_experiment[-1] not in chosen:
            chosen.append(of_experiment[-1])
    return chosen


def _parameters(record: ProcessRecord) -> libtbx.phil.scope_extract:
    """The parameters of a run; defaults for those that its version did not have."""
    scope = phil_scope(record.program.removeprefix("dials.diffuse_"))
    try:
        return scope.fetch(source=parse(record.parameters)).extract()
    except (RuntimeError, ValueError) as error:  # a value that is out of range now
        raise Sorry(f"The parameters that {record.program} ran with cannot be used any more: {error}.") from error


def _extract(
    run: _Run, identifiers: list[str], grid: GlobalGrid, mp: libtbx.phil.scope_extract
) -> flex.reflection_table:
    """Extract those experiments of a run that are wanted."""
    params = run.params
    on_grid = phil_scope("extract").fetch(source=parse(grid.as_phil())).extract()
    params.grid, params.d_min, params.mp = on_grid.grid, on_grid.d_min, mp
    params.extract.experiments = [i for i, name in enumerate(run.record.experiments) if name in identifiers]
    with run.folder():
        session = Session(params, run.record, run.given("experiments"), reflection_files=run.given("reflections"))
        session.experiments = [ExperimentList.from_file(name) for name in session.experiment_files]
        session.reflections = [flex.reflection_table.from_file(name) for name in session.reflection_files]
        experiments, reflections = models_and_reflections(session)
        return extract(experiments, reflections, params).observations


def _correct(run: _Run, whole: Dataset) -> flex.reflection_table:
    """Correct the observations of the experiments of a run, of which backgrounds are told apart by their order."""
    numbers = {name: i for i, name in enumerate(whole.experiments.identifiers())}
    missing = [name for name in run.record.experiments if name not in numbers]
    own = [name for name in run.record.experiments if name in numbers]
    if missing and len([name for name in run.params.background if name]) > 1:
        raise Sorry(
            f"{run.record.program} corrected experiments with a background each that are no longer all there: run it "
            "again on those that are wanted."
        )
    experiments = ExperimentList([whole.experiments[numbers[name]] for name in own])
    table = _joined([whole.observations], own)
    with run.folder():
        return correct(Dataset(experiments, table, whole.grid), run.params).observations


def _joined(tables: list[flex.reflection_table], identifiers: list[str]) -> flex.reflection_table:
    """The rows of some experiments in one table, in which ``id`` counts these."""
    number = {identifier: i for i, identifier in enumerate(identifiers)}
    joined = flex.reflection_table()
    for table in tables:
        known = dict(table.experiment_identifiers())
        new = np.full(max(known, default=-1) + 1, -1, dtype=np.int32)
        for old, identifier in known.items():
            new[old] = number.get(identifier, -1)
        ids = new[flumpy.to_numpy(table["id"])]
        part = table.select(flumpy.from_numpy(ids >= 0))
        forget_identifiers(part)
        part["id"] = flumpy.from_numpy(ids[ids >= 0])
        joined.extend(part)
    for i, identifier in enumerate(identifiers):
        joined.experiment_identifiers()[i] = identifier
    return joined


def _reject_outliers(dataset: Dataset, params: libtbx.phil.scope_extract, mp: libtbx.phil.scope_extract) -> None:
    """Flag the outliers."""
    partitions = VoxelPartitions.of(scaled_observations(dataset), mp)
    find_outliers(partitions, dataset.grid, params)
    rejected = np.zeros(len(dataset.observations), dtype=bool)
    for partition in partitions.partitions:
        rejected[partition.observations.rows[partition.get(REASON) > 0]] = True
    dataset.observations.set_flags(flumpy.from_numpy(rejected), dataset.observations.flags.outlier_in_scaling)
