"""dials.diffuse_scale: put the observations of all sweeps on one scale."""

from __future__ import annotations

import json

from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Put diffuse observations on a common scale: refines b(phi) of every sweep so that observations of equivalent voxels
agree. The scale factors go into the column inverse_scale_factor, the models into the experiments.

Examples::

  dials.diffuse_scale corrected.expt corrected.refl

  dials.diffuse_scale a/corrected.expt a/corrected.refl b/corrected.expt b/corrected.refl scaling.scale_interval=10
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.scale.phil_scope
output {
  experiments = scaled.expt
    .type = path
    .help = "Experiments with their scaling models."
  reflections = scaled.refl
    .type = path
    .help = "The observations with their scale factors."
  json = dials.diffuse_scale.json
    .type = path
    .help = "Cycles and parameters."
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
        from dials_diffuse.algorithms.scaling.scale import scale
        from dials_diffuse.dataset import Dataset

        output = session.params.output
        dataset = Dataset.from_session(session, "dials.diffuse_correct", COLUMNS)
        report = scale(dataset, session.params)
        dataset.write(output.experiments, output.reflections, {output.json: json.dumps(report, indent=1)})
        finish(output.experiments, output.reflections, output.json)


if __name__ == "__main__":
    run()
