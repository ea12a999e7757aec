"""The true models as DIALS has them: one experiment for every lattice in every sweep or still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from dxtbx.imageset import ImageSet, ImageSetFactory
from dxtbx.model import Beam, Crystal, Experiment, ExperimentList, Scan, ScanFactory
from dxtbx.model.experiment_list import ExperimentListFactory

from dials_diffuse.algorithms.simulation import instrument
from dials_diffuse.algorithms.simulation.terms import Sweep

if TYPE_CHECKING:
    from dials_diffuse.algorithms.simulation.truth import Truth


def make_scan(sweep: Sweep) -> Scan:
    """A dxtbx scan of a sweep; images are counted from 1."""
    return ScanFactory.make_scan(
        image_range=(1, sweep.frames),
        exposure_times=[sweep.exposure] * sweep.frames,
        oscillation=(sweep.start, sweep.width),
        epochs={i: i * sweep.exposure for i in range(1, sweep.frames + 1)},
    )


def make_crystal(truth: Truth, sweep: int, frame: int = 0, lattice: int = 0) -> Crystal:
    """The crystal as it is mounted in a sweep, with a setting matrix at every edge between frames if it drifts."""
    mounting, this = truth.mounting, truth.sweeps[sweep]
    real = np.linalg.inv(mounting.orientation(sweep, frame, lattice) @ truth._orthogonal)
    crystal = Crystal(*(tuple(float(x) for x in axis) for axis in real), truth.space_group)
    if mounting.drifts:
        settings = [mounting.crystal_setting(sweep, phi, frame, lattice) for phi in this.edges()]
        crystal.set_A_at_scan_points([tuple(float(x) for x in setting.ravel()) for setting in settings])
    return crystal


def make_sweep_beam(truth: Truth, sweep: int) -> Beam:
    """The beam of a sweep: the one of all sweeps, or one with a direction at every edge between frames if it drifts."""
    if not truth.mounting.beam_drifts:
        return truth.beam
    beam = Beam(truth.beam)
    vectors = [truth.mounting.s0(sweep, phi) for phi in truth.sweeps[sweep].edges()]
    beam.set_s0_at_scan_points([tuple(float(x) for x in vector) for vector in vectors])
    return beam


def make_experiments(truth: Truth, multi_panel: bool = False, check_format: bool = False) -> ExperimentList:
    """See :meth:`dials_diffuse.algorithms.simulation.truth.Truth.experiments`."""
    detector = instrument.make_detector(truth.params, truth.beam, multi_panel)
    stills, experiments = truth.params.stills, ExperimentList()
    for number, sweep in enumerate(truth.sweeps):
        models = {
            "beam": make_sweep_beam(truth, number),
            "detector": detector,
            "goniometer": truth.goniometer,
            "scan": None if stills else make_scan(sweep),
        }
        if check_format:
            imagesets = _imagesets(truth, number, models, multi_panel)
        for frame in range(sweep.frames if stills else 1):
            imageset = imagesets[frame] if check_format else None
            for lattice in range(truth.params.lattices.number):
                name = f"true-{number + 1}" + f"-still-{frame + 1}" * stills + f"-lattice-{lattice + 1}" * (lattice > 0)
                crystal = make_crystal(truth, number, frame, lattice)
                experiments.append(Experiment(crystal=crystal, imageset=imageset, identifier=name, **models))
    return experiments


def _imagesets(truth: Truth, sweep: int, models: dict, multi_panel: bool) -> list[ImageSet]:
    """The images of a sweep, or each of a series of stills, with the true models."""
    template, options = truth.templates[sweep], {"multi_panel": multi_panel}
    indices = list(range(1, truth.sweeps[sweep].frames + 1))
    if truth.params.format == "nxmx":
        imagesets = [experiment.imageset for experiment in ExperimentListFactory.from_filenames([template])]
    elif truth.params.stills:
        names = [template.replace("####", f"{i:04d}") for i in indices]
        imagesets = [ImageSetFactory.make_imageset([name], format_kwargs=options) for name in names]
    else:
        imagesets = [ImageSetFactory.make_sequence(template=template, indices=indices, format_kwargs=options, **models)]
    for imageset in imagesets:
        for name, model in models.items():
            getattr(imageset, f"set_{name}")(model)
    return imagesets
