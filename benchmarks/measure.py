"""Run a program and measure what it takes; lines of tables; fits of powers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Cost:
    """What a command took: seconds, and peaks of memory in bytes.

    Attributes
    ----------
    out : str
        What it printed.
    wall, cpu : float
        CPU time (user and system) is that of all its processes.
    memory : int
        Of all processes together, pages that they share counted once (proportional set size).
    driver, worker : int
        Resident set size of the command's own process, and of the largest of its descendants (0 if it has none).
    """

    out: str
    wall: float
    cpu: float
    memory: int
    driver: int
    worker: int


def watch(command: list[str], folder: Path, one_core: bool = False, environment: dict | None = None) -> Cost:
    """Run a command; what it takes.

    Parameters
    ----------
    folder : Path
        Where it runs.
    one_core : bool
        All its processes on one core, the first that this process may use.
    environment : dict, optional
        Variables beside those of this process.
    """
    core = min(os.sched_getaffinity(0))
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command] if one_core else command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peaks = Peaks(process.pid)
    with peaks:
        out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{out}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(out, time.perf_counter() - began, cpu, *peaks.peaks)


class Peaks:
    """Looks every 50 ms, in a thread, at the memory of a process and its descendants.

    Attributes
    ----------
    peaks : list of 3 int
        ``memory``, ``driver``, ``worker`` of :class:`Cost`.
    """

    def __init__(self, pid: int):
        self.pid, self.peaks = pid, [0, 0, 0]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        largest = np.zeros(2)
        while not self._done.wait(0.05):
            try:
                driver = psutil.Process(self.pid)
                workers = driver.children(recursive=True)
                own, *others = (process.memory_info().rss for process in (driver, *workers))
                now, shared = np.array([own, own + sum(others)]), 0
                if (now > 1.01 * largest).any():  # what is shared takes milliseconds to tell, in which a process stands
                    largest = np.maximum(largest, now)
                    shared = sum(process.memory_full_info().pss for process in (driver, *workers))
            except psutil.Error:
                continue
            self.peaks = [max(pair) for pair in zip(self.peaks, (shared, own, max(others, default=0)))]


def add(costs: list[Cost]) -> Cost:
    """Of programs that run one after the other: times are added, of memory the largest is taken."""
    return Cost(
        "\n".join(cost.out for cost in costs),
        *(sum(getattr(cost, name) for cost in costs) for name in ("wall", "cpu")),
        *(max(getattr(cost, name) for cost in costs) for name in ("memory", "driver", "worker")),
    )


def on_disk(*paths: Path) -> int:
    """Bytes of files, and of all files in folders."""
    return sum(
        part.stat().st_size
        for path in paths
        for part in ([path] if path.is_file() else path.rglob("*"))
        if part.is_file()
    )


def exponent(x: list[float], y: list[float]) -> float:
    """Least-squares slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def header(*names: str) -> str:
    """First two lines of a table."""
    return "| " + " | ".join(names) + " |\n|" + " --- |" * len(names)


def line(*cells: object) -> str:
    """One line of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def megabytes(size: int) -> str:
    """Bytes as a cell of a table; empty for none."""
    return f"{size / 1e6:.0f} MB" if size else ""
