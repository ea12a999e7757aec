"""dials.diffuse_absolute: intensities in electrons squared per unit cell."""

from __future__ import annotations

import json

from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Put scaled diffuse intensities on the absolute scale, electrons squared per unit cell, and subtract the incoherent
(Compton) scattering.

The scale comes from what is in the unit cell, by the sum rule of Krogh-Moe and Norman: the total scattering, Bragg and
diffuse, integrated over reciprocal space, is that of single atoms. The Bragg intensities are those of dials.integrate
for the same sweeps. Checks are Wilson's plot, and a comparison with Bragg intensities calculated from a model or read
from a file.

The scaling models are put on the absolute scale, too, so that dials.diffuse_merge absolute.expt grid.ndiv=... makes
absolute maps on other grids.

Examples::

  dials.diffuse_absolute scaled.expt scaled.refl integrated.expt integrated.refl composition.sequence=protein.fasta

  dials.diffuse_absolute scaled.expt scaled.refl integrated.expt integrated.refl composition.model=model.pdb

  dials.diffuse_absolute scaled.expt scaled.refl composition.formula="4*C12H22O11" absolute.b_factor=2
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.absolute.phil_scope
include scope dials_diffuse.phil_scope.merge.phil_scope
include scope dials_diffuse.phil_scope.mp.local_scope
output {
  experiments = absolute.expt
    .type = path
    .help = "The experiments, with scaling models on the absolute scale."
  reflections = absolute.refl
    .type = path
    .help = "The observations, with the columns that follow from these models."
  map = absolute.nxs
    .type = path
    .help = "The map in electrons squared, NeXus: coherent diffuse scattering."
  bragg = absolute_bragg.refl
    .type = path
    .help = "|F|^2 of the Bragg reflections in electrons squared, where reflections were integrated."
  json = dials.diffuse_absolute.json
    .type = path
    .help = "The factors and all that they come from."
  html = dials.diffuse_absolute.html
    .type = path
    .help = "The same to look at."
  log = dials.diffuse_absolute.log
    .type = path
    .help = "The log file."
}
""",
    process_includes=True,
).fetch(parse("merging.test_symmetry=False"))  # which scaled data were tested for


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start("dials.diffuse_absolute", help_message, phil_scope, args, check_format=False)
        if session is None:
            return
        from dials_diffuse.algorithms.absolute.absolute import absolute_scale
        from dials_diffuse.algorithms.absolute.inputs import separate
        from dials_diffuse.algorithms.absolute.plots import absolute_sections
        from dials_diffuse.algorithms.absolute.write import write_absolute
        from dials_diffuse.algorithms.merging.merge import merge
        from dials_diffuse.report import report_html

        output = session.params.output
        dataset, integrated = separate(session)
        found = absolute_scale(dataset, integrated)
        merged = merge(dataset, session.params)
        report = found.report()
        html = report_html("dials.diffuse_absolute", absolute_sections(report), dataset.history[-1])
        texts = {output.json: json.dumps(report, indent=1), output.html: html}
        finish(*write_absolute(dataset, merged, found, output, texts))


if __name__ == "__main__":
    run()
