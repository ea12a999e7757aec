"""Which experiments show the same images, and which have their pixels in common."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dxtbx.imageset import ImageSet
from dxtbx.model import Experiment

from dials_diffuse.stills import is_still


def image_names(imageset: ImageSet) -> list[tuple[str, int]]:
    """Names of the images: file, links resolved, and number in it; the same in whatever imageset an image is."""
    if not imageset.get_path(0):  # in memory
        return [(f"imageset {id(imageset)}", index) for index in range(len(imageset))]
    in_one_file = imageset.data().has_single_file_reader()
    paths = imageset.paths()
    real = {path: os.path.realpath(path) for path in dict.fromkeys(paths)}
    return [(real[path], int(number) if in_one_file else 0) for path, number in zip(paths, imageset.indices())]


def other_experiments(experiments: Sequence[Experiment]) -> list[dict[int, list[tuple[int, int]]]]:
    """Which other experiments (lattices, mostly) each frame shows.

    Returns
    -------
    list of dict of int to list of (int, int)
        For each experiment, by its frames, counted from 0: the others and their frames. Frames that no other experiment
        shows are left out.
    """
    seen: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for number, experiment in enumerate(experiments):
        if experiment.imageset is not None:
            for index, name in enumerate(image_names(experiment.imageset)):
                seen.setdefault(name, []).append((number, index))
    others: list[dict[int, list[tuple[int, int]]]] = [{} for _ in experiments]
    for shown in seen.values():
        for number, index in shown:
            if elsewhere := [other for other in shown if other[0] != number]:
                others[number][index] = elsewhere
    return others


def kind_of_still(experiment: Experiment) -> tuple | None:
    """What stills that one detector took have in common; None for a sweep.

    Their geometry may have been refined one by one, so that their detector models need not be equal.
    """
    imageset = experiment.imageset
    if (imageset is not None and len(imageset) != 1) or not is_still(experiment):
        return None
    panels = tuple((panel.get_name(), panel.get_image_size(), panel.get_pixel_size()) for panel in experiment.detector)
    return panels, "" if imageset is None else imageset.external_lookup.mask.filename


def judged_together(experiments: Sequence[Experiment]) -> list[list[int]]:
    """Experiments, by numbers, whose pixels are judged together: lattices of one sweep, stills of one kind."""
    groups: dict[tuple, list[int]] = {}
    for number, experiment in enumerate(experiments):
        kind = kind_of_still(experiment)
        if kind is None:
            mask = experiment.imageset.external_lookup.mask.filename
            kind = (*image_names(experiment.imageset), mask)
        groups.setdefault(kind, []).append(number)
    return list(groups.values())
