"""What our own programs are to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dials_diffuse.algorithms.processing.parameters import Parameters
from dials_diffuse.algorithms.processing.steps import Step
from dials_diffuse.algorithms.processing.sweeps import Sweep
from dials_diffuse.partitioned_table import ENDING, is_partitioned

#: What extraction takes for its grid, and merging for another one than that.
OF_FINE_MAPS = ("grid", "d_min")


def mask(sweep: Sweep, models: list[Path], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_mask."""
    step = _step("diffuse_mask", sweep.folder, models, ["pixels*.mask"], parameters)
    step.aside, step.depends = [f"nproc={nproc}"], sweep.images
    return step


def extract(sweep: Sweep, models: list[Path], masks: list[Path], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_extract; it makes the pixel masks if none are given."""
    refl = observations("extracted", parameters)
    step = _step("diffuse_extract", sweep.folder, models, ["extracted.expt", refl, "extracted*.mask"], parameters)
    step.args = [*_named(refl), *(f"pixel_mask={os.path.relpath(path, sweep.folder)}" for path in masks)]
    step.aside, step.depends = _workers(parameters, nproc), sweep.images
    return step


def correct(sweep: Sweep, background: list[Path], scale: list[float], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_correct with the background that belongs to the sweep."""
    models = [sweep.folder / "extracted.expt", sweep.folder / observations("extracted", parameters)]
    refl = observations("corrected", parameters)
    outputs = ["corrected.expt", refl, "corrected.json"]
    step = _step("diffuse_correct", sweep.folder, models, outputs, parameters)
    step.args = [*_named(refl), *(f"background={os.path.relpath(path, sweep.folder)}" for path in background)]
    if background:
        step.args.append(f"background_model.scale={','.join(map(str, scale))}")
    step.aside = _workers(parameters, nproc)
    return step


def scale(sweeps: list[Sweep], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_scale of all sweeps together."""
    names = ("corrected.expt", observations("corrected", parameters))
    models = [sweep.folder / name for sweep in sweeps for name in names]
    refl = observations("scaled", parameters)
    outputs = ["scaled.expt", refl, "dials.diffuse_scale.json", "dials.diffuse_scale.html"]
    step = _step("diffuse_scale", Path(), models, outputs, parameters)
    step.args, step.aside = _named(refl), _workers(parameters, nproc)
    return step


def merge(parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_merge."""
    outputs = ["merged.refl", "merged.nxs", "dials.diffuse_merge.json", "dials.diffuse_merge.html"]
    models = [Path("scaled.expt"), Path(observations("scaled", parameters))]
    step = _step("diffuse_merge", Path(), models, outputs, parameters, OF_FINE_MAPS)
    step.args, step.aside = [f"output.expand={parameters.values.output.expand}"], _workers(parameters, nproc)
    return step


def observations(stem: str, parameters: Parameters) -> str:
    """Name of a step's observations."""
    return stem + (ENDING if parameters.values.output.partitioned else ".refl")


def _named(refl: str) -> list[str]:
    """The argument by which a program gives its observations another name than it would itself."""
    return [f"output.reflections={refl}"] if is_partitioned(refl) else []


def _workers(parameters: Parameters, nproc: int) -> list[str]:
    """How a step divides its work."""
    mp = parameters.values.mp
    args = [f"mp.nproc={nproc}", f"mp.method={mp.method}"]
    if mp.scheduler is not None:
        is_file = os.path.exists(mp.scheduler)
        args.append(f"mp.scheduler={os.path.abspath(mp.scheduler) if is_file else mp.scheduler}")
    return args


def _step(
    program: str,
    folder: Path,
    models: list[Path],
    outputs: list[str],
    parameters: Parameters,
    without: Sequence[str] = (),
) -> Step:
    return Step(f"dials.{program}", folder, models, outputs, phil=parameters.of_ours(program, without))
