"""Work for tests of parallel_map: functions that a worker can import."""

from __future__ import annotations

import logging
import os
import signal
import time
from functools import partial
from pathlib import Path

from dials.util import Sorry

from dials_diffuse.parallel import parallel_map

logger = logging.getLogger("dials.diffuse.work")


def square(task: int) -> int:
    return task * task


def slow_first(task: int) -> tuple[int, float]:
    """Tasks end in another order than they begin."""
    time.sleep(0.3 if task % 4 == 0 else 0.01)
    return task, 1 / (task + 3)


def process_of(task: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def nested(task: int) -> set[int]:
    """Processes at work on a map within a task."""
    return {os.getpid(), *parallel_map(process_of, range(3), 2, "Inner")}


def fail(task: int) -> int:
    if task == 3:
        raise Sorry(f"Task {task} is wrong: give another.")
    return task


def divide(task: int) -> float:
    return 1 / (3 - task)


def tell(task: int) -> int:
    logger.debug("not told")
    logger.info("task %d", task)
    if task == 2:
        logger.warning("dark")
    return task


def die_once(folder: Path, task: int) -> int:
    """Task 3 kills its worker the first time."""
    time.sleep(0.05)
    mark = folder / "died"
    if task == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * task


def die(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def wait_for(file: Path, task: int) -> int:
    """Until there is the file, or for half a minute."""
    (file.parent / f"began-{task}").touch()
    deadline = time.monotonic() + 30
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return task


def program(file: str) -> None:
    """A program whose work on a Dask cluster of its own takes half a minute."""
    from dials_diffuse.parameters import parameters
    from dials_diffuse.program import handled_errors

    with handled_errors():
        mp = parameters("merge", "nproc=1", "method=dask").mp
        list(parallel_map(partial(wait_for, Path(file)), range(8), mp, "Working"))
