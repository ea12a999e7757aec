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
import os
import signal
import socket
import sys
import threading
import time

#: Seconds that a program is given to clean up when it is ended.
PATIENCE = 5.0

#: What our programs import late, for the sake of a quick help text, and nearly always need.
LATE = ("numba", "dials.algorithms.scaling.model.model")


def main() -> None:
    """Fork for every request until the process that makes them is gone."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        module, files, _, _ = socket.recv_fds(requests, 1024, 3)
        if not module:
            return
        for name in (module.decode(), *LATE):
            with contextlib.suppress(Exception):  # it fails again, and says why, where the program is to run
                importlib.import_module(name)
        gc.freeze()  # or the forks would visit, and so copy, all of it
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _supervise(module.decode(), socket.socket(fileno=files[0]), *files[1:])
        for file in files:
            os.close(file)


def _supervise(module: str, connection: socket.socket, stdout: int, stderr: int) -> None:
    """Run a program in a fork of this process, the leader of a group, and tell how it ended."""
    os.setsid()
    with connection.makefile() as said:
        folder, *argv = json.loads(said.readline())
    program = os.fork()
    if program == 0:
        connection.close()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.chdir(folder)
        sys.argv = argv
        with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:  # what ps and top show
            name.write(argv[0].removeprefix("dials."))
        sys.exit(importlib.import_module(module).run())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_when_closed, args=(connection,), daemon=True).start()
    _, status = os.waitpid(program, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)  # at once: to take down an interpreter with DIALS in it takes a while


def _end_when_closed(connection: socket.socket) -> None:
    connection.recv(1)
    os.killpg(0, signal.SIGTERM)  # the program and the processes that it has started; not this one, which ignores it
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
