"""Extraction: all frames of all experiments, in batches, side by side."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.extraction.pixel_rows import pixel_rows
from dials_diffuse.algorithms.extraction.sweep import Sweep
from dials_diffuse.algorithms.extraction.voxel_sums import voxel_sums
from dials_diffuse.algorithms.masking.mask_file import write_mask
from dials_diffuse.algorithms.masking.masks import ExperimentMasks, attach_masks, make_masks
from dials_diffuse.dataset import Dataset, write_experiments
from dials_diffuse.geometry import detector_rays
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.images import exposure_times, sweep_name
from dials_diffuse.output import whole_files
from dials_diffuse.parallel import parallel_map
from dials_diffuse.provenance import ProcessRecord
from dials_diffuse.stills import is_still, with_own_images
from dials_diffuse.table_file import TableParts

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
    with _extracted(experiments, reflections, params, Path(tempfile.gettempdir())) as (parts, grid, _, experiments):
        table = parts.table(_identifiers(experiments))
    return Dataset(experiments, table, grid, [record] if record else [])


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

    Parameters
    ----------
    expt, refl, mask : str
        The files. The pixel mask is named in the .expt file, so that later steps use it too.

    Returns
    -------
    list of str
        The files written: several sweeps have a mask each.
    """
    with _extracted(experiments, reflections, params, Path(refl).resolve().parent) as (parts, grid, masks, experiments):
        named = attach_masks(masks, mask)
        with whole_files(expt, refl, *named) as (expt_part, refl_part, *mask_parts):
            parts.write(refl_part, _identifiers(experiments))
            write_experiments(experiments, grid, [record], expt_part)
            for pixels, part in zip(named.values(), mask_parts):
                write_mask(pixels, part)
    return [expt, refl, *named]


@contextmanager
def _extracted(
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    params: libtbx.phil.scope_extract,
    folder: Path,
) -> Iterator[tuple[TableParts, GlobalGrid, list[ExperimentMasks], ExperimentList]]:
    """Extract into parts in a temporary folder, which is gone afterwards whatever happens.

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
    with _temporary_folder(folder) as temporary:
        parts = TableParts(temporary)
        began = time.perf_counter()
        pixels = 0
        for run in experiments_by_detector(experiments):
            pixels += _extract_run(run, masks, grid, params, parts)
        seconds = time.perf_counter() - began
        logger.info(
            "%d observations from %.4g pixels in %.1f s (%.0f million pixels a second)",
            parts.rows,
            pixels,
            seconds,
            pixels / seconds / 1e6,
        )
        if not parts.rows:
            raise Sorry("No pixel fell into the grid: check the masks, the trusted range and d_min.")
        yield parts, grid, masks, experiments


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".diffuse_extract.", dir=folder))
    except OSError as error:
        raise Sorry(f"Cannot write to {folder}: {error.strerror}. Make room or choose another place.") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract_run(
    numbers: list[int],
    masks: list[ExperimentMasks],
    grid: GlobalGrid,
    params: libtbx.phil.scope_extract,
    parts: TableParts,
) -> int:
    """Extract experiments that share a detector, or stills; the number of pixels read."""
    detector_rays(masks[numbers[0]].experiment.detector, params.mp)  # before the processes part, who share them
    rows_of = {"voxel": voxel_sums, "pixel": pixel_rows}[params.extract.mode]

    @lru_cache(maxsize=1)
    def sweep(number: int) -> Sweep:
        return Sweep(number, masks[number], detector_rays(masks[number].experiment.detector), grid)

    def work(task: tuple[int, int, int, int]) -> tuple[str, int, int]:
        number, batch, start, stop = task
        columns, pixels = rows_of(sweep(number), batch, start, stop)
        return (*parts.save(f"{number}-{batch}", columns), pixels)

    tasks = [
        (number, batch, start, stop)
        for number in numbers
        for batch, (start, stop) in enumerate(batches(masks[number].experiment, params.extract.batch_width))
    ]
    pixels = 0
    for name, rows, read in parallel_map(work, tasks, params.mp, "Extracting"):
        parts.add(name, rows)
        pixels += read
    return pixels


def batches(experiment, width: float) -> list[tuple[int, int]]:
    """Divide the frames of an experiment into batches of at most about ``width`` degrees, as even as can be.

    Returns
    -------
    list of (int, int)
        First frame and last frame + 1 of each batch, frames counted from 0.
    """
    frames = len(experiment.imageset)
    if is_still(experiment):
        return [(i, i + 1) for i in range(frames)]
    size = max(1, int(width / abs(experiment.scan.get_oscillation()[1]) + 0.5))
    edges = np.linspace(0, frames, -(-frames // size) + 1).round().astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist()))


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


def _identifiers(experiments: ExperimentList) -> dict[int, str]:
    return {number: experiment.identifier for number, experiment in enumerate(experiments)}
