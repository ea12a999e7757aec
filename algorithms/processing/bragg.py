"""DIALS's part of the work on one sweep: from where it stands to integrated reflections."""

from __future__ import annotations

import logging
from pathlib import Path

from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.processing import dials_steps
from dials_diffuse.algorithms.processing.checks import check_indexed, check_rmsd, check_stills
from dials_diffuse.algorithms.processing.numbers import mosaicity, refinement_numbers, spot_numbers
from dials_diffuse.algorithms.processing.record import key_of
from dials_diffuse.algorithms.processing.steps import LeftOut, StepFailed
from dials_diffuse.algorithms.processing.sweeps import Sweep, one_image_each
from dials_diffuse.algorithms.processing.work import Work
from dials_diffuse.dataset import forget_identifiers

logger = logging.getLogger("dials.diffuse.process")


def process_bragg(sweep: Sweep, nproc: int, work: Work) -> None:
    """Find spots, index, refine and integrate, as far as it has not been done; sets ``files`` and ``numbers``.

    Raises
    ------
    LeftOut
        If a step fails, or the model is too bad.
    """
    if sweep.is_stills:
        _stills(sweep, nproc, work)
        return
    check, parameters, run = work.parameters.values.check, work.parameters, work.runner.run
    if sweep.state == "imported":
        run(dials_steps.find_spots(sweep, parameters, nproc))
        sweep.state = "found"
    if sweep.state == "found":
        run(dials_steps.index(sweep, parameters, nproc))
        sweep.state = "indexed"
    if sweep.state == "indexed":
        _read(sweep, "indexed", sweep.files_of("indexed"), work)
        check_indexed(sweep, check.indexed)
        _refine(sweep, nproc, work)
        sweep.state = "refined"
    sweep.files = sweep.files_of(sweep.state)
    _read(sweep, "refined", sweep.files, work)
    check_rmsd(sweep, check.rmsd)
    if sweep.state == "refined" and work.parameters.values.integration:
        run(dials_steps.integrate(sweep, parameters, nproc))
        sweep.state = "integrated"
    if sweep.state == "integrated":
        _read(sweep, "integrated", sweep.files_of("integrated")[:1], work)


def _refine(sweep: Sweep, nproc: int, work: Work) -> None:
    """Refine a static model, then one that varies through the scan; if that fails, the static one alone."""
    static = dials_steps.refine(sweep, work.parameters, nproc, "scan_varying=False")
    if not work.runner.is_done(static):
        try:
            work.runner.run(dials_steps.refine(sweep, work.parameters, nproc))
            return
        except StepFailed as error:
            logger.warning("%s is refined without variation through the scan, because of %s", sweep.name, error)
    work.runner.run(static)


def _stills(sweep: Sweep, nproc: int, work: Work) -> None:
    """dials.stills_process; its output is in pairs of files, one from each of its processes."""
    if sweep.state == "imported":
        (imported,), stills = sweep.files_of("imported"), sweep.folder / "stills.expt"
        key = work.runner.record.hash(imported)
        work.runner.compute(
            f"{sweep.folder}/stills", key, lambda: one_image_each(sweep.models).as_file(str(stills)), [stills]
        )
        sweep.files = work.runner.run(dials_steps.stills_process(sweep, stills, work.parameters, nproc))
    elif sweep.state == "found":
        raise LeftOut("these are stills: give images, imported.expt, or what dials.stills_process made of them")
    else:
        sweep.files = sweep.files_of(sweep.state)
    _read(sweep, "refined", sweep.files, work)
    for name in ("spots", "indexed"):
        sweep.numbers.pop(name)  # only spots on stills that are indexed come out
    sweep.numbers |= {"stills": len(sweep.models), "indexed stills": len(sweep.numbers["cells"])}
    check_stills(sweep, work.parameters.values.check.indexed)
    check_rmsd(sweep, work.parameters.values.check.rmsd)


def _read(sweep: Sweep, state: str, files: list[Path], work: Work) -> None:
    """Take the key numbers from the files of a state."""

    def numbers() -> dict:
        experiments = ExperimentList()
        reflections = flex.reflection_table()
        for file in files:
            if file.suffix == ".expt":
                experiments.extend(ExperimentList.from_file(file, check_format=False))
            else:
                table = flex.reflection_table.from_file(str(file))
                forget_identifiers(table)
                reflections.extend(table)
        if state == "integrated":
            return {"mosaicity": mosaicity(experiments)}
        found = spot_numbers(reflections)
        return found if state == "indexed" else found | refinement_numbers(experiments, reflections)

    key = key_of([work.runner.record.hash(file) for file in files])
    sweep.numbers |= work.runner.compute(f"{sweep.folder}/numbers of {state}", key, numbers)
