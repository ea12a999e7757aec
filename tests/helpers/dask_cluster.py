"""Scheduler and workers of Dask, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

HELPERS = Path(__file__).parent


@contextmanager
def dask_program(name: str, *args: str):
    """A scheduler or workers as a user starts them."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    }
    command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *args, "--no-dashboard"]
    with open(f"{name}.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait()


@contextmanager
def cluster(*worker_args: str):
    """Scheduler and workers of their own: the scheduler's process, and where it is."""
    file = ("--scheduler-file", "scheduler.json", "--host", "127.0.0.1")
    with dask_program("scheduler", *file, "--port", "0") as process:
        while not os.path.exists("scheduler.json"):
            time.sleep(0.05)
        with dask_program("worker", *file, *worker_args):
            yield process
