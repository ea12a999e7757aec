"""Images that the user leaves out, as in dials.scale.

DIALS notes the images that are left in the scans (``valid_image_ranges``, which the .expt file keeps) and flags the
reflections elsewhere ``user_excluded_in_scaling``. Here an observation is a sum over a batch of frames: all of a batch
that overlaps excluded images goes. (See dials/util/exclude_images.py, whose functions are used.)
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dials.util.exclude_images import exclude_image_ranges_from_scans
from dxtbx import flumpy
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.dataset import Dataset

logger = logging.getLogger("dials.diffuse.scaling")

#: Columns by which rows are told to belong to excluded images; there may be no ``batch``.
COLUMNS = ("id", "xyzobs.px.value", "batch")


def exclude_images(dataset: Dataset, commands: list[list[str]] | None) -> np.ndarray:
    """Flag the observations of excluded images, and note in the scans which images are left.

    Parameters
    ----------
    dataset : Dataset
        In memory. Gets a column ``flags`` if it has none. Images excluded before, in its scans, stay so.
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
    excluded = excluded_images(dataset.experiments, commands)
    table = dataset.observations
    if "flags" not in table:
        table["flags"] = flex.size_t(len(table), 0)
    columns = {name: flumpy.to_numpy(table[name]) for name in COLUMNS if name in table}
    rows = BatchExtents.of(columns).rows(columns, excluded)
    if rows.any():
        table.set_flags(flumpy.from_numpy(rows), table.flags.user_excluded_in_scaling)
    log_excluded(np.count_nonzero(rows), len(rows))
    return rows


def log_excluded(excluded: int, observations: int) -> None:
    """Say how many observations are left out."""
    if excluded:
        logger.info("Excluded images: %d of %d observations left out.", excluded, observations)


#: Which images are excluded, by experiment: the number of its first image, and bool, shape (images,).
ExcludedImages = dict[int, tuple[int, np.ndarray]]


def excluded_images(experiments: ExperimentList, commands: list[list[str]] | None) -> ExcludedImages:
    """Images that are excluded by the commands, or have been before; the scans take note.

    Raises
    ------
    Sorry
        As :func:`exclude_images`.
    """
    ranges = parse_ranges(commands, experiments)
    rotating = [i for i, experiment in enumerate(experiments) if experiment.scan is not None]
    excluded = {i: _excluded(experiments[i], i, ranges) for i in rotating}
    if ranges:
        texts = [f"{i}:{first}:{last}" for i, first, last in ranges]
        if len(experiments) == 1:
            texts = [text.partition(":")[2] for text in texts]
        of_all = flex.reflection_table()
        for i, identifier in enumerate(experiments.identifiers()):
            of_all.experiment_identifiers()[i] = identifier
        exclude_image_ranges_from_scans([of_all], experiments, [[text] for text in texts])
    return excluded


@dataclass
class BatchExtents:
    """First and last image of the batches of experiments: those that the mean frames of their observations fall in.

    For each frame of a batch there are voxels that no other frame of it sees, so that it is known in full.

    Attributes
    ----------
    images : dict of int to ndarray, shape (2, batches), int
        By experiment; of a batch without observations the first is after the last. Empty if there are no batches.
    """

    images: dict[int, np.ndarray]

    @classmethod
    def of(cls, columns: dict[str, np.ndarray]) -> BatchExtents:
        """Of observations: their :data:`COLUMNS`."""
        if "batch" not in columns:
            return cls({})
        ids, batch, image = columns["id"], columns["batch"], _images(columns)
        images = {}
        for i in np.unique(ids):
            here = np.flatnonzero(ids == i)
            first, last = np.full((2, batch[here].max() + 1), [[NEVER], [-NEVER]])
            np.minimum.at(first, batch[here], image[here])
            np.maximum.at(last, batch[here], image[here])
            images[int(i)] = np.stack([first, last])
        return cls(images)

    def __add__(self, other: BatchExtents) -> BatchExtents:
        """Of the observations of both."""
        images = dict(self.images)
        for i, (first, last) in other.images.items():
            size = max(len(first), images[i].shape[1] if i in images else 0)
            both = np.full((2, 2, size), [[[NEVER], [-NEVER]]])
            for extents, own in zip(both, (images.get(i, np.empty((2, 0), dtype=int)), (first, last))):
                extents[:, : len(own[0])] = own
            images[i] = np.stack([both[:, 0].min(axis=0), both[:, 1].max(axis=0)])
        return BatchExtents(images)

    def rows(self, columns: dict[str, np.ndarray], excluded: ExcludedImages) -> np.ndarray:
        """Rows whose batch, or without batches whose own image, is excluded, shape (rows,), bool."""
        rows = np.zeros(len(columns["id"]), dtype=bool)
        for i, (begin, bad) in excluded.items():
            if not bad.any():
                continue
            here = np.flatnonzero(columns["id"] == i)
            if "batch" not in columns:
                rows[here] = bad[np.clip(_images(columns)[here] - begin, 0, len(bad) - 1)]
                continue
            first, last = np.clip(self.images.get(i, np.empty((2, 0), dtype=int)) - begin, 0, len(bad) - 1)
            before = np.concatenate([[0], np.cumsum(bad)])
            overlaps = before[last + 1] > before[np.minimum(first, last)]
            rows[here] = overlaps[columns["batch"][here]]
        return rows

    def to_json(self) -> dict[str, list]:
        return {str(i): images.tolist() for i, images in self.images.items()}

    @classmethod
    def from_json(cls, values: dict[str, list]) -> BatchExtents:
        return cls({int(i): np.array(images) for i, images in values.items()})


#: Beyond all images.
NEVER = 1 << 40


def _images(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Number of the image that each mean frame falls in."""
    return np.floor(columns["xyzobs.px.value"][:, 2]).astype(np.int64) + 1


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


def _excluded(experiment: Experiment, i: int, ranges: list[tuple[int, int, int]]) -> tuple[int, np.ndarray]:
    """First image of an experiment, and which of its images are excluded, bool."""
    begin, end = experiment.scan.get_image_range()
    valid = list(experiment.scan.get_valid_image_ranges(experiment.identifier))
    image = np.arange(begin, end + 1)
    excluded = np.full(len(image), bool(valid))
    for first, last in valid:
        excluded[(image >= first) & (image <= last)] = False
    for number, first, last in ranges:
        if number == i:
            excluded[(image >= first) & (image <= last)] = True
    return begin, excluded
