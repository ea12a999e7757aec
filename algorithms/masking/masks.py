"""All masks of all experiments."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.format.image import ImageBool
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.masking.bragg import BraggMask
from dials_diffuse.algorithms.masking.mask_file import PixelMask, as_flex, read_mask, write_mask
from dials_diffuse.algorithms.masking.pixel_mask import pixel_mask
from dials_diffuse.algorithms.masking.sample import ShownFrame
from dials_diffuse.algorithms.masking.shared_images import image_names, judged_together, other_experiments
from dials_diffuse.algorithms.masking.strategies import bragg_masks
from dials_diffuse.log_levels import DETAILED, experiments_name, level_of
from dials_diffuse.output import whole_files
from dials_diffuse.stills import is_still, with_own_images

logger = logging.getLogger("dials.diffuse.masking")


@dataclass
class ExperimentMasks:
    """What is masked in one experiment.

    Attributes
    ----------
    experiment : Experiment
    pixels : PixelMask
        Bad pixels, for all frames; True where good.
    bragg : BraggMask
        Its own Bragg peaks.
    others : dict of int to list of (BraggMask, int)
        By frames, counted from 0: the peaks of other lattices in the same image, with its number in their experiments.
    """

    experiment: Experiment
    pixels: PixelMask
    bragg: BraggMask
    others: dict[int, list[tuple[BraggMask, int]]] = field(default_factory=dict)

    def peaks(self, index: int) -> list[tuple[BraggMask, int]]:
        """The Bragg peaks of all lattices on a frame, which is counted from 0."""
        return [(self.bragg, index), *self.others.get(index, ())]


def make_masks(
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    params: libtbx.phil.scope_extract,
    pixel_mask_files: list[str] | None = None,
) -> list[ExperimentMasks]:
    """Make the masks of all experiments.

    Experiments that show the same images share the pixel mask and each other's Bragg peaks, stills of one kind the
    pixel mask.

    Parameters
    ----------
    experiments : ExperimentList
        With images that can be read.
    reflections : flex.reflection_table or None
        Of all experiments, told apart by ``id``.
    params : libtbx.phil.scope_extract
        With the scopes ``mask``, ``bragg_mask`` and ``mp``.
    pixel_mask_files : list of str, optional
        Masks to take instead of making them: one for all, or one for each sweep (for all stills of one kind).

    Raises
    ------
    Sorry
        If there are no images, a strategy lacks something, no pixel is left, or a file does not fit.
    """
    if any(experiment.imageset is None for experiment in experiments):
        raise Sorry("An experiment has no images: give an .expt file whose images can be read.")
    experiments = with_own_images(experiments)
    groups = judged_together(experiments)
    if pixel_mask_files and len(pixel_mask_files) not in (1, len(groups)):
        raise Sorry(f"{len(pixel_mask_files)} pixel masks for {len(groups)} sweeps: give one for all, or one each.")
    braggs = bragg_masks(experiments, reflections, params.bragg_mask)
    masks = [
        ExperimentMasks(
            experiment,
            (),
            bragg,
            {index: [(braggs[other], frame) for other, frame in shown] for index, shown in others.items()},
        )
        for experiment, bragg, others in zip(experiments, braggs, other_experiments(experiments))
    ]
    for number, group in enumerate(groups):
        if pixel_mask_files:
            pixels = read_mask(pixel_mask_files[number % len(pixel_mask_files)], experiments[group[0]].detector)
        else:
            if len(groups) > 1:
                logger.log(level_of(number), "\nPixels of %s", experiments_name(group))
            pixels = pixel_mask(_frames([masks[i] for i in group]), params.mask, level_of(number))
        for i in group:
            masks[i].pixels = pixels
    if len(groups) > DETAILED:
        logger.info("\n... and so on for %d more", len(groups) - DETAILED)
    return masks


def _frames(masks: list[ExperimentMasks]) -> list[ShownFrame]:
    """The frames of experiments whose pixels are judged together, each once."""
    frames = {
        name: ShownFrame(mask.experiment, index, mask.peaks(index))
        for mask in masks
        for index, name in enumerate(image_names(mask.experiment.imageset))
    }
    return list(frames.values())


def bragg_frame_masks(masks: list[ExperimentMasks], image: int) -> list[PixelMask]:
    """The pixel mask and the Bragg masks of one image of every sweep together, with its number as in the scan.

    Stills have no such number: the image of the experiment of that number, counted from 1, if there are stills only.

    Raises
    ------
    Sorry
        If there is no such image.
    """
    if all(is_still(mask.experiment) for mask in masks):
        if not 1 <= image <= len(masks):
            raise Sorry(f"There is no image {image}: there are {len(masks)} stills.")
        return [_bragg_frame_mask(masks[image - 1], 0, image)]
    frames = []
    for mask in masks:
        first, last = mask.experiment.scan.get_image_range() if mask.experiment.scan else (1, 1)
        if not first <= image <= last:
            raise Sorry(f"There is no image {image}: the scan has images {first} to {last}.")
        frames.append(_bragg_frame_mask(mask, image - first, image))
    return frames


def _bragg_frame_mask(masks: ExperimentMasks, index: int, image: int) -> PixelMask:
    good = [mask.copy() for mask in masks.pixels]
    for bragg, frame in masks.peaks(index):
        bragg.mask_frame(frame, good, [False] * len(good))
    left, before = (sum(int(np.count_nonzero(m)) for m in masks_) for masks_ in (good, masks.pixels))
    logger.info("Image %d: the Bragg mask takes %.2f %% of the good pixels", image, 100 * (1 - left / before))
    return tuple(good)


def write_masks(named: dict[str, PixelMask]) -> None:
    """Write masks to the files of their names, all or none."""
    with whole_files(*named) as parts:
        for mask, part in zip(named.values(), parts):
            write_mask(mask, part)


def name_masks(masks: list[PixelMask], filename: str | os.PathLike) -> dict[str, PixelMask]:
    """The different ones among masks by the files they go to, numbered if there is more than one."""
    different = list({id(mask): mask for mask in masks}.values())
    path = Path(filename)
    if len(different) == 1:
        return {str(path): different[0]}
    return {str(path.with_name(f"{path.stem}_{i}{path.suffix}")): mask for i, mask in enumerate(different, 1)}


def attach_masks(masks: list[ExperimentMasks], filename: str | os.PathLike) -> dict[str, PixelMask]:
    """Let the experiments name their pixel masks, as dials.apply_mask does, for the steps that follow.

    Parameters
    ----------
    masks : list of ExperimentMasks
        Their imagesets are changed.
    filename : path
        Of the mask; several are numbered.

    Returns
    -------
    dict of str to PixelMask
        The files, still to be written.
    """
    named = name_masks([mask.pixels for mask in masks], filename)
    images = {id(mask): (os.path.abspath(name), ImageBool(as_flex(mask))) for name, mask in named.items()}
    for mask in masks:
        lookup = mask.experiment.imageset.external_lookup.mask
        lookup.filename, lookup.data = images[id(mask.pixels)]
    return named
