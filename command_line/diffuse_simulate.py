"""Simulate rotation images of a crystal whose diffuse scattering is known."""

from __future__ import annotations

from iotbx.phil import parse

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Writes sweeps of images (or stills), images of the background without the crystal, and truth.json, from which
dials_diffuse.algorithms.simulation.truth.Truth evaluates the true intensity at any point of reciprocal space.

The crystal has Bragg peaks, halos round them, broad clouds and Compton scattering; the instrument has polarisation,
oblique incidence, parallax, air, gaps, a beam stop, hot and dead pixels, a decaying and fluctuating beam and, if asked
for, absorption in the crystal, varying background and uneven detector response. Detectors of one panel or many,
goniometers, drift, several lattices and formats can be chosen.

Examples::

  dials.diffuse_simulate photons=1 sweeps=2

  dials.diffuse_simulate photons=0.05 sweeps=1 frames=200 detector.model=6M detector.distance=250

  dials.diffuse_simulate detector.model=barrel goniometer.model=kappa goniometer.scan_axis=phi format=nxmx

  dials.diffuse_simulate stills=True frames=200 bragg.photons=20000

  dials.import images/sweep_*.cbf

The crystal is mounted anew for every sweep, so dials.index needs joint_indexing=False (it may then write the
experiments in another order; their images' names tell which is which).
"""

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.simulate.phil_scope
output {
  images = images
    .type = path
    .help = "Folder for the images. Images of an earlier simulation in it are removed."
  truth = truth.json
    .type = path
    .help = "The truth."
  log = dials.diffuse_simulate.log
    .type = path
    .help = "The log."
}
""",
    process_includes=True,
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        session = start("dials.diffuse_simulate", help_message, phil_scope, args, needs_experiments=False)
        if session is None:
            return
        from dials_diffuse.algorithms.simulation.simulate import simulate

        params = session.params
        truth = simulate(params, params.output.images)
        truth.write(params.output.truth, session.record)
        finish(params.output.images, params.output.truth)


if __name__ == "__main__":
    run()
