"""The processes that are at work."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

CHILD = "dials_diffuse.algorithms.processing.child"


class Forks:
    """The process that forks for every program (see :mod:`child`): started when first needed, it ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def start(self, module: str, files: list[int]) -> None:
        """Have a module's ``run`` called in a new process.

        Parameters
        ----------
        module : str
        files : list of int
            File descriptors of the connection to it, its stdout and its stderr.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._begin()
            socket.send_fds(self._requests, [module.encode()], files)

    def _begin(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
            )


_forks = Forks()


class Children:
    """Starts programs and ends them all together, each with the processes that it has started.

    Use it as a context: nothing that it started outlives it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[socket.socket] = set()
        self._stopped = False

    def run(self, name: str, module: str, args: list[str], folder: Path, output: Path) -> tuple[int, str]:
        """Run a program to its end.

        Parameters
        ----------
        name, module : str
            The command's name and the module whose ``run`` it is.
        args : list of str
        folder : Path
            To work in.
        output : Path
            File for what the program prints; it ends with its stderr.

        Returns
        -------
        status : int
            Of its exit, or minus the number of the signal that ended it.
        errors : str
            What it wrote to stderr.
        """
        ours, theirs = socket.socketpair()
        with ours, open(output, "w+b") as printed, tempfile.TemporaryFile() as errors:
            with self._lock, theirs:
                if self._stopped:
                    raise KeyboardInterrupt
                _forks.start(module, [file.fileno() for file in (theirs, printed, errors)])
                self._running.add(ours)
            try:
                ours.sendall(json.dumps([str(folder.resolve()), name, *args]).encode() + b"\n")
                status = ours.recv(16)
            except ConnectionError:  # it was killed before it could read
                status = b""
            except BaseException:
                ours.shutdown(socket.SHUT_WR)
                ours.recv(16)  # until it has ended
                raise
            finally:
                self._running.discard(ours)
            errors.seek(0)
            said = errors.read()
            printed.seek(0, 2)
            printed.write(said)
        return int(status or -signal.SIGKILL), said.decode(errors="replace")

    def stop(self) -> None:
        """End all programs; those that can clean up do. Whoever runs them waits for that."""
        with self._lock:
            self._stopped = True
            for connection in list(self._running):
                with contextlib.suppress(OSError):  # its program has just ended
                    connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
