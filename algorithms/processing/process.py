"""From images, or whatever DIALS has made of them, to a merged map."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dials.util import Sorry
from dials.util.version import dials_version

from dials_diffuse import __version__
from dials_diffuse.algorithms.processing import diffuse_steps
from dials_diffuse.algorithms.processing.bragg import process_bragg
from dials_diffuse.algorithms.processing.checks import check_cells
from dials_diffuse.algorithms.processing.children import Children
from dials_diffuse.algorithms.processing.command_line import CommandLine
from dials_diffuse.algorithms.processing.gather import gather, import_background
from dials_diffuse.algorithms.processing.parameters import Parameters
from dials_diffuse.algorithms.processing.record import Record, alone_in_folder
from dials_diffuse.algorithms.processing.setting import bring_into_one_setting
from dials_diffuse.algorithms.processing.steps import Runner, StepFailed
from dials_diffuse.algorithms.processing.sweeps import TOGETHER, Sweep
from dials_diffuse.algorithms.processing.table import table
from dials_diffuse.algorithms.processing.work import Work, included
from dials_diffuse.parallel import number_of_processes
from dials_diffuse.provenance import ProcessRecord

logger = logging.getLogger("dials.diffuse.process")


def process(line: CommandLine, parameters: Parameters, this_run: ProcessRecord) -> list[str]:
    """Process everything on the command line, in the current folder.

    Returns
    -------
    list of str
        The files written.

    Raises
    ------
    Sorry
        If no map could be made.
    """
    with alone_in_folder(), Children() as children:
        record = Record(parameters.values.output.json, this_run)
        runner = Runner(record, children, f"{__version__} {dials_version()}")
        work = Work(parameters, runner, number_of_processes(parameters.values.mp, 1 << 20))
        sweeps: list[Sweep] = []
        try:
            sweeps += gather(line, work)
            _to_map(sweeps, work)
            record.keep_only(runner.used)
        finally:
            record.content["sweeps"] = {sweep.name: sweep.numbers | {"left_out": sweep.left_out} for sweep in sweeps}
            record.write()
    refl = diffuse_steps.observations("scaled", parameters)
    return [*TOGETHER, refl, parameters.values.output.json]


def _to_map(sweeps: list[Sweep], work: Work) -> None:
    """All steps from sweeps to the map."""
    values = work.parameters.values
    background = import_background(values.background, work)
    for name, given in (("background", background), ("pixel_mask", values.pixel_mask)):
        if len(given) not in (0, 1, len(sweeps)):
            raise Sorry(f"{name} is given {len(given)} times for {len(sweeps)} sweeps: give it once, or once for each.")
    work.for_all(sweeps, lambda sweep, nproc: process_bragg(sweep, nproc, work))
    bring_into_one_setting(sweeps, work)
    check_cells(included(sweeps), values.check)
    numbers = {sweep.name: number for number, sweep in enumerate(sweeps)}

    def observe(sweep: Sweep, nproc: int) -> None:
        number = numbers[sweep.name]
        masks = [Path(name) for name in _of_sweep(values.pixel_mask, number)]
        _observe(sweep, masks, _of_sweep(background, number), number, nproc, work)

    work.for_all(sweeps, observe)
    _report(sweeps)
    if values.space_group is None and any(sweep.state == "imported" for sweep in sweeps):
        logger.warning(
            "No space_group is given, so DIALS indexed in P1 and the map has Friedel's symmetry alone. dials.symmetry "
            "suggests one from a sweep's integrated.expt and integrated.refl."
        )
    if not included(sweeps):
        raise Sorry("There is no map, because all sweeps are left out: the reasons are above.")
    try:
        work.runner.run(diffuse_steps.scale(included(sweeps), work.parameters, work.nproc))
        work.runner.run(diffuse_steps.merge(work.parameters, work.nproc))
    except StepFailed as error:
        raise Sorry(f"{error}.") from None


def _observe(sweep: Sweep, masks: list[Path], background: list[Path], number: int, nproc: int, work: Work) -> None:
    """Masks, observations and intensities of one sweep."""
    parameters, run = work.parameters, work.runner.run
    if not masks and not sweep.is_stills:
        masks = run(diffuse_steps.mask(sweep, sweep.files, parameters, nproc))
    run(diffuse_steps.extract(sweep, sweep.files, masks, parameters, nproc))
    scale = _of_sweep(parameters.values.background_model.scale, number)
    run(diffuse_steps.correct(sweep, background, scale, parameters, nproc))
    experiments = json.loads((sweep.folder / "corrected.json").read_text())["experiments"]
    sweep.numbers |= {name: sum(part[name] for part in experiments) for name in ("observations", "photons")}


def _of_sweep(given: Sequence[Any], number: int) -> list:
    """What is given once for all sweeps, or once for each."""
    return list(given) if len(given) < 2 else [given[number]]


def _report(sweeps: list[Sweep]) -> None:
    """The table, and what is left out."""
    logger.info("\n%s", table(sweeps))
    for sweep in sweeps:
        if sweep.left_out is not None:
            logger.warning("%s is left out: %s.", sweep.name, sweep.left_out)
