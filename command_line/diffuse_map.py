"""dials.diffuse_map: operations on maps."""

from __future__ import annotations

from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Do one operation after another on a map, and write what is wanted of the result: the map, a radial profile, planes, its
correlation with a second map, its Fourier transform (3D-delta-PDF).

Examples::

  dials.diffuse_map merged.nxs operations=variational output.map=variational.nxs

  dials.diffuse_map merged.nxs operations=punch,fill,variational punch.q=0.01 output.delta_pdf=delta_pdf.ccp4

  dials.diffuse_map merged.nxs output.map=None output.profile=profile.csv sections.plane=hk0 sections.plane=h,k,0.5

  dials.diffuse_map merged.nxs other.nxs operations=difference difference.offset=True output.map=difference.nxs

  dials.diffuse_map merged.nxs other.nxs output.map=None output.correlation=correlation.csv

  dials.diffuse_map merged.nxs operations=symmetrise symmetrise.group=P422 output.map=422.nxs

  dials.diffuse_map absolute.nxs operations=fill,total total.bragg=bragg.refl output.map=total.nxs
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.map.phil_scope
output {
  map = map.nxs
    .type = path
    .help = "The map after all operations. None for no map."
  profile = None
    .type = path
    .help = "Its radial profile, comma-separated: |q|, d, mean and its error, standard deviation, error, voxels."
  sections = section
    .type = path
    .help = "Beginning of the names of its planes: section_hk0.png."
  correlation = None
    .type = path
    .help = "Its correlation with the second map, by shells, comma-separated."
  delta_pdf = None
    .type = path
    .help = "Its Fourier transform, a CCP4 map in Angstrom: of a variational map the 3D-delta-PDF."
  log = dials.diffuse_map.log
    .type = path
    .help = "The log file."
}
""",
    process_includes=True,
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start("dials.diffuse_map", help_message, phil_scope, args, needs_experiments=False, needs_maps=True)
        if session is None:
            return
        from dials_diffuse.algorithms.maps.operations import run_operations

        finish(*run_operations(session))


if __name__ == "__main__":
    run()
