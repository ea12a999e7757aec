"""Extraction: all frames of all experiments, in partitions, side by side."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.extraction.pixel_rows import pixel_rows
from dials_diffuse.algorithms.extraction.sweep import Sweep
from dials_diffuse.algorithms.extraction.sweep_files import load_sweep, save_sweeps
from dials_diffuse.algorithms.extraction.tasks import Batch, pieces_of_work
from dials_diffuse.algorithms.extraction.voxel_sums import voxel_sums
from dials_diffuse.algorithms.masking.mask_file import write_mask
from dials_diffuse.algorithms.masking.masks import ExperimentMasks, attach_masks, make_masks
from dials_diffuse.dataset import Dataset, possible_name, whole_observations, write_experiments
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.images import exposure_times, sweep_name
from dials_diffuse.parallel import parallel_map
from dials_diffuse.partitioned_table import (
    Part,
    PartitionedTable,
    finished_part,
    save_part,
    write_manifest,
)
from dials_diffuse.provenance import ProcessRecord
from dials_diffuse.rays import detector_rays
from dials_diffuse.stills import is_still, with_own_images
from dials_diffuse.work_folder import PARTS, folder_for, temporary_folder

logger = logging.getLogger("dials.diffuse.extract")


def extract(
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    params: libtbx.phil.scope_extract,
    record: ProcessRecord | None = None,
) -> Dataset:
    """Extract observations into memory.

    Parameters
    ----------
    experiments : ExperimentList
        With crystals and with images that can be read.
    reflections : flex.reflection_table or None
        Their Bragg reflections, for the Bragg masks (``id`` counts the experiments).
    params : libtbx.phil.scope_extract
        Of ``dials.diffuse_extract``.
    record : ProcessRecord, optional
        What to write into the history.

    Raises
    ------
    Sorry
        If the input does not allow it.
    """
    shared = "." if params.mp.method == "dask" else tempfile.gettempdir()
    with temporary_folder(shared) as work:
        table, grid, _, experiments = _extract_to(work, experiments, reflections, params)
        return Dataset(experiments, table.whole_table(), grid, [record] if record else [])


def extract_to_files(
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    params: libtbx.phil.scope_extract,
    record: ProcessRecord,
    expt: str,
    refl: str,
    mask: str,
) -> list[str]:
    """As :func:`extract`, but into files, in memory that does not grow with the number of frames.

    Where ``refl`` ends with ``.parts`` an extraction that was interrupted goes on from its finished partitions.

    Parameters
    ----------
    expt, refl, mask : str
        The files. The pixel mask is named in the .expt file, so that later steps use it too.

    Returns
    -------
    list of str
        The files written: several sweeps have a mask each; partitions in place of a .refl file that would be too large.
    """
    with folder_for(refl, record) as work:
        table, grid, masks, experiments = _extract_to(work, experiments, reflections, params)
        named = attach_masks(masks, mask)
        refl = possible_name(refl, table.rows)
        with whole_observations(table, refl, expt, *named) as (expt_part, *mask_parts):
            write_experiments(experiments, grid, [record], expt_part)
            for pixels, part in zip(named.values(), mask_parts):
                write_mask(pixels, part)
    return [expt, refl, *named]


def _extract_to(
    work: Path,
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    params: libtbx.phil.scope_extract,
) -> tuple[PartitionedTable, GlobalGrid, list[ExperimentMasks], ExperimentList]:
    """Extract into partitions in a work folder.

    The experiments are those that are extracted, and the masks are theirs, in order.
    """
    experiments = with_own_images(experiments)
    check_experiments(experiments)
    chosen = chosen_experiments(experiments, params.extract.experiments)
    grid = GlobalGrid.from_experiments(ExperimentList([experiments[number] for number in chosen]), params)
    grid.check_size()
    logger.info("Grid: %s", grid)
    masks = make_masks(experiments, reflections, params, params.pixel_mask)
    masks = [masks[number] for number in chosen]
    experiments = ExperimentList([mask.experiment for mask in masks])
    warn_of_smearing(experiments, grid)
    pieces = pieces_of_work(dict(enumerate(experiments)), grid, params.extract.batch_width)
    maker = PartMaker(os.fspath(work), params.extract.mode, grid, masks)
    if params.mp.method == "dask":
        maker = replace(maker, masks=None, sweeps=save_sweeps(masks, grid, work))
    began = time.perf_counter()
    parts, pixels = [], 0
    for run in experiments_by_detector(experiments):
        of_run = [piece for piece in pieces if run[0] <= piece[0].experiment <= run[-1]]
        if maker.masks:
            detector_rays(experiments[run[0]].detector)  # before the processes part, who share them
        for part, read in parallel_map(maker, of_run, params.mp, "Extracting"):
            parts.append(part)
            pixels += read
    seconds = time.perf_counter() - began
    write_manifest(work / PARTS, parts, {i: e.identifier for i, e in enumerate(experiments)}, {"order": "frame"})
    table = PartitionedTable(work / PARTS)
    logger.info(
        "%d observations from %.4g pixels in %.1f s (%.0f million pixels a second)",
        table.rows,
        pixels,
        seconds,
        pixels / seconds / 1e6,
    )
    if not table.rows:
        raise Sorry("No pixel fell into the grid: check the masks, the trusted range and d_min.")
    return table, grid, masks, experiments


@dataclass(frozen=True, eq=False)
class PartMaker:
    """Makes one partition of observations; called in another process, on another machine perhaps.

    Attributes
    ----------
    work : str
        The work folder.
    mode : str
        ``extract.mode``.
    grid : GlobalGrid
    masks : list of ExperimentMasks or None
        Of all experiments, where processes share this one's memory.
    sweeps : str
        Where they do not: the folder of :func:`save_sweeps`.
    """

    work: str
    mode: str
    grid: GlobalGrid
    masks: list[ExperimentMasks] | None
    sweeps: str = ""

    def __call__(self, piece: list[Batch]) -> tuple[Part, int]:
        """The partition, and how many pixels were read for it: none if an earlier run has made it."""
        folder, name = Path(self.work) / PARTS, "{:05d}-{:05d}".format(*piece[0])
        if finished := finished_part(folder, name):
            return finished[0], 0
        rows_of = {"voxel": voxel_sums, "pixel": pixel_rows}[self.mode]
        made, pixels = [], 0
        for number, batch, start, stop in piece:
            try:
                columns, read = rows_of(self._sweep(number), batch, start, stop)
            except Sorry as error:
                if self.masks is None:
                    raise Sorry(f"{error} (On {socket.gethostname()}.)") from error
                raise
            made.append(columns)
            pixels += read
        joined = {column: np.concatenate([columns[column] for columns in made]) for column in made[0]}
        return save_part(folder, name, joined), pixels

    def _sweep(self, number: int) -> Sweep:
        if self.masks is None:
            return load_sweep(self.sweeps, number)
        return _shared_sweep(self, number)


@lru_cache(maxsize=1)
def _shared_sweep(maker: PartMaker, number: int) -> Sweep:
    masks = maker.masks[number]
    return Sweep(number, masks, detector_rays(masks.experiment.detector), maker.grid)


def experiments_by_detector(experiments: ExperimentList) -> list[list[int]]:
    """Numbers of experiments, in runs of consecutive ones with the same detector, or of stills.

    Stills whose detector has been refined one by one are one run all the same: there is one frame to each detector.
    """
    runs: list[list[int]] = []
    for number, experiment in enumerate(experiments):
        last = experiments[runs[-1][-1]] if runs else None
        stills = last is not None and is_still(last) and is_still(experiment)
        if stills or (last is not None and experiment.detector == last.detector):
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def chosen_experiments(experiments: ExperimentList, numbers: list[int] | None) -> list[int]:
    """Numbers of the experiments to extract: those asked for, or all.

    Raises
    ------
    Sorry
        If there is none of a number.
    """
    numbers = list(range(len(experiments))) if numbers is None else sorted(set(numbers))
    if numbers[-1] >= len(experiments):
        raise Sorry(f"extract.experiments={numbers[-1]}: there are {len(experiments)}, which are counted from 0.")
    return numbers


def check_experiments(experiments: ExperimentList) -> None:
    """See that every experiment can be extracted.

    Raises
    ------
    Sorry
        If a crystal or the images are missing.
    """
    for experiment in experiments:
        which = sweep_name(experiment)
        if experiment.crystal is None:
            raise Sorry(f"{which} has no crystal: index it first (dials.index) and refine it (dials.refine).")
        if experiment.imageset is None:
            raise Sorry(f"{which} has no images: give an .expt file that names them.")
        if experiment.scan is None and experiment.goniometer is not None and len(experiment.imageset) > 1:
            raise Sorry(
                f"{which} has several images but no scan, so that their rotation is unknown: import them as a sweep "
                "(dials.import, with geometry.scan.* where the headers do not tell)."
            )
        missing = [path for path in experiment.imageset.paths() if not Path(path).exists()]
        if missing:
            raise Sorry(
                f"Image {missing[0]} is missing"
                + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
                + ": put it back, or import the images from where they are now."
            )
    if any(exposure_times(experiment) is None for experiment in experiments):
        logger.warning("The images do not tell their exposure times: 1 s is taken for every frame.")


def warn_of_smearing(experiments: ExperimentList, grid: GlobalGrid) -> None:
    """Warn where a frame rotates further than a voxel at the edge of the grid."""
    voxel = min(1 / edge for edge in grid.supercell.parameters()[:3])
    for number, experiment in enumerate(experiments):
        if is_still(experiment):
            continue
        travel = np.radians(abs(experiment.scan.get_oscillation()[1])) / grid.d_min
        if travel > 1.5 * voxel:
            logger.warning(
                "Experiment %d: at %.2f A a frame rotates through %.1f voxels, so that the map is smeared there; a "
                "smaller grid.ndiv or larger d_min is more honest.",
                number,
                grid.d_min,
                travel / voxel,
            )
