"""Every unmasked pixel of every frame, mapped to reciprocal space."""

from __future__ import annotations

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Count the pixels of all frames in voxels of reciprocal space, Bragg peaks and bad pixels left out. The grid of voxels is
common to all experiments given. An observation is the sum over the pixels of one panel that fall into one voxel during
about one degree of rotation; zeros count. Masks are made as by dials.diffuse_mask unless pixel_mask= gives one.

Examples::

  dials.diffuse_extract refined.expt refined.refl

  dials.diffuse_extract refined.expt refined.refl grid.ndiv=3,3,3 d_min=1.6 pixel_mask=pixels.mask

  dials.diffuse_extract 1/refined.expt 1/refined.refl 2/refined.expt 2/refined.refl untrusted.circle=531,494,30

  dials.diffuse_extract refined.expt refined.refl output.reflections=extracted.parts mp.method=dask mp.nproc=8
"""

phil = """
include scope dials_diffuse.phil_scope.grid.phil_scope
include scope dials_diffuse.phil_scope.extract.phil_scope
include scope dials_diffuse.phil_scope.mask.phil_scope
include scope dials_diffuse.phil_scope.mp.phil_scope
output {
  experiments = extracted.expt
    .type = path
    .help = "The experiments, with the grid and the history."
  reflections = extracted.refl
    .type = path
    .help = "The observations. A name that ends with .parts makes a folder of partitions, which may be larger than"
            "memory; an interrupted run goes on from those that are finished."
  mask = extracted.mask
    .type = path
    .help = "The pixel mask that was used; the experiments name it. Several sweeps: their numbers are put before the"
            "ending."
  log = dials.diffuse_extract.log
    .type = path
    .help = "The log."
}
"""


def __getattr__(name: str):
    if name != "phil_scope":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from iotbx.phil import parse

    return parse(phil, process_includes=True)  # when asked for, because a broken plug-in raises Sorry


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        from iotbx.phil import parse

        scope = parse(phil, process_includes=True)  # here because a broken plug-in raises Sorry
        session = start("dials.diffuse_extract", help_message, scope, args)
        if session is None:
            return
        from dials_diffuse.algorithms.extraction.extract import extract_to_files
        from dials_diffuse.dataset import models_and_reflections

        output = session.params.output
        experiments, reflections = models_and_reflections(session)
        files = (output.experiments, output.reflections, output.mask)
        finish(*extract_to_files(experiments, reflections, session.params, session.record, *files))


if __name__ == "__main__":
    run()
