"""Independent pieces of work side by side, in forks of this process or on workers of Dask."""

from __future__ import annotations

import collections
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, TypeVar

import libtbx
import libtbx.phil
import numpy as np
from dials.util import Sorry, progress, tabulate

from dials_diffuse.output import INTERRUPTIONS

Task = TypeVar("Task")
Result = TypeVar("Result")

#: The scope ``mp`` of a program's parameters, or the number of processes.
Mp = libtbx.phil.scope_extract | int | type(libtbx.Auto)


#: Workers in the summary beyond which there is but one line for all.
MANY = 12


def number_of_processes(mp: Mp, tasks: int) -> int:
    """How many processes to use for a number of tasks; Auto means one for each processor this process may use."""
    nproc = getattr(mp, "nproc", mp)
    if nproc in (None, libtbx.Auto):
        nproc = len(os.sched_getaffinity(0))
    return max(1, min(nproc, tasks))


@dataclass
class Outcome:
    """What a worker has to say of one task.

    Attributes
    ----------
    worker : str
        Its name.
    result : object
        What the function returned.
    sorry : str or None
        Message of the user error that was raised instead: the class Sorry does not pickle.
    error, trace : Exception, str or None
        Another exception that was raised, and its traceback.
    seconds : float
        That the task took.
    memory : int
        Bytes, the most that the worker has had so far.
    records : list of (str, int, str)
        Logger, level and text of what is to go to the log.
    """

    worker: str
    result: Any = None
    sorry: str | None = None
    error: Exception | None = None
    trace: str | None = None
    seconds: float = 0
    memory: int = 0
    records: list[tuple[str, int, str]] = field(default_factory=list)

    def value(self) -> Any:
        """The result, or the exception is raised."""
        if self.sorry is not None:
            raise Sorry(self.sorry)
        if self.error is not None:
            raise self.error from RemoteTraceback(f"\n{self.trace}")
        return self.result


class RemoteTraceback(Exception):
    """Where in a worker an exception was raised."""


@dataclass
class Share:
    """What a worker did of a step: pieces, seconds, and bytes that it had at most."""

    pieces: int = 0
    seconds: float = 0
    memory: int = 0

    def add(self, outcome: Outcome) -> None:
        self.pieces += 1
        self.seconds += outcome.seconds
        self.memory = max(self.memory, outcome.memory)

    def texts(self) -> list[str]:
        """As the summary has it."""
        return [f"{self.pieces:.0f}", f"{self.seconds:.1f}", f"{self.memory / 1e6:.0f}"]


#: What was done since the program began, by step and worker.
_shares: dict[str, dict[str, Share]] = {}


def summary() -> str:
    """Table of the time of each worker in each step since the program began; empty if no work was shared out."""
    rows = []
    for step, shares in _shares.items():
        if len(shares) > MANY:
            numbers = np.array([(share.pieces, share.seconds, share.memory) for share in shares.values()])
            least, middle, most = (Share(*row).texts() for row in np.percentile(numbers, (0, 50, 100), axis=0))
            spreads = [" / ".join(texts) for texts in zip(least, middle, most)]
            rows.append([step, f"{len(shares)} workers: min / median / max", *spreads])
        elif len(shares) > 1:
            names = sorted(shares, key=lambda name: (len(name), name))
            rows += [[step, name, *shares[name].texts()] for name in names]
    return tabulate(rows, headers=["Step", "Worker", "Pieces", "Busy / s", "Peak memory / MB"]) if rows else ""


@contextlib.contextmanager
def until_end_of_program() -> Iterator[None]:
    """Part from workers when the program ends, however it does; what they did is summed from here on."""
    _shares.clear()
    try:
        yield
    finally:
        if dask_map := sys.modules.get("dials_diffuse.dask_map"):
            dask_map.close()


def parallel_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], mp: Mp, description: str
) -> Iterator[Result]:
    """Yield ``function(task)`` for all tasks, in their order, with a progress bar.

    With ``mp.method=processes`` the workers are forks: what ``function`` refers to is shared with this process, not
    copied. With ``dask`` the function travels, too: it must be small and picklable by cloudpickle, and name large
    things by their files. Results travel by pickle, so they should be small. A task may run again if its worker dies.
    Within a worker, tasks are done one after the other.

    Raises
    ------
    Sorry
        As raised by ``function``, or if a process died, or the cluster is at fault.
    """
    if _is_worker:
        yield from map(function, tasks)
        return
    outcomes = None
    if tasks and getattr(mp, "method", "processes") == "dask":
        try:
            from dials_diffuse.dask_map import dask_outcomes
        except ModuleNotFoundError as error:
            raise Sorry(
                f"mp.method=dask needs Dask distributed, of which there is no {error.name}: install it."
            ) from error

        outcomes = dask_outcomes(function, tasks, mp, description)
    elif (nproc := number_of_processes(mp, len(tasks))) > 1:
        outcomes = _outcomes_of_forks(function, tasks, nproc)
    with progress(total=len(tasks), desc=description) as bar:
        bar.monitor_interval = 0
        if outcomes is None:
            for task in tasks:
                yield function(task)
                bar.update()
            return
        shares = _shares.setdefault(description, {})
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                for name, level, text in outcome.records:
                    logging.getLogger(name).log(level, "%s: %s", outcome.worker, text)
                shares.setdefault(outcome.worker, Share()).add(outcome)
                yield outcome.value()
                bar.update()


def stay_serial() -> None:
    """From now on this process is a worker, whose work is not shared out any more."""
    global _is_worker
    _is_worker = True


_is_worker = False


def measured(function: Callable[[Task], Result], task: Task, worker: str) -> Outcome:
    """Do one task in a worker."""
    began = time.perf_counter()
    outcome = Outcome(worker)
    try:
        outcome.result = function(task)
    except Sorry as error:
        outcome.sorry = str(error)
    outcome.seconds, outcome.memory = time.perf_counter() - began, peak_memory()
    return outcome


def peak_memory() -> int:
    """Bytes that this process has had at most; of its own, where the system tells that from its parent's."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _outcomes_of_forks(function: Callable, tasks: Sequence, nproc: int) -> Iterator[Outcome]:
    """Outcomes of all tasks, in their order."""
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(nproc, mp_context=context, initializer=_start_worker, initargs=(function,))
    names: dict[str, str] = {}
    try:
        for outcome in _results_in_order(executor, tasks, ahead=4 * nproc):
            outcome.worker = names.setdefault(outcome.worker, f"process {len(names) + 1}")
            yield outcome
    except BrokenProcessPool as error:
        for worker in multiprocessing.active_children():
            worker.kill()  # one may wait for ever for a lock that the dead one held
        raise Sorry("A process died, probably for want of memory: try again with a smaller nproc.") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _results_in_order(executor: ProcessPoolExecutor, tasks: Sequence[Task], ahead: int) -> Iterator:
    """Results of all tasks, of which only so many wait at a time (thousands at once can block an executor of Python
    3.11 for good: https://github.com/python/cpython/issues/105829)."""
    waiting: collections.deque[Future] = collections.deque()
    for task in tasks:
        # The processes start here. A signal that reaches one before it has its own handlers would be the parent's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
        try:
            waiting.append(executor.submit(_work, task))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_function: Callable | None = None


def _start_worker(function: Callable) -> None:
    global _function
    _function = function
    stay_serial()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the work
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has been killed, which leaves it no chance to say so."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(task: Any) -> Outcome:
    return measured(_function, task, str(os.getpid()))
