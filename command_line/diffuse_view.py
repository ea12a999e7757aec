"""dials.diffuse_view: look at a map."""

from __future__ import annotations

from dials.util import Sorry
from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Writes a page that shows a map in any browser, and opens it: planes along h, k, l or perpendicular to any zone axis,
with their true angles; linear, logarithmic or percentile colours; resolution rings, Bragg points; h k l, I, sigma, |q|
and d at the pointer; the profile along a line. The page is one file that needs neither server nor network. A plane can
also be written as a picture.

Examples::

  dials.diffuse_view merged.nxs

  dials.diffuse_view merged.nxs plane.zone=1,1,0 plane.level=0.5 colour.scale=log browser=False

  dials.diffuse_view merged.nxs output.html=None output.png=hk1.png plane.level=1 colour.limits=0,2e6
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.view.phil_scope
width = 1500
  .type = int(value_min=200, value_max=20000)
  .help = "Of the picture, in pixels."
max_size = 50
  .type = float(value_min=0)
  .help = "Of the page, in MB. The page of a map that is too large for it has fewer voxels: means over neighbours."
browser = True
  .type = bool
  .help = "Open the page in the browser, where there is a display."
output {
  html = Auto
    .type = path
    .help = "The page. Auto: named as the map."
  png = None
    .type = path
    .help = "The plane as a picture, as the page shows it first."
  log = dials.diffuse_view.log
    .type = path
    .help = "The log."
}
""",
    process_includes=True,
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start("dials.diffuse_view", help_message, phil_scope, args, needs_experiments=False, needs_maps=True)
        if session is None:
            return
        if len(session.map_files) > 1:
            raise Sorry(f"{' and '.join(session.map_files)} are more than one map: give one at a time.")
        from dials_diffuse.algorithms.view.show import show_map

        finish(*show_map(session.map_files[0], session.params))


if __name__ == "__main__":
    run()
