"""One program in a process of its own that ends when the process that started it is gone, however that ended.

``python -m dials_diffuse.algorithms.processing.child <pipe> <name> <module> <arguments>`` runs what the command
``<name>`` runs: the function ``run`` of the module. ``<pipe>`` is the reading end of a pipe that nobody writes to and
that the starting process alone holds open.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading


def main() -> None:
    """Run the program named on the command line."""
    pipe, name, module, *args = sys.argv[1:]
    os.set_inheritable(int(pipe), False)
    threading.Thread(target=_end_with_starter, args=(int(pipe),), daemon=True).start()
    sys.argv = [name, *args]
    sys.exit(importlib.import_module(module).run())


def _end_with_starter(pipe: int) -> None:
    os.read(pipe, 1)  # returns when the other end is closed
    os.killpg(0, signal.SIGKILL)  # with the processes that the program has started


if __name__ == "__main__":
    main()
