"""Experiments, their observations, the grid they are counted on and what has been done to them: what flows from step to
step, in memory or as a pair of an .expt file and a .refl file or .parts folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from cctbx import uctbx
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.grid import SAME_CELL, GlobalGrid
from dials_diffuse.images import sweep_name
from dials_diffuse.map_file import INTENSITY_UNITS
from dials_diffuse.output import whole_files
from dials_diffuse.partitioned_table import (
    ENDING,
    GOOD_SIZE,
    PartitionedTable,
    is_partitioned,
    save_part,
    write_manifest,
)
from dials_diffuse.program import Session
from dials_diffuse.provenance import ProcessRecord
from dials_diffuse.table_file import Columns, columns_of, fits_refl, write_refl, write_table
from dials_diffuse.work_folder import PARTS, temporary_folder

logger = logging.getLogger("dials.diffuse")

#: Observations, in memory or on disk.
Observations = flex.reflection_table | PartitionedTable

#: Key of the .expt file's JSON that holds the grid and the history; DIALS passes over it.
EXPT_KEY = "dials_diffuse"
#: Key in scaling models of the units of scaled intensities, where these are not :data:`INTENSITY_UNITS`.
UNITS_KEY = "units"
#: Of an observation in a table: 12 columns of 8 bytes, two of them three times, and as much while it is read.
BYTES_IN_MEMORY = 256


@dataclass
class Dataset:
    """Observations of diffuse scattering.

    Attributes
    ----------
    experiments : ExperimentList
        One a sweep (or still); ``observations["id"]`` points into it.
    observations : flex.reflection_table or PartitionedTable
        Columns: see docs/data_model.md.
    grid : GlobalGrid
        The voxels that ``observations["miller_index"]`` counts.
    history : list of ProcessRecord
        Every program that had a part in it, oldest first.
    """

    experiments: ExperimentList
    observations: Observations
    grid: GlobalGrid
    history: list[ProcessRecord] = field(default_factory=list)

    @property
    def units(self) -> str:
        """Units of scaled intensities: those of the map.

        Raises
        ------
        Sorry
            If the experiments' scaling models give different ones.
        """
        models = [experiment.scaling_model for experiment in self.experiments]
        found = {INTENSITY_UNITS if m is None else m.configdict.get(UNITS_KEY, INTENSITY_UNITS) for m in models}
        if len(found) > 1:
            raise Sorry(
                "Some of the data are in electrons squared and others are not: run dials.diffuse_absolute on all of "
                "them together."
            )
        return found.pop() if found else INTENSITY_UNITS

    def partitions(self) -> Iterator[Dataset]:
        """Data sets of the same experiments, each with a part of the observations in memory, in order.

        One in memory is its only part.
        """
        if isinstance(self.observations, flex.reflection_table):
            yield self
            return
        for number in range(len(self.observations.parts)):
            yield replace(self, observations=self.observations.table(number))

    def in_memory(self) -> Dataset:
        """The same with all observations in one table, for what cannot be done otherwise.

        Raises
        ------
        Sorry
            If they are too many for this machine.
        """
        if isinstance(self.observations, flex.reflection_table):
            return self
        rows = self.observations.rows
        needed = rows * BYTES_IN_MEMORY
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if not fits_refl(rows) or needed > free:
            raise Sorry(
                f"This cannot be done by partitions: the {rows} observations of {self.observations.folder} would need "
                f"{needed / 1e9:.0f} GB of memory ({free / 1e9:.0f} GB are free). Give fewer sweeps, or extract them "
                "on a coarser grid (grid.ndiv, d_min)."
            )
        return replace(self, observations=self.observations.whole_table())

    def write(
        self,
        expt: str | os.PathLike,
        refl: str | os.PathLike,
        texts: dict[str | os.PathLike, str] | None = None,
        work: Path | None = None,
    ) -> list[str]:
        """Write everything, whole or not at all.

        Parameters
        ----------
        expt, refl : path
            Where ``refl`` ends with ``.parts`` the observations are written in partitions.
        texts : dict of path to str, optional
            Other files that belong to them, and what to write there.
        work : Path, optional
            A folder of :func:`~dials_diffuse.work_folder.folder_for` ``refl``: partitions in it need not be copied.

        Returns
        -------
        list of str
            The files written: partitions in place of a .refl file that would be too large.

        Raises
        ------
        Sorry
            If they cannot be written.
        """
        texts = texts or {}
        refl = possible_name(refl, len(self.observations))
        with contextlib.ExitStack() as stack:
            observations = self.observations
            made_there = isinstance(observations, PartitionedTable) and work in observations.folder.parents
            if is_partitioned(refl) and not made_there:
                work = stack.enter_context(temporary_folder(Path(refl).resolve().parent))
                observations = save_parts(observations, work / PARTS)
            expt_part, *text_parts = stack.enter_context(whole_observations(observations, refl, expt, *texts))
            write_experiments(self.experiments, self.grid, self.history, expt_part)
            for part, text in zip(text_parts, texts.values()):
                part.write_text(text, encoding="utf-8")
        return [os.fspath(name) for name in (expt, refl, *texts)]

    @classmethod
    def from_files(cls, expt: str | os.PathLike, refl: str | os.PathLike) -> Dataset:
        """Read a pair of files that :meth:`write` or one of the programs wrote; images are not looked for.

        Raises
        ------
        Sorry
            If they hold no grid, or do not belong together.
        """
        grid, history = read_diffuse_header(expt, "dials.diffuse_extract")
        experiments = ExperimentList.from_file(os.fspath(expt), check_format=False)
        partitioned = os.path.isdir(refl) or is_partitioned(refl)
        tables = {
            os.fspath(refl): PartitionedTable(refl) if partitioned else flex.reflection_table.from_file(os.fspath(refl))
        }
        return cls(experiments, tables[_table_of(experiments, tables, os.fspath(expt))], grid, history)

    @classmethod
    def from_session(cls, session: Session, made_by: str, columns: tuple[str, ...] = ()) -> Dataset:
        """Read the files that a program was given, one pair or several, and make one data set of them.

        Parameters
        ----------
        session : Session
            Of the program; its record is appended to the history.
        made_by : str
            The program whose output is expected, for the message.
        columns : tuple of str
            Columns that the observations must have.

        Raises
        ------
        Sorry
            If files are missing, do not belong together, were not written by ``made_by``, or differ in their grids.
        """
        if len(session.experiment_files) != len(session.reflection_files):
            raise Sorry(
                f"{len(session.experiment_files)} experiment files but {len(session.reflection_files)} reflection "
                f"files: give one of each for every data set, as written by {made_by}."
            )
        datasets = []
        tables = dict(zip(session.reflection_files, session.reflections))
        session.reflections.clear()  # so that tables are not held twice
        for expt, experiments in zip(session.experiment_files, session.experiments):
            grid, history = read_diffuse_header(expt, made_by)
            refl = _table_of(experiments, tables, expt)
            table = tables[refl]
            there = table.columns if isinstance(table, PartitionedTable) else table
            missing = [column for column in ("miller_index", *columns) if column not in there]
            if missing:
                raise Sorry(f"{refl} has no column {missing[0]}: it must be the output of {made_by}.")
            datasets.append(cls(experiments, tables.pop(refl), grid, history))
        combined = cls.combine(datasets)
        combined.history.append(session.record)
        return combined

    @classmethod
    def combine(cls, datasets: list[Dataset]) -> Dataset:
        """One data set of several; experiment ids are renumbered, the reference cell is the mean.

        Raises
        ------
        Sorry
            If ndiv, the Laue group or (beyond :data:`~dials_diffuse.grid.SAME_CELL`) the cells differ, or some are in
            memory and others in partitions.
        """
        if len(datasets) == 1:
            return datasets[0]
        first = datasets[0].grid
        for dataset in datasets[1:]:
            both = f"{sweep_name(datasets[0].experiments[0])} and {sweep_name(dataset.experiments[0])}"
            if dataset.grid.ndiv != first.ndiv or dataset.grid.laue_group != first.laue_group:
                raise Sorry(
                    f"{both} were extracted on different grids ({first} and {dataset.grid}): extract them with the "
                    "same grid.ndiv and space group."
                )
            if not dataset.grid.unit_cell.is_similar_to(first.unit_cell, *SAME_CELL):
                raise Sorry(
                    f"The cells of {both} differ: {first.unit_cell} and {dataset.grid.unit_cell}. Leave out or reindex "
                    "one of them."
                )
        cells = np.mean([d.grid.unit_cell.parameters() for d in datasets], axis=0)
        cell = first.space_group.average_unit_cell(uctbx.unit_cell(tuple(cells)))
        grid = GlobalGrid(cell, first.space_group, first.ndiv, min(d.grid.d_min for d in datasets))
        experiments = ExperimentList()
        first_ids = []
        history: list[ProcessRecord] = []
        for dataset in datasets:
            _check_new(dataset.experiments, experiments, "a second data set")
            first_ids.append(len(experiments))
            experiments.extend(dataset.experiments)
            history += [record for record in dataset.history if record not in history]
        return cls(experiments, _joined([d.observations for d in datasets], first_ids), grid, history)


def _joined(tables: list[Observations], first_ids: list[int]) -> Observations:
    """Several tables as one; ``first_ids`` are added to their ids. Those in memory are used up."""
    partitioned = [isinstance(table, PartitionedTable) for table in tables]
    if all(partitioned):
        return PartitionedTable.joined(tables, first_ids)
    if any(partitioned):
        name = tables[partitioned.index(True)].folder
        raise Sorry(
            f"{name} is in partitions and other observations are single tables: write all of them in the same form "
            "(output.reflections=... ending with .parts)."
        )
    observations = flex.reflection_table()
    for table, first in zip(tables, first_ids):
        identifiers = dict(table.experiment_identifiers())
        forget_identifiers(table)
        table["id"] += first
        for key, identifier in identifiers.items():
            table.experiment_identifiers()[key + first] = identifier
        observations.extend(table)
    return observations


def possible_name(refl: str | os.PathLike, rows: int) -> str:
    """The name for observations: another, with a warning, where they are too many for the .refl file it asks for."""
    refl = os.fspath(refl)
    if is_partitioned(refl) or fits_refl(rows):
        return refl
    name = os.path.splitext(refl)[0] + ENDING
    logger.warning("%d observations are too many for one .refl file (4 GiB a column): %s takes its place.", rows, name)
    return name


@contextlib.contextmanager
def whole_observations(observations: Observations, refl: str, *others: str | os.PathLike) -> Iterator[list[Path]]:
    """Write observations, and other files with them, whole or not at all.

    Parameters
    ----------
    observations : flex.reflection_table or PartitionedTable
        If ``refl`` ends with ``.parts``: a PartitionedTable in a work folder beside it, which becomes ``refl``.
    refl : str
    *others : path
        Names of other files.

    Yields
    ------
    list of Path
        Where to write these others; see :func:`dials_diffuse.output.whole_files`.
    """
    if is_partitioned(refl):
        with whole_files(*others, folders={refl.rstrip("/"): observations.folder}) as parts:
            yield parts
        return
    with whole_files(*others, refl) as parts:
        if isinstance(observations, PartitionedTable):
            write_refl(observations, parts[-1])
        else:
            write_table(observations, parts[-1])
        yield parts[:-1]


def save_parts(observations: Observations, folder: Path) -> PartitionedTable:
    """Observations in partitions in a folder: those that they have, or else runs of whole batches of a sweep."""
    if isinstance(observations, PartitionedTable):
        columns = (observations.read(number) for number in range(len(observations.parts)))
        identifiers, attributes = observations.identifiers, observations.attributes
    else:
        columns = _runs_of_batches(columns_of(observations))
        identifiers, attributes = dict(observations.experiment_identifiers()), {"order": "frame"}
    parts = [save_part(folder, f"{number:06d}", part) for number, part in enumerate(columns)]
    write_manifest(folder, parts, identifiers, attributes)
    return PartitionedTable(folder)


def _runs_of_batches(columns: Columns) -> Iterator[Columns]:
    """Columns divided into runs of whole batches of a sweep, of a good size if the batches are not larger."""
    batch = columns.get("batch", np.zeros_like(columns["id"]))
    order = np.lexsort((batch, columns["id"]))  # stable
    ids, batch = columns["id"][order], batch[order]
    new_batch = np.flatnonzero((np.diff(batch) != 0) | (np.diff(ids) != 0)) + 1
    edges = [0]
    for start, stop in zip([0, *new_batch], [*new_batch, len(order)]):
        if start > edges[-1] and (stop - edges[-1] > GOOD_SIZE or ids[start] != ids[edges[-1]]):
            edges.append(start)
    for start, stop in zip(edges, [*edges[1:], len(order)]):
        yield {name: values[order[start:stop]] for name, values in columns.items()}


def models_and_reflections(session: Session) -> tuple[ExperimentList, flex.reflection_table | None]:
    """One list of experiments and one table of Bragg reflections from all the files a program was given.

    Returns
    -------
    experiments : ExperimentList
    reflections : flex.reflection_table or None
        ``id`` counts the experiments; None if no reflection file was given.

    Raises
    ------
    Sorry
        If a reflection file does not belong to the experiments, or one experiment was given twice.
    """
    experiments = ExperimentList()
    for part, name in zip(session.experiments, session.experiment_files):
        _check_new(part, experiments, name)
        experiments.extend(part)
    if not session.reflection_files:
        return experiments, None
    numbers = {experiment.identifier: i for i, experiment in enumerate(experiments)}
    reflections = flex.reflection_table()
    for name, table in zip(session.reflection_files, session.reflections):
        if isinstance(table, PartitionedTable):
            raise Sorry(f"{name} holds observations, not Bragg reflections: give refined.refl or integrated.refl.")
        if "id" not in table or "panel" not in table:
            raise Sorry(f"{name} does not tell experiments and panels: give refined.refl or integrated.refl.")
        identifiers = dict(table.experiment_identifiers())
        if not identifiers and len(experiments) == 1:
            identifiers = {0: experiments[0].identifier}
        if not identifiers or not set(identifiers.values()) <= set(numbers):
            raise Sorry(
                f"{name} holds reflections of other experiments than {', '.join(session.experiment_files)}: give the "
                ".refl file that was written together with the .expt file."
            )
        old = flumpy.to_numpy(table["id"])
        new = np.full(max([*identifiers, old.max(initial=0)]) + 2, -1, dtype=np.int32)  # the last is for id -1
        new[list(identifiers)] = [numbers[identifier] for identifier in identifiers.values()]
        forget_identifiers(table)
        table["id"] = flumpy.from_numpy(new[old])
        reflections.extend(table)
    session.reflections.clear()
    return experiments, reflections


def write_experiments(
    experiments: ExperimentList, grid: GlobalGrid, history: list[ProcessRecord], filename: str | os.PathLike
) -> None:
    """Write an .expt file that DIALS reads, with the grid and the history beside the experiments."""
    content = json.loads(experiments.as_json())
    content[EXPT_KEY] = {"grid": grid.to_dict(), "history": [record.to_dict() for record in history]}
    with open(filename, "w") as handle:
        json.dump(content, handle, indent=1)


def read_diffuse_header(filename: str | os.PathLike, made_by: str) -> tuple[GlobalGrid, list[ProcessRecord]]:
    """The grid and the history in an .expt file that :func:`write_experiments` wrote.

    Raises
    ------
    Sorry
        If there is none.
    """
    with open(filename) as handle:
        header = json.load(handle).get(EXPT_KEY)
    if header is None:
        raise Sorry(f"{filename} was not written by {made_by} (it holds no grid): run that first.")
    return GlobalGrid.from_dict(header["grid"]), [ProcessRecord.from_dict(record) for record in header["history"]]


def _check_new(experiments: ExperimentList, others: ExperimentList, name: str) -> None:
    """Raise Sorry if the same experiment, by its identifier, was given before."""
    identifiers = list(experiments.identifiers())
    if again := set(identifiers) & set(others.identifiers()) - {""}:
        raise Sorry(f"The experiment {again.pop()} was given twice, the second time in {name}: give each file once.")
    if "" in identifiers and len(experiments) + len(others) > 1:
        raise Sorry(
            f"Experiments of {name} have no identifiers, so that nothing tells whose the reflections are: use "
            "dials.assign_experiment_identifiers."
        )


def _table_of(experiments: ExperimentList, tables: dict[str, Observations], expt: str) -> str:
    """Name of the reflection file that belongs to the experiments, by their identifiers."""
    identifiers = set(experiments.identifiers())
    for name, table in tables.items():
        if isinstance(table, PartitionedTable):
            found = table.identifiers
        else:
            found = dict(table.experiment_identifiers())
        if set(found.values()) == identifiers:
            return name
    raise Sorry(
        f"None of {', '.join(tables) or 'the reflection files'} belongs to {expt}: their experiment identifiers "
        "differ. Give the files that one program wrote together."
    )


def forget_identifiers(table: flex.reflection_table) -> None:
    """Take away a table's experiment identifiers, so that it can be joined to one with others."""
    for key in list(table.experiment_identifiers().keys()):
        del table.experiment_identifiers()[key]
