"""All masks of all experiments."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.format.image import ImageBool
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.masking.bragg import BraggMask, bragg_mask
from dials_diffuse.algorithms.masking.mask_file import PixelMask, as_flex, read_mask, write_mask
from dials_diffuse.algorithms.masking.pixel_mask import pixel_mask
from dials_diffuse.geometry import IndexMapping, detector_rays
from dials_diffuse.images import sweep_name
from dials_diffuse.output import whole_files

logger = logging.getLogger("dials.diffuse.masking")


@dataclass
class ExperimentMasks:
    """What is masked in one experiment: pixels for all frames (True where good), and Bragg peaks."""

    experiment: Experiment
    pixels: PixelMask
    bragg: BraggMask


def make_masks(
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    params: libtbx.phil.scope_extract,
    pixel_mask_files: list[str] | None = None,
) -> list[ExperimentMasks]:
    """Make the masks of all experiments; experiments that share their images share the pixel mask.

    Parameters
    ----------
    experiments : ExperimentList
    reflections : flex.reflection_table or None
        Of all experiments, told apart by ``id``.
    params : libtbx.phil.scope_extract
        With the scopes ``mask``, ``bragg_mask`` and ``nproc``.
    pixel_mask_files : list of str, optional
        Masks to take instead of making them: one for all imagesets, or one each.
    """
    imagesets = experiments.imagesets()
    if pixel_mask_files and len(pixel_mask_files) not in (1, len(imagesets)):
        raise Sorry(f"{len(pixel_mask_files)} pixel masks for {len(imagesets)} sweeps: give one for all, or one each.")
    pixels: list[PixelMask | None] = [None] * len(imagesets)
    masks = []
    for number, experiment in enumerate(experiments):
        if len(experiments) > 1:
            logger.info("\nExperiment %d", number)
        if experiment.crystal is None and params.bragg_mask.mode == "ellipsoid":
            raise Sorry(
                f"{sweep_name(experiment)} has no crystal: index it first (dials.index), or set bragg_mask.mode=none."
            )
        own = reflections.select(reflections["id"] == number) if reflections is not None else None
        d_min = experiment.detector.get_max_resolution(experiment.beam.get_s0())
        bragg = bragg_mask(experiment, own, d_min, params.bragg_mask)
        which = imagesets.index(experiment.imageset)
        if pixels[which] is None:
            if pixel_mask_files:
                pixels[which] = read_mask(pixel_mask_files[which % len(pixel_mask_files)], experiment.detector)
            else:
                pixels[which] = pixel_mask(experiment, bragg.ellipsoids, params.mask, params.nproc)
        masks.append(ExperimentMasks(experiment, pixels[which], bragg))
    return masks


def bragg_frame_mask(masks: ExperimentMasks, image: int) -> PixelMask:
    """The pixel mask and the Bragg mask of one image together, with the image's number as in the scan.

    Raises
    ------
    Sorry
        If the scan has no such image.
    """
    experiment = masks.experiment
    first, last = experiment.scan.get_image_range() if experiment.scan else (1, 1)
    if not first <= image <= last:
        raise Sorry(f"There is no image {image}: the scan has images {first} to {last}.")
    index = image - first
    ellipsoids = masks.bragg.ellipsoids
    good = [mask.copy() for mask in masks.pixels]
    if ellipsoids.largest > 0:
        ray_to_hkl = IndexMapping(experiment).ray_to_hkl(image - 0.5)
        for combined, rays in zip(good, detector_rays(experiment.detector)):
            combined &= ellipsoids.frame_mask(rays, ray_to_hkl)
    for number, combined in enumerate(good):
        if masks.bragg.static is not None:
            combined &= masks.bragg.static[number]
        for box_panel, x0, x1, y0, y1 in masks.bragg.frame_boxes(index):
            if box_panel == number:
                combined[y0:y1, x0:x1] = False
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
    names = {id(mask): name for name, mask in named.items()}
    for mask in masks:
        lookup = mask.experiment.imageset.external_lookup.mask
        lookup.data = ImageBool(as_flex(mask.pixels))
        lookup.filename = os.path.abspath(names[id(mask.pixels)])
    return named
