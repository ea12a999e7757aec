"""A process that runs programs in forks of itself: what they import is imported once, where DIALS would take seconds.

``python -m dials_diffuse.algorithms.processing.child <socket>``; :mod:`children` holds the socket's other end. Every
request on it is the name of a module, whose function ``run`` is the program, with three files: the connection over
which the rest is said, and the program's stdout and stderr. Over the connection come the folder to work in and
``sys.argv``; back goes the exit status. When the other end is closed, however that came, the program is ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

#: Seconds that a program is given to clean up when it is ended.
PATIENCE = 5.0

#: What our programs import late, for the sake of a quick help text, and nearly always need.
LATE = ("numba", "dials.algorithms.scaling.model.model", "plotly.offline")


def main() -> None:
    """Fork for every request until the process that makes them is gone."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    while True:
        module, files, _, _ = socket.recv_fds(requests, 1024, 3)
        if not module:
            os._exit(0)  # without waiting for the forks
        for name in (module.decode(), *LATE):
            with contextlib.suppress(Exception):  # it fails again, and says why, where the program is to run
                importlib.import_module(name)
        gc.freeze()  # or the forks would visit, and so copy, all of it
        _fork(_supervise, requests, module.decode(), *files)
        for file in files:
            os.close(file)


def _fork(function: Callable, *args) -> multiprocessing.Process:
    """Call a function in a fork, which ends without taking the interpreter down (with DIALS in it that takes 0.5 s)."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def _supervise(requests: socket.socket, module: str, *files: int) -> None:
    """Run a program in a fork of this process, the leader of a group, and tell how it ended."""
    requests.close()
    os.setsid()
    connection = socket.socket(fileno=files[0])
    with connection.makefile() as said:
        folder, *argv = json.loads(said.readline())
    program = _fork(_run, connection, module, folder, argv, *files[1:])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_when_closed, args=(connection,), daemon=True).start()
    program.join()
    connection.sendall(str(program.exitcode).encode())


def _run(connection: socket.socket, module: str, folder: str, argv: list[str], stdout: int, stderr: int) -> None:
    connection.close()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.chdir(folder)
    sys.argv = argv
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:  # what ps and top show
        name.write(argv[0].removeprefix("dials."))
    try:
        sys.exit(importlib.import_module(module).run())
    except Exception:
        sys.excepthook(*sys.exc_info())  # which says no more of a user's error than its sentence
        sys.exit(1)


def _end_when_closed(connection: socket.socket) -> None:
    connection.recv(1)
    os.killpg(0, signal.SIGTERM)  # the program and the processes that it has started; not this one, which ignores it
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
