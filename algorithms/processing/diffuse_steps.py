"""What our own programs are to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dials_diffuse.algorithms.processing.parameters import Parameters
from dials_diffuse.algorithms.processing.steps import Step
from dials_diffuse.algorithms.processing.sweeps import Sweep

#: What extraction takes for its grid, and merging for another one than that.
OF_FINE_MAPS = ("grid", "d_min")


def mask(sweep: Sweep, models: list[Path], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_mask."""
    step = _step("diffuse_mask", sweep.folder, models, ["pixels*.mask"], parameters)
    step.aside, step.depends = [f"nproc={nproc}"], sweep.images
    return step


def extract(sweep: Sweep, models: list[Path], masks: list[Path], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_extract; it makes the pixel masks if none are given."""
    outputs = ["extracted.expt", "extracted.refl", "extracted*.mask"]
    step = _step("diffuse_extract", sweep.folder, models, outputs, parameters)
    step.args = [f"pixel_mask={os.path.relpath(path, sweep.folder)}" for path in masks]
    step.aside, step.depends = [f"nproc={nproc}"], sweep.images
    return step


def correct(sweep: Sweep, background: list[Path], scale: list[float], parameters: Parameters) -> Step:
    """dials.diffuse_correct with the background that belongs to the sweep."""
    models = [sweep.folder / "extracted.expt", sweep.folder / "extracted.refl"]
    outputs = ["corrected.expt", "corrected.refl", "corrected.json"]
    step = _step("diffuse_correct", sweep.folder, models, outputs, parameters)
    step.args = [f"background={os.path.relpath(path, sweep.folder)}" for path in background]
    if background:
        step.args.append(f"background_model.scale={','.join(map(str, scale))}")
    return step


def scale(sweeps: list[Sweep], parameters: Parameters, nproc: int) -> Step:
    """dials.diffuse_scale of all sweeps together."""
    models = [sweep.folder / f"corrected.{ending}" for sweep in sweeps for ending in ("expt", "refl")]
    outputs = ["scaled.expt", "scaled.refl", "dials.diffuse_scale.json", "dials.diffuse_scale.html"]
    step = _step("diffuse_scale", Path(), models, outputs, parameters)
    step.aside = [f"nproc={nproc}"]
    return step


def merge(parameters: Parameters) -> Step:
    """dials.diffuse_merge."""
    outputs = ["merged.refl", "merged.nxs", "dials.diffuse_merge.json", "dials.diffuse_merge.html"]
    models = [Path("scaled.expt"), Path("scaled.refl")]
    step = _step("diffuse_merge", Path(), models, outputs, parameters, OF_FINE_MAPS)
    step.args = [f"output.expand={parameters.values.output.expand}"]
    return step


def _step(
    program: str,
    folder: Path,
    models: list[Path],
    outputs: list[str],
    parameters: Parameters,
    without: Sequence[str] = (),
) -> Step:
    return Step(f"dials.{program}", folder, models, outputs, phil=parameters.of_ours(program, without))
