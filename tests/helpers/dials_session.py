"""What a user does before he comes to us."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dials_diffuse.algorithms.processing.children import Children
from dials_diffuse.algorithms.processing.steps import Step

#: Two sweeps whose b and background vary: for dials.diffuse_simulate.
TWO_SWEEPS = ("frames=60", "b.period=45", "background.variation=0.2", "background.images=24")


@contextlib.contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Work in a folder; programs write into the current one."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def dials(folder: Path, program: str, *args: str) -> None:
    """Run one of DIALS's own programs in a folder, by way of a process that has imported DIALS already."""
    step = Step(f"dials.{program}", folder, [], [])
    printed = folder / f"dials.{program}.out"
    with Children() as children:
        status, _ = children.run(step.program, step.module, list(args), folder, printed)
    assert status == 0, f"dials.{program} {' '.join(args)}:\n{printed.read_text()}"


def index_and_refine(folder: Path, images: str, *import_options: str) -> None:
    """What a user does before he comes to us, with no help from the true geometry; makes refined.expt, refined.refl."""
    folder.mkdir()
    dials(folder, "import", f"template={images}", *import_options)
    dials(folder, "find_spots", "imported.expt", "d_min=2.5", "nproc=1")
    cell = ("unit_cell=39.5,45.2,51.3,90,90,90", "space_group=P212121")
    fast = ("indexing.method=fft1d", "n_macro_cycles=2", "basis_vector_combinations.max_refine=3", "nproc=1")
    dials(folder, "index", "imported.expt", "strong.refl", *cell, *fast)
    dials(folder, "refine", "indexed.expt", "indexed.refl", "nproc=1")
