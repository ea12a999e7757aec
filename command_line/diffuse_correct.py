"""dials.diffuse_correct: from counts to intensities."""

from __future__ import annotations

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Divides the counts of every observation by the exposure and by what geometry, beam and detector do to them (solid angle,
polarisation, efficiency of the sensor, attenuation in air), subtracts the background of images taken without a crystal,
and gives every observation an intensity and a variance.

Examples::

  dials.diffuse_correct extracted.expt extracted.refl

  dials.diffuse_correct extracted.expt extracted.refl background=background.expt

  dials.diffuse_correct extracted.expt extracted.refl correction.air_attenuation.use=False

  dials.diffuse_correct extracted.expt extracted.parts output.reflections=corrected.parts nproc=8
"""

phil = """
include scope dials_diffuse.phil_scope.correct.phil_scope
include scope dials_diffuse.phil_scope.mp.phil_scope
output {
  experiments = corrected.expt
    .type = path
    .help = "Experiments."
  reflections = corrected.refl
    .type = path
    .help = "Observations with their intensities. A name that ends with .parts makes a folder of partitions, which may"
            "be larger than memory; an interrupted run goes on from those that are finished."
  json = corrected.json
    .type = path
    .help = "Minimum, mean and maximum of every correction, and the photons and background of every experiment."
  log = dials.diffuse_correct.log
    .type = path
    .help = "Log."
}
"""


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        from iotbx.phil import parse

        scope = parse(phil, process_includes=True)  # here because a broken plug-in raises Sorry
        session = start("dials.diffuse_correct", help_message, scope, args, check_format=False)
        if session is None:
            return
        from dials_diffuse.algorithms.correction.correct_files import correct_to_files
        from dials_diffuse.dataset import Dataset

        dataset = Dataset.from_session(session, "dials.diffuse_extract", ("counts", "exposure", "xyzobs.px.value"))
        output = session.params.output
        files = (output.experiments, output.reflections, output.json)
        finish(*correct_to_files(dataset, session.params, session.record, *files))


if __name__ == "__main__":
    run()
