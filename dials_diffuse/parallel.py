"""Independent pieces of work side by side in processes."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

import libtbx
import libtbx.phil
from dials.util import Sorry, progress

from dials_diffuse.output import INTERRUPTIONS

Task = TypeVar("Task")
Result = TypeVar("Result")

#: The scope ``mp`` of a program's parameters, or the number of processes.
Mp = libtbx.phil.scope_extract | int | type(libtbx.Auto)


def number_of_processes(mp: Mp, tasks: int) -> int:
    """How many processes to use for a number of tasks; Auto means one for each processor this process may use."""
    nproc = getattr(mp, "nproc", mp)
    if nproc in (None, libtbx.Auto):
        nproc = len(os.sched_getaffinity(0))
    return max(1, min(nproc, tasks))


def parallel_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], mp: Mp, description: str
) -> Iterator[Result]:
    """Yield ``function(task)`` for all tasks, in their order, with a progress bar.

    The processes are forks: what ``function`` refers to is shared with this process, not copied. Results travel by
    pickle, so they should be small.

    Raises
    ------
    Sorry
        As raised by ``function``, or if a process died.
    """
    nproc = number_of_processes(mp, len(tasks))
    with progress(total=len(tasks), desc=description) as bar:
        bar.monitor_interval = 0
        if nproc == 1:
            for task in tasks:
                yield function(task)
                bar.update()
            return
        context = multiprocessing.get_context("fork")
        executor = ProcessPoolExecutor(nproc, mp_context=context, initializer=_start_worker, initargs=(function,))
        try:
            for result, sorry in _results_in_order(executor, tasks, ahead=4 * nproc):
                if sorry is not None:
                    raise Sorry(sorry)
                yield result
                bar.update()
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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the work
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has been killed, which leaves it no chance to say so."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(task):
    """The result and None, or None and a user error's message: the class Sorry does not pickle."""
    try:
        return _function(task), None
    except Sorry as error:
        return None, str(error)
