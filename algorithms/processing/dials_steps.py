"""What DIALS's programs are to do with a sweep, as their authors mean them to be called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dxtbx.sequence_filenames import locate_files_matching_template_string

from dials_diffuse.algorithms.processing.parameters import Parameters, sets_rotation, without_rotation
from dials_diffuse.algorithms.processing.steps import Step
from dials_diffuse.algorithms.processing.sweeps import STATES, Images, Sweep


def import_images(images: Images, folder: Path, parameters: Parameters, *, background: bool = False) -> Step:
    """dials.import.

    Images with a template are given by it if the parameters say how they rotate: that makes a sweep of them even if
    their headers call them stills. (``convert_stills_to_sequences`` does so no longer in DIALS 3.30.)
    """
    text, args = parameters.of_dials("import")
    if background:
        pieces = without_rotation([text, *args])
        text, args = "".join(p for p in pieces if p.endswith("\n")), [p for p in pieces if not p.endswith("\n")]
    files = images.files
    if images.template and not files:
        files = [Path(name) for name in locate_files_matching_template_string(images.template)]
        names = [f"template={os.path.relpath(images.template, folder)}"]
    elif images.template and sets_rotation([text, *args]):
        numbers = images.numbers
        names = [f"template={os.path.relpath(images.template, folder)}"]
        names.append(f"geometry.scan.image_range={numbers[0]},{numbers[-1]}")
    else:
        names = [os.path.relpath(file, folder) for file in files]
    stats = {os.path.relpath(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    return Step("dials.import", folder, [], ["imported.expt"], [*names, *args], text, depends=stats)


def find_spots(sweep: Sweep, parameters: Parameters, nproc: int) -> Step:
    """dials.find_spots."""
    return _step("find_spots", sweep, "imported", ["strong.refl"], parameters, aside=[f"spotfinder.mp.nproc={nproc}"])


def index(sweep: Sweep, parameters: Parameters, nproc: int) -> Step:
    """dials.index with the cell and the space group, if they are known."""
    known = known_symmetry(parameters)
    return _step("index", sweep, "found", STATES["indexed"], parameters, known, [f"indexing.nproc={nproc}"])


def refine(sweep: Sweep, parameters: Parameters, nproc: int, *args: str) -> Step:
    """dials.refine, which by itself refines static models, then ones that vary through the scan."""
    aside = [f"refinement.reflections.outlier.nproc={nproc}"]
    return _step("refine", sweep, "indexed", STATES["refined"], parameters, args, aside)


def integrate(sweep: Sweep, parameters: Parameters, nproc: int) -> Step:
    """dials.integrate."""
    aside = [f"integration.mp.nproc={nproc}"]
    return _step("integrate", sweep, "refined", STATES["integrated"], parameters, aside=aside)


def reindex(sweep: Sweep, operator: str, space_group: str | None, parameters: Parameters) -> Step:
    """dials.reindex of the files from which the diffuse intensity is extracted."""
    text, more = parameters.of_dials("reindex")
    group = [f"space_group={space_group}"] if space_group else []
    args = [f"change_of_basis_op={operator}", *group, *more]
    return Step("dials.reindex", sweep.folder, sweep.files, ["reindexed.expt", "reindexed.refl"], args, text)


def stills_process(sweep: Sweep, stills: Path, parameters: Parameters, nproc: int) -> Step:
    """dials.stills_process: all of the above for stills, each with a crystal of its own."""
    text, more = parameters.of_dials("stills_process")
    return Step(
        "dials.stills_process",
        sweep.folder,
        [stills],
        ["idx-*_refined.expt", "idx-*_indexed.refl"],
        [*known_symmetry(parameters), *more],
        text,
        [f"mp.nproc={nproc}"],
        sweep.images,
    )


def known_symmetry(parameters: Parameters) -> list[str]:
    """Cell and space group as parameters of dials.index."""
    cell, group = parameters.values.unit_cell, parameters.values.space_group
    known = []
    if cell is not None:
        known.append(f"indexing.known_symmetry.unit_cell={','.join(map(str, cell.parameters()))}")
    if group is not None:
        known.append(f"indexing.known_symmetry.space_group={group.symbol_and_number().split(' (')[0].replace(' ', '')}")
    return known


def _step(
    program: str,
    sweep: Sweep,
    state: str,
    outputs: Sequence[str],
    parameters: Parameters,
    args: Sequence[str] = (),
    aside: Sequence[str] = (),
) -> Step:
    """A step from the files of one state of a sweep, all in its folder."""
    text, more = parameters.of_dials(program)
    arguments, images = [*args, *more], sweep.images
    return Step(f"dials.{program}", sweep.folder, sweep.files_of(state), outputs, arguments, text, aside, images)
