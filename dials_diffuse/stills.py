"""Stills among experiments, and which of the images that experiments have in common are whose."""

from __future__ import annotations

from dxtbx.imageset import ImageSet, ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList


def is_still(experiment: Experiment) -> bool:
    """Whether the crystal did not rotate: no scan, or one of zero width."""
    return experiment.scan is None or experiment.scan.is_still()


def own_images(experiment: Experiment) -> ImageSet | None:
    """The images of an experiment alone, where its image set holds those of others, too.

    dials.import makes one sequence of images whose headers call the rotation 0, in which each image is an experiment
    with a scan of one image; dials.ssx_index leaves it so.
    """
    imageset, scan = experiment.imageset, experiment.scan
    if imageset is None or scan is None or scan.get_num_images() == len(imageset):
        return imageset
    first = scan.get_array_range()[0] - imageset.get_array_range()[0]
    if is_still(experiment):
        imageset = ImageSetFactory.imageset_from_anyset(imageset)
    return imageset[first : first + scan.get_num_images()]


def with_own_images(experiments: ExperimentList) -> ExperimentList:
    """Experiments that each have an image set of their own images.

    Those that need none are the same objects; the others are new. Stills among the new ones are without scan and
    goniometer, as dials.stills_process writes them: the setting matrix of a still holds in the laboratory.
    """
    result = ExperimentList()
    for experiment in experiments:
        images = own_images(experiment)
        if images is not experiment.imageset:
            names = ("beam", "detector", "crystal", "profile", "scaling_model", "identifier")
            names += () if is_still(experiment) else ("goniometer", "scan")
            experiment = Experiment(imageset=images, **{name: getattr(experiment, name) for name in names})
        result.append(experiment)
    return result
