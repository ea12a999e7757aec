"""dials.diffuse_export: a map for other programs."""

from __future__ import annotations

from iotbx.phil import parse

from dials_diffuse.program import check_inputs_stay, check_output_folders, finish, handled_errors, start

help_message = """
Write a map for other programs: NeXus (the map file itself, cut or on a coarser grid), CCP4/MRC (Coot, PyMOL, ChimeraX),
MTZ (voxels as reflections of a supercell), HDF5 as Yell and meerkat write it, numpy's .npz, or text, h k l I sigma a
line. The ending of output.map tells the format: .nxs, .ccp4, .map, .mrc, .mtz, .h5, .npz, .hkl, .txt.

Examples::

  dials.diffuse_export merged.nxs output.map=merged.mtz

  dials.diffuse_export merged.nxs format=ccp4 range.d_min=2

  dials.diffuse_export merged.nxs output.map=layers.nxs range.l=-1,1

  dials.diffuse_export merged.nxs output.map=bragg_grid.hkl ndiv=1,1,1
"""

phil_scope = parse(
    """
format = nexus ccp4 mtz yell npz text
  .type = choice
  .help = "What to write. The format of the ending of output.map if not given."
include scope dials_diffuse.phil_scope.export.phil_scope
output {
  map = None
    .type = path
    .help = "The file. The map's name with the format's ending if not given."
  log = dials.diffuse_export.log
    .type = path
    .help = "The log file."
}
""",
    process_includes=True,
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start(
            "dials.diffuse_export", help_message, phil_scope, args, needs_experiments=False, needs_maps=True
        )
        if session is None:
            return
        from dials_diffuse.algorithms.export.export import log_map, output_name, prepare, write
        from dials_diffuse.output import whole_files

        params = session.params
        params.output.map, format = output_name(session.map_files, params)
        check_inputs_stay(session.map_files, params.output)
        check_output_folders(params.output)
        diffuse_map = prepare(session.map_files[0], format, params)
        log_map(diffuse_map, format)
        with whole_files(params.output.map) as (part,):
            write(diffuse_map, part, format, params, session.record)
        finish(params.output.map)


if __name__ == "__main__":
    run()
