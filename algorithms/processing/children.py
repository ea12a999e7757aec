"""The processes that are at work."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

CHILD = "dials_diffuse.algorithms.processing.child"

#: Seconds that a program is given to clean up when all is stopped.
PATIENCE = 5.0


class Children:
    """Starts programs, each the leader of a group of processes, and ends them all together.

    Use it as a context: nothing that it started outlives it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._stopped = False
        self._reading, self._writing = os.pipe()

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
        errors : str
            What it wrote to stderr.
        """
        command = [sys.executable, "-m", CHILD, str(self._reading), name, module, *args]
        with open(output, "w") as printed:
            with self._lock:
                if self._stopped:
                    raise KeyboardInterrupt
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    pass_fds=[self._reading],
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                _, errors = process.communicate()
            finally:
                self._running.discard(process)
        with open(output, "a") as printed:
            printed.write(errors)
        return process.returncode, errors

    def stop(self) -> None:
        """End all programs; those that can clean up do."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            ends = time.monotonic() + PATIENCE
            while time.monotonic() < ends and any(process.poll() is None for process in running):
                time.sleep(0.05)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        os.close(self._reading)
        os.close(self._writing)
