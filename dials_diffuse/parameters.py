"""Parameters of the programs, for scripts."""

from __future__ import annotations

import importlib.util

import libtbx.phil
from dials.util import Sorry
from iotbx.phil import parse


def parameters(program: str, *assignments: str) -> libtbx.phil.scope_extract:
    """The parameters of a program, as its function takes them.

    Parameters
    ----------
    program : str
        ``extract`` for ``dials.diffuse_extract``, and so on.
    *assignments : str
        As on the command line, e.g. ``"d_min=1.6"``, ``"untrusted.circle=531,494,30"``; defaults for all others.

    Returns
    -------
    libtbx.phil.scope_extract

    Raises
    ------
    Sorry
        If there is no such program or parameter, or a value is out of range.
    """
    name = f"dials_diffuse.command_line.diffuse_{program}"
    if importlib.util.find_spec(name) is None:
        raise Sorry(f"There is no program dials.diffuse_{program}.")
    scope = phil_scope(program)
    interpreter = scope.command_line_argument_interpreter()
    try:
        return scope.fetch(sources=[interpreter.process(assignment) for assignment in assignments]).extract()
    except (RuntimeError, ValueError) as error:  # a value out of range
        raise Sorry(f"{error}. dials.diffuse_{program} -c -e2 -a1 shows all parameters.") from error


def phil_scope(program: str) -> libtbx.phil.scope:
    """The scope of all parameters of a program; ``program`` as for :func:`parameters`."""
    module = importlib.import_module(f"dials_diffuse.command_line.diffuse_{program}")
    # where plug-ins have parameters, the scope is made when it is asked for
    return getattr(module, "phil_scope", None) or parse(module.phil, process_includes=True)
