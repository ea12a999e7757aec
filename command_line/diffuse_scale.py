"""dials.diffuse_scale: put the observations of all sweeps on one scale."""

from __future__ import annotations

import json

from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Put diffuse observations on a common scale: refines the model I_obs = a d (b I + c) so that observations of equivalent
voxels agree. b(phi) is beam, illuminated volume and decay, a(x, y, phi) absorption, c(|q|, phi) excess background,
d(x, y) the detector's response; beside b, those terms are taken that the data ask for. Observations that do not fit are
rejected, errors are calibrated. The models go into the experiments, what they say into columns of the observations.

Examples::

  dials.diffuse_scale corrected.expt corrected.refl

  dials.diffuse_scale a/corrected.expt a/corrected.refl b/corrected.expt b/corrected.refl scaling.terms=scale,offset

  dials.diffuse_scale corrected.expt corrected.refl reference=merged.nxs
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.scale.phil_scope
include scope dials_diffuse.phil_scope.mp.phil_scope
output {
  experiments = scaled.expt
    .type = path
    .help = "Experiments with their scaling models."
  reflections = scaled.refl
    .type = path
    .help = "The observations with their scale factors."
  json = dials.diffuse_scale.json
    .type = path
    .help = "Terms, cycles, residuals, error model, outliers: docs/data_model.md."
  html = dials.diffuse_scale.html
    .type = path
    .help = "The same to look at."
  log = dials.diffuse_scale.log
    .type = path
    .help = "The log file."
}
""",
    process_includes=True,
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start("dials.diffuse_scale", help_message, phil_scope, args, check_format=False)
        if session is None:
            return
        from dials_diffuse.algorithms.scaling.observations import COLUMNS
        from dials_diffuse.algorithms.scaling.plots import scaling_sections
        from dials_diffuse.algorithms.scaling.scale import scale
        from dials_diffuse.dataset import Dataset
        from dials_diffuse.report import report_html
        from dials_diffuse.work_folder import folder_for

        params, output = session.params, session.params.output
        dataset = Dataset.from_session(session, "dials.diffuse_correct", COLUMNS)
        with folder_for(output.reflections, session.record) as work:
            report = scale(dataset, params, work)
            html = report_html("dials.diffuse_scale", scaling_sections(report), dataset.history[-1])
            texts = {output.json: json.dumps(report, indent=1), output.html: html}
            finish(*dataset.write(output.experiments, output.reflections, texts, work))


if __name__ == "__main__":
    run()
