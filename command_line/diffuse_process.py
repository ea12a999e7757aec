"""dials.diffuse_process: from images to a map in one go."""

from __future__ import annotations

import sys

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Runs, for every sweep, dials.import, find_spots, index, refine and integrate, then dials.diffuse_mask, diffuse_extract
and diffuse_correct; then, for all sweeps together, reindexing where the lattice allows several settings,
dials.diffuse_scale and dials.diffuse_merge. Stills go through dials.stills_process. Images may be given, or what DIALS
has made of them (imported, indexed, refined or integrated .expt and .refl files).

Every sweep has a folder with its files under DIALS's own names. Started again, it does only what is new: what was
interrupted, and what depends on a parameter or a file that has changed. A sweep that fails is left out.

Parameters for DIALS's programs: dials.index.indexing.method=fft1d, or dials.index { indexing.method=fft1d } in a PHIL
file, or index.phil=my_index.phil. Geometry (geometry {...}, as for dials.import) needs no prefix.

Examples::

  dials.diffuse_process sweep_1/*.cbf sweep_2_master.h5 unit_cell=39.5,45.2,51.3,90,90,90 space_group=P212121

  dials.diffuse_process template=images/sweep_1_####.cbf space_group=P212121 background=images/empty_####.cbf

  dials.diffuse_process images/*.img geometry.phil space_group=P41 untrusted.circle=531,494,30 grid.ndiv=2,2,2

  dials.diffuse_process 1/refined.expt 1/refined.refl 2/refined.expt 2/refined.refl d_min=1.8 nproc=8
"""

phil = """
include scope dials_diffuse.phil_scope.process.phil_scope
include scope dials_diffuse.phil_scope.grid.phil_scope
include scope dials_diffuse.phil_scope.mask.phil_scope
include scope dials_diffuse.phil_scope.extract.phil_scope
include scope dials_diffuse.phil_scope.correct.phil_scope
include scope dials_diffuse.phil_scope.scale.phil_scope
include scope dials_diffuse.phil_scope.merge.phil_scope
include scope dials_diffuse.phil_scope.mp.phil_scope
output {
  prefix = sweep
    .type = str
    .help = "Of the sweeps' folders, which are numbered in the order given."
  expand = True
    .type = bool
    .help = "Fill the map with all voxels that are equivalent under the Laue group. The asymmetric unit alone if False."
  partitioned = False
    .type = bool
    .help = "Observations in folders of partitions (extracted.parts, corrected.parts, scaled.parts) in place of .refl "
            "files, for data that are larger than memory."
  json = process.json
    .type = path
    .help = "What ran, on what, with what result; it is from this that a second run knows what needs not be done again."
  log = dials.diffuse_process.log
    .type = path
    .help = "The log."
}
"""


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        from iotbx.phil import parse

        from dials_diffuse.algorithms.processing.command_line import sort_arguments

        scope = parse(phil, process_includes=True)  # here because a broken plug-in raises Sorry
        line = sort_arguments(sys.argv[1:] if args is None else args)
        with line.own_arguments() as own:
            has_files = bool(line.images or line.models)
            session = start(
                "dials.diffuse_process", help_message, scope, own, needs_experiments=False, has_files=has_files
            )
        if session is None:
            return
        from dials_diffuse.algorithms.processing.parameters import Parameters
        from dials_diffuse.algorithms.processing.process import process

        parameters = Parameters(line, scope.format(session.params))
        finish(*process(line, parameters, session.record))


if __name__ == "__main__":
    run()
