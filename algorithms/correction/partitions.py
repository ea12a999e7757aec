"""Correction of observations in partitions, in processes or on many machines: in two passes, because an intensity's
variance takes the mean intensity of its resolution shell over all observations of its experiment."""

from __future__ import annotations

import logging
import os
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.util import Sorry
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.correction.background import BackgroundMap, measured_backgrounds
from dials_diffuse.algorithms.correction.combined import CombinedCorrection, Seen
from dials_diffuse.algorithms.correction.correct import (
    Sums,
    intensities,
    report_of_sums,
    responses,
    shell_intensities,
    sums_by_experiment,
    voxel_bins,
    warn_of_unknown,
)
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.parallel import parallel_map
from dials_diffuse.partitioned_table import (
    Part,
    PartitionedTable,
    finished_part,
    read_part,
    save_part,
    write_manifest,
)
from dials_diffuse.table_file import Columns
from dials_diffuse.work_folder import PARTS

logger = logging.getLogger("dials.diffuse.correction")

#: Folder of the first pass's partitions.
RESPONSES = "responses"


def correct_partitions(
    dataset: Dataset, params: libtbx.phil.scope_extract, work: Path
) -> tuple[PartitionedTable, dict]:
    """Correct a data set in partitions; the numbers are those of :func:`correct` and :func:`report`.

    Parameters
    ----------
    dataset : Dataset
        As extracted; not changed.
    params : libtbx.phil.scope_extract
        Of ``dials.diffuse_correct``.
    work : Path
        The work folder. Finished partitions in it are taken for those that this would make.

    Returns
    -------
    PartitionedTable
        In the work folder, with as many partitions as the data set, except those that nothing is left of. Memory of a
        process: some 400 bytes for each observation of a partition, and two background maps.
    dict
        The report.

    Raises
    ------
    Sorry
        As :func:`correct`, or if something cannot be written.
    """
    table, n = dataset.observations, len(dataset.experiments)
    numbers = range(len(table.parts))
    state = _save_state(dataset, params, work)
    corrector = Corrector(os.fspath(work), state)
    _load(state)  # shared with processes that are forked
    sums: Sums = {}
    seen, unknown = CombinedCorrection(params.correction), 0
    for of_part, seen_in_part, unknown_in_part in parallel_map(corrector.respond, numbers, params.mp, "Corrections"):
        for experiment, values in of_part.items():
            sums[experiment] = sums.get(experiment, 0) + values
        seen.add_seen(seen_in_part)
        unknown += unknown_in_part
    warn_of_unknown(unknown, table.rows)
    np.save(Path(state) / MEANS, shell_intensities(sums, params.variance.shells, n))
    parts = list(parallel_map(corrector.intensify, numbers, params.mp, "Intensities"))
    write_manifest(work / PARTS, parts, table.identifiers, table.attributes)
    return PartitionedTable(work / PARTS), report_of_sums(sums, n, seen.summary())


#: Files in the folder of what all processes need: mean intensities of shells, and everything else but backgrounds.
MEANS, STATE = "means.npy", "state.pickle"


@dataclass
class State:
    """What is needed for every partition.

    Attributes
    ----------
    table : PartitionedTable
    experiments : ExperimentList
    grid : GlobalGrid
    params : libtbx.phil.scope_extract
    backgrounds : list of int or None
        Which of the background maps is that of each experiment.
    """

    table: PartitionedTable
    experiments: ExperimentList
    grid: GlobalGrid
    params: libtbx.phil.scope_extract
    backgrounds: list[int] | None


def _save_state(dataset: Dataset, params: libtbx.phil.scope_extract, work: Path) -> str:
    """Save it in a folder of a new name: processes remember what they have loaded."""
    folder = work / f"state-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        (work / RESPONSES).mkdir(exist_ok=True)
        backgrounds: dict[int, int] = {}
        for i, (numbers, background) in enumerate(measured_backgrounds(dataset.experiments, params)):
            (folder / f"background-{i}.pickle").write_bytes(pickle.dumps(background))
            backgrounds |= dict.fromkeys(numbers, i)
        of_experiments = [backgrounds[i] for i in range(len(dataset.experiments))] if backgrounds else None
        experiments = _without_images(dataset.experiments)
        state = State(dataset.observations, experiments, dataset.grid, params, of_experiments)
        (folder / STATE).write_bytes(pickle.dumps(state))
    except OSError as error:
        raise Sorry(f"Cannot write to {work}: {error.strerror or error}. Make room or choose another place.") from error
    return os.fspath(folder)


def _without_images(experiments: ExperimentList) -> ExperimentList:
    """Experiments without their images, with which newer versions of DIALS pickle the pixel mask."""
    names = ("beam", "detector", "goniometer", "scan", "crystal", "identifier")
    return ExperimentList([Experiment(**{name: getattr(one, name) for name in names}) for one in experiments])


@lru_cache(maxsize=1)
def _load(state: str) -> State:
    return pickle.loads((Path(state) / STATE).read_bytes())


@lru_cache(maxsize=2)
def _load_background(state: str, number: int) -> BackgroundMap:
    return pickle.loads((Path(state) / f"background-{number}.pickle").read_bytes())


@dataclass(frozen=True)
class Corrector:
    """Corrects one partition; its methods are called in other processes, on other machines perhaps.

    Attributes
    ----------
    work : str
        The work folder.
    state : str
        Folder of the :class:`State`.
    """

    work: str
    state: str

    def respond(self, number: int) -> tuple[Sums, Seen, int]:
        """First pass: save response and background of a partition.

        Returns
        -------
        Sums
            Over its observations by experiment.
        Seen
            The corrections' factors.
        int
            Observations whose background is not known.
        """
        state, name = _load(self.state), _name(number)
        columns = state.table.read(number, ("id", "panel", "miller_index", "counts", "exposure", "xyzobs.px.value"))
        if finished := finished_part(Path(self.work) / RESPONSES, name):
            seen, added = finished[1], self._responses(number)
        else:
            corrections = CombinedCorrection(state.params.correction)
            added = responses(columns, state.experiments, corrections, self._background())
            seen = corrections.seen
            save_part(Path(self.work) / RESPONSES, name, added, seen)
        known = np.isfinite(added["background.sum.value"])
        columns = {column: values[known] for column, values in (columns | added).items()}
        sums = sums_by_experiment(columns, voxel_bins(state.grid, columns["miller_index"]))
        return sums, seen, int(np.count_nonzero(~known))

    def intensify(self, number: int) -> Part:
        """Second pass: save the corrected partition."""
        folder = Path(self.work) / PARTS
        if finished := finished_part(folder, _name(number)):
            return finished[0]
        state = _load(self.state)
        columns = state.table.read(number) | self._responses(number)
        known = np.isfinite(columns["background.sum.value"])
        columns = {column: values[known] for column, values in columns.items()}
        means = np.load(Path(self.state) / MEANS, mmap_mode="r")
        mean = means[columns["id"], voxel_bins(state.grid, columns["miller_index"])]
        return save_part(folder, _name(number), columns | intensities(columns, mean))

    def _responses(self, number: int) -> Columns:
        return read_part(Path(self.work) / RESPONSES / f"{_name(number)}.h5")

    def _background(self) -> Callable[[int], BackgroundMap] | None:
        backgrounds = _load(self.state).backgrounds
        if backgrounds is None:
            return None
        return lambda experiment: _load_background(self.state, backgrounds[experiment])


def _name(number: int) -> str:
    return f"{number:06d}"
