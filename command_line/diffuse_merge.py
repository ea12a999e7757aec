"""dials.diffuse_merge: one intensity a voxel, and the map."""

from __future__ import annotations

import json

from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Merge scaled diffuse observations over the Laue group: a table of voxels, a NeXus map with error bars and half maps, and
statistics in shells of resolution.

Examples::

  dials.diffuse_merge scaled.expt scaled.refl

  dials.diffuse_merge scaled.expt scaled.refl merging.friedel=apart

  dials.diffuse_merge scaled.expt scaled.refl merging.halves=sweep output.expand=False

A fine map: all sweeps extracted again on a finer grid, as they were, and the scaling model applied::

  dials.diffuse_merge scaled.expt grid.ndiv=6,6,6
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.merge.phil_scope
include scope dials_diffuse.phil_scope.fine.phil_scope
output {
  reflections = merged.refl
    .type = path
    .help = "Merged voxels of the asymmetric unit."
  map = merged.nxs
    .type = path
    .help = "The map, NeXus."
  expand = True
    .type = bool
    .help = "Fill the map with all voxels that are equivalent to the merged ones. The asymmetric unit alone if False."
  json = dials.diffuse_merge.json
    .type = path
    .help = "The statistics."
  html = dials.diffuse_merge.html
    .type = path
    .help = "The same to look at."
  log = dials.diffuse_merge.log
    .type = path
    .help = "The log file."
}
""",
    process_includes=True,
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start("dials.diffuse_merge", help_message, phil_scope, args, check_format=False)
        if session is None:
            return
        from dials_diffuse.algorithms.merging.fine import dataset_on_grid
        from dials_diffuse.algorithms.merging.merge import COLUMNS, merge
        from dials_diffuse.algorithms.merging.plots import merging_sections
        from dials_diffuse.map_file import write_map
        from dials_diffuse.output import whole_files
        from dials_diffuse.report import report_html
        from dials_diffuse.table_file import write_table

        output = session.params.output
        dataset = dataset_on_grid(session, COLUMNS)
        merged = merge(dataset, session.params)
        report = merged.report()
        html = report_html("dials.diffuse_merge", merging_sections(report), dataset.history[-1])
        with whole_files(output.reflections, output.map, output.json, output.html) as (refl, nxs, statistics, page):
            write_table(merged.as_reflections(), refl)
            write_map(
                nxs,
                merged.grid,
                merged.index,
                merged.map_columns(),
                wavelengths=merged.wavelengths,
                history=dataset.history,
                expand=output.expand,
                units=dataset.units,
            )
            statistics.write_text(json.dumps(report, indent=1))
            page.write_text(html, encoding="utf-8")
        finish(output.reflections, output.map, output.json, output.html)


if __name__ == "__main__":
    run()
