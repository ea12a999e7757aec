"""Images that the user leaves out, as in dials.scale.

DIALS notes the images that are left in the scans (``valid_image_ranges``, which the .expt file keeps) and flags the
reflections elsewhere ``user_excluded_in_scaling``. Here an observation is a sum over a batch of frames: all of a batch
that overlaps excluded images goes. (See dials/util/exclude_images.py, whose functions are used.)
"""

from __future__ import annotations

import logging

import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dials.util.exclude_images import exclude_image_ranges_from_scans
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.dataset import Dataset

logger = logging.getLogger("dials.diffuse.scaling")


def exclude_images(dataset: Dataset, commands: list[list[str]] | None) -> np.ndarray:
    """Flag the observations of excluded images, and note in the scans which images are left.

    Parameters
    ----------
    dataset : Dataset
        Gets a column ``flags`` if it has none. Images excluded before, in its scans, stay so.
    commands : list of list of str
        The values of ``exclude_images``: experiment:start:end, or start:end for a single experiment; several separated
        by commas or spaces.

    Returns
    -------
    ndarray, shape (rows,), bool
        Rows of the table that are excluded.

    Raises
    ------
    Sorry
        If a range is not as above, there is no such experiment, it is a still, or has no such images.
    """
    ranges = parse_ranges(commands, dataset.experiments)
    table = dataset.observations
    if "flags" not in table:
        table["flags"] = flex.size_t(len(table), 0)
    scans = [experiment.scan is not None for experiment in dataset.experiments]
    valid = [list(e.scan.get_valid_image_ranges(e.identifier)) if s else [] for e, s in zip(dataset.experiments, scans)]
    excluded = {i: _excluded(dataset, i, valid[i], ranges) for i, rotates in enumerate(scans) if rotates}
    if ranges:
        texts = [f"{i}:{first}:{last}" for i, first, last in ranges]
        if len(dataset.experiments) == 1:
            texts = [text.partition(":")[2] for text in texts]
        exclude_image_ranges_from_scans([table], dataset.experiments, [[text] for text in texts])
    rows = _rows(table, excluded)
    if rows.any():
        table.set_flags(flumpy.from_numpy(rows), table.flags.user_excluded_in_scaling)
        logger.info("Excluded images: %d of %d observations left out.", rows.sum(), len(rows))
    return rows


def parse_ranges(commands: list[list[str]] | None, experiments: ExperimentList) -> list[tuple[int, int, int]]:
    """Ranges as (experiment, first image, last image), from the values of ``exclude_images``.

    Raises
    ------
    Sorry
        As :func:`exclude_images`.
    """
    values = [value for command in commands or [] for value in command or []]
    return [_range(text, experiments) for value in values for text in value.replace(",", " ").split()]


def _range(text: str, experiments: ExperimentList) -> tuple[int, int, int]:
    try:
        numbers = [int(number) for number in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 2 and len(experiments) == 1:
        numbers = [0, *numbers]
    if len(numbers) != 3:
        wanted = "experiment:start:end" if len(experiments) > 1 else "start:end"
        raise Sorry(f"exclude_images={text}: give {wanted}, numbers of images, both included.")
    i, first, last = numbers
    if not 0 <= i < len(experiments):
        raise Sorry(f"exclude_images={text}: there is no experiment {i}; they are 0 to {len(experiments) - 1}.")
    if experiments[i].scan is None:
        raise Sorry(f"exclude_images={text}: experiment {i} is a still and has no range of images.")
    begin, end = experiments[i].scan.get_image_range()
    if first > last or last < begin or first > end:
        raise Sorry(f"exclude_images={text}: experiment {i} has the images {begin} to {end}.")
    return i, first, last


def _excluded(
    dataset: Dataset, i: int, valid: list[tuple[int, int]], ranges: list[tuple[int, int, int]]
) -> tuple[int, np.ndarray]:
    """First image of an experiment, and which of its images are excluded, bool."""
    begin, end = dataset.experiments[i].scan.get_image_range()
    image = np.arange(begin, end + 1)
    excluded = np.full(len(image), bool(valid))
    for first, last in valid:
        excluded[(image >= first) & (image <= last)] = False
    for number, first, last in ranges:
        if number == i:
            excluded[(image >= first) & (image <= last)] = True
    return begin, excluded


def _rows(table: flex.reflection_table, excluded: dict[int, tuple[int, np.ndarray]]) -> np.ndarray:
    """Rows whose batch overlaps excluded images.

    A batch reaches from the first to the last of the frames that the mean frames of its observations fall in: for each
    of its frames there are voxels that no other frame of it sees. Without batches it is the observation's own frame.
    """
    rows = np.zeros(len(table), dtype=bool)
    ids = flumpy.to_numpy(table["id"])
    image = np.floor(flumpy.to_numpy(table["xyzobs.px.value"])[:, 2]).astype(np.int64) + 1
    batch = flumpy.to_numpy(table["batch"]) if "batch" in table else None
    for i, (begin, bad) in excluded.items():
        if not bad.any():
            continue
        here = np.flatnonzero(ids == i)
        within = np.clip(image[here] - begin, 0, len(bad) - 1)
        if batch is None:
            rows[here] = bad[within]
            continue
        first = np.full(batch[here].max(initial=-1) + 1, len(bad))
        last = np.zeros_like(first)
        np.minimum.at(first, batch[here], within)
        np.maximum.at(last, batch[here], within)
        before = np.concatenate([[0], np.cumsum(bad)])
        overlaps = before[last + 1] > before[np.minimum(first, last)]
        rows[here] = overlaps[batch[here]]
    return rows
