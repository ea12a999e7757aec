"""dials.diffuse_plugins: corrections, Bragg masks, scaling terms and models, of this package and of others."""

from __future__ import annotations

from iotbx.phil import parse

from dials_diffuse.program import handled_errors, start

help_message = """
List everything that can be plugged into the programs, built-in or from other packages: the corrections of
dials.diffuse_correct, the Bragg masks of dials.diffuse_mask and dials.diffuse_extract, the terms of the model of
dials.diffuse_scale, and the scaling models that DIALS finds here. What cannot be loaded is listed with its error.
(dials.plugins lists DIALS's own groups.)

Examples::

  dials.diffuse_plugins

  dials.diffuse_plugins output.log=plugins.log
"""

phil_scope = parse(
    """
output {
  log = None
    .type = path
    .help = "A file for the list."
}
"""
)


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        # has_files: there is work to do without arguments
        session = start(
            "dials.diffuse_plugins", help_message, phil_scope, args, needs_experiments=False, has_files=True
        )
        if session is None:
            return
        from dials_diffuse.algorithms.plugin_list import log_plugins

        log_plugins()


if __name__ == "__main__":
    run()
