"""A very small DIALS session on simulated images, and what every program makes of it."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dials.algorithms.spot_prediction import ScanStaticReflectionPredictor
from dials.array_family import flex
from dials_session import working_directory
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment, ScanFactory
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.simulation.truth import Truth

FRAMES = 6
SIMULATION = (
    f"sweeps=2 frames={FRAMES} detector.model=100K detector.distance=60 oscillation.width=1 photons=2 "
    "background.images=2 crystal.unit_cell=20,22,24,90,90,90 nproc=1"
)
EXTRACTION = ("grid.ndiv=1,1,1", "d_min=1.5", "nproc=1")


def program(name: str) -> Callable:
    """The function ``run`` of dials.diffuse_<name>."""
    return importlib.import_module(f"dials_diffuse.command_line.diffuse_{name}").run


def make_session(folder: Path) -> None:
    """Fill a folder: images, refined_1 and refined_2 (true models, predicted reflections), background.expt, and
    extracted, corrected, scaled, merged of the first sweep."""
    with working_directory(folder):
        program("simulate")(SIMULATION.split())
        truth = Truth.from_file("truth.json")
        for number, experiment in enumerate(truth.experiments(check_format=True), 1):
            _write_experiments(ExperimentList([experiment]), Path(f"refined_{number}.expt"))
            predicted_reflections(experiment).as_file(f"refined_{number}.refl")
        imageset = ImageSetFactory.new([f"images/background_{i:04d}.cbf" for i in (1, 2)])[0]
        models = imageset.get_beam(), imageset.get_detector(), imageset.get_goniometer(), imageset.get_scan()
        background = Experiment(*models, imageset=imageset)
        _write_experiments(ExperimentList([background]), Path("background.expt"))
        program("extract")(["refined_1.expt", "refined_1.refl", *EXTRACTION])
        program("correct")(["extracted.expt", "extracted.refl"])
        program("scale")(["corrected.expt", "corrected.refl"])
        program("merge")(["scaled.expt", "scaled.refl"])
        for name in ("extracted.expt", "corrected.expt", "scaled.expt"):
            _make_relative(Path(name))


def predicted_reflections(experiment: Experiment) -> flex.reflection_table:
    """What DIALS predicts, as if it had been measured: boxes of 7 x 7 pixels and 3 frames, 500 photons each."""
    table = ScanStaticReflectionPredictor(experiment).for_ub(experiment.crystal.get_A())
    x, y, z = (part.iround() for part in table["xyzcal.px"].parts())
    table["xyzobs.px.value"] = table["xyzcal.px"]
    table["bbox"] = flex.int6(x - 3, x + 4, y - 3, y + 4, z - 1, z + 2)
    table["intensity.sum.value"] = flex.double(len(table), 500)
    table["id"] = flex.int(len(table), 0)
    table.experiment_identifiers()[0] = experiment.identifier
    return table


def copy_session(made: Path, folder: Path) -> None:
    """The session in another folder, with links to the images."""
    shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("images", "*.log", ".complete"))
    (folder / "images").mkdir()
    for image in (made / "images").iterdir():
        (folder / "images" / image.name).symlink_to(image)


def make_long_sweep(folder: Path, frames: int) -> None:
    """long.expt: the first sweep's images over and over."""
    with working_directory(folder):
        for i in range(1, frames + 1):
            Path(f"images/long_{i:05d}.cbf").symlink_to(Path(f"images/sweep_1_{i % FRAMES + 1:04d}.cbf").resolve())
        (experiment,) = ExperimentList.from_file("refined_1.expt", check_format=True)
        experiment.scan = ScanFactory.make_scan((1, frames), [0.1] * frames, (0, 0.01), {i: i for i in range(frames)})
        models = {name: getattr(experiment, name) for name in ("beam", "detector", "goniometer", "scan")}
        template = os.path.abspath("images/long_#####.cbf")
        experiment.imageset = ImageSetFactory.make_sequence(template, list(range(1, frames + 1)), **models)
        _write_experiments(ExperimentList([experiment]), Path("long.expt"))


def _write_experiments(experiments: ExperimentList, path: Path) -> None:
    experiments.as_json(str(path))
    _make_relative(path)


def _make_relative(path: Path) -> None:
    """Let an .expt file name images and masks relative to itself, so that it can be copied with them."""
    path.write_text(path.read_text().replace(f"{path.resolve().parent}/", ""))
