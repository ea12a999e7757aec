"""What all parts of the processing share: the parameters, the runner of steps, and the processors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from dials_diffuse.algorithms.processing.parameters import Parameters
from dials_diffuse.algorithms.processing.steps import LeftOut, Runner
from dials_diffuse.algorithms.processing.sweeps import Sweep

logger = logging.getLogger("dials.diffuse.process")

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass
class Work:
    """
    Attributes
    ----------
    parameters : Parameters
    runner : Runner
    nproc : int
        Processes at work at the same time.
    """

    parameters: Parameters
    runner: Runner
    nproc: int

    def side_by_side(self, function: Callable[[Task, int], Result], tasks: Sequence[Task]) -> list[Result]:
        """``function(task, nproc)`` of every task, the processes shared among them."""
        if not tasks:
            return []
        workers = min(len(tasks), self.nproc)
        executor = ThreadPoolExecutor(workers)
        try:
            return list(executor.map(lambda task: function(task, self.nproc // workers), tasks))
        except BaseException:
            self.runner.children.stop()  # or the threads would wait for them
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def for_all(self, sweeps: Sequence[Sweep], function: Callable[[Sweep, int], None]) -> None:
        """``function(sweep, nproc)`` with every sweep that is not left out; where it raises LeftOut, it is."""

        def work(sweep: Sweep, nproc: int) -> None:
            try:
                function(sweep, nproc)
            except LeftOut as error:
                leave_out(sweep, str(error))

        self.side_by_side(work, included(sweeps))


def included(sweeps: Sequence[Sweep]) -> list[Sweep]:
    """Those that are not left out."""
    return [sweep for sweep in sweeps if sweep.left_out is None]


def leave_out(sweep: Sweep, why: str) -> None:
    """Say it now; the end says it again."""
    sweep.left_out = why
    logger.error("%s is left out: %s", sweep.name, why)
