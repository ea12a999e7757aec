"""Independent pieces of work side by side on workers of Dask distributed, on this machine or many (docs/cluster.md)."""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import functools
import json
import logging
import os
import pickle
import platform
import shutil
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import libtbx.phil
from dials.util import Sorry
from dials.util.version import dials_version
from distributed import Client, Future, KilledWorker, LocalCluster, Nanny, Security, TimeoutError, get_worker
from distributed.client import CancelledError
from distributed.comm import connect

from dials_diffuse import __version__, parallel

logger = logging.getLogger("dials.diffuse.dask")

#: Seconds that a scheduler has to answer, and after which it is told that there are no workers.
PATIENCE = 5


@dataclass
class _Connection:
    """The scheduler of this process: somebody's, or that of a cluster on this machine."""

    asked_for: tuple
    place: str
    client: Client
    cluster: LocalCluster | None = None
    folder: str | None = None
    told_of_threads: bool = False

    def workers(self) -> int:
        """How many there are now."""
        threads = self.client.nthreads()
        if not self.told_of_threads and any(number > 1 for number in threads.values()):
            logger.warning(
                "Workers have several threads, of which one is used: start them with --nthreads 1 --nworkers N."
            )
            self.told_of_threads = True
        return len(threads)


_connection: _Connection | None = None


def dask_outcomes(
    function: Callable, tasks: Sequence, mp: libtbx.phil.scope_extract, description: str
) -> Iterator[parallel.Outcome]:
    """Outcomes of ``function(task)`` of all tasks, in their order.

    Parameters
    ----------
    function : callable
        Small and picklable by cloudpickle: it goes with every task; a worker unpickles it once.
    tasks : sequence
        Small, picklable.
    mp : libtbx.phil.scope_extract
        The scope ``mp``.
    description : str
        For messages.

    Raises
    ------
    Sorry
        If there is no scheduler, it is lost, tasks kill their workers, or a worker has other versions.
    """
    connection = _connect(mp.scheduler, parallel.number_of_processes(mp, 1 << 20))
    client = connection.client
    work = functools.partial(_work, cloudpickle.dumps(function), os.getcwd(), _versions())
    name = f"{description.lower().replace(' ', '-')}-{os.urandom(6).hex()}"
    waiting: collections.deque[Future] = collections.deque()
    try:
        ahead, counted = 0, -PATIENCE
        for number, task in enumerate(tasks):
            with _told_of_cluster(connection, description):
                if time.monotonic() - counted > PATIENCE:  # the cluster may grow
                    ahead, counted = 4 * max(1, connection.workers()), time.monotonic()
                # as bytes, because Dask would look for futures and keys in it
                waiting.append(client.submit(work, cloudpickle.dumps(task), key=f"{name}-{number}", pure=False))
            if len(waiting) > ahead:
                yield _outcome(waiting.popleft(), connection, description)
        while waiting:
            yield _outcome(waiting.popleft(), connection, description)
    finally:
        if client.status == "running":  # or it would try for long
            with contextlib.suppress(Exception):
                client.cancel(list(waiting))


def _outcome(future: Future, connection: _Connection, description: str) -> parallel.Outcome:
    """Wait for one task."""
    told = False
    with _told_of_cluster(connection, description):
        while True:
            try:
                return future.result(timeout=PATIENCE)
            except TimeoutError:
                if not told and not connection.workers():
                    logger.warning("%s has no workers: waiting for them.", connection.place)
                    told = True


@contextlib.contextmanager
def _told_of_cluster(connection: _Connection, description: str) -> Iterator[None]:
    """Turn errors of the cluster into user errors; those of tasks come in their outcomes."""
    try:
        yield
    except Sorry:
        raise
    except KilledWorker as error:
        raise Sorry(
            f"{description}: workers died of the same piece of work again and again, probably for want of memory (the "
            f"last one was {error.last_worker.address}). Try again with more memory a worker: "
            + ("a smaller mp.nproc." if connection.cluster else "fewer on a machine, a larger --memory-limit.")
        ) from error
    except (CancelledError, OSError) as error:
        raise Sorry(
            f"{description}: {connection.place} was lost in the middle. Start it again, then the same command: where "
            "the output is a folder .parts, it goes on from the partitions that are finished."
        ) from error
    except Exception as error:
        raise Sorry(
            f"{description}: {connection.place} cannot do the work ({type(error).__name__}: {error}). Its scheduler "
            "and workers must have the same versions of Python, Dask, DIALS and dials_diffuse as this program."
        ) from error


def _connect(scheduler: str | None, nproc: int) -> _Connection:
    """The connection of this process, made when it is first asked for."""
    global _connection
    asked_for = (scheduler,) if scheduler else (None, nproc)
    if _connection is None or _connection.asked_for != asked_for:
        close()
        for name in ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what matters is told by Sorry
        _connection = _to_scheduler(scheduler) if scheduler else _on_this_machine(nproc)
        _connection.asked_for = asked_for
    return _connection


def _to_scheduler(scheduler: str) -> _Connection:
    address = _address(scheduler)
    try:
        # Asked first, as a client that finds nobody is not quiet; in a thread, as notebooks have a loop in theirs.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _answers(address)).result()
        client = Client(address, timeout=PATIENCE, set_as_default=False, name="dials_diffuse")
    except (OSError, ValueError, ImportError) as error:
        raise Sorry(
            f"No Dask scheduler answers at {address} (mp.scheduler={scheduler}): start one with dask scheduler, or "
            "correct the address."
        ) from error
    connection = _Connection((), f"The Dask scheduler at {address}", client)
    logger.info("%s has %d workers.", connection.place, connection.workers())
    return connection


async def _answers(address: str) -> None:
    comm = await connect(address, timeout=PATIENCE, **Security().get_connection_args("client"))
    await comm.close()


def _address(scheduler: str) -> str:
    """The address itself, or what the scheduler file says."""
    if not scheduler.endswith(".json"):
        return scheduler
    try:
        return json.loads(Path(scheduler).read_text())["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Sorry(
            f"mp.scheduler={scheduler} is not a scheduler file that can be read: start dask scheduler with "
            f"--scheduler-file {scheduler}."
        ) from error


def _on_this_machine(nproc: int) -> _Connection:
    """A cluster of processes that ends with this one."""
    dask.config.set(
        {
            "distributed.worker.memory.target": False,  # results are small
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,  # what fills it are caches: it would pause for ever
            "distributed.scheduler.worker-ttl": None,  # long compiled work may hold up a worker's heartbeat
            "distributed.comm.timeouts.connect": "120s",
            # A worker that replaces a dead one would say that it clears its folder.
            "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
        }
    )
    folder = tempfile.mkdtemp(prefix="dials_diffuse.dask.")
    # Workers inherit this, also those that are started later in place of dead ones: Ctrl-C is for this process alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        cluster = LocalCluster(
            n_workers=nproc,
            threads_per_worker=1,
            processes=True,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # any free port, not 8787
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        )
        client = Client(cluster, set_as_default=False, name="dials_diffuse")
    except (OSError, RuntimeError) as error:
        raise Sorry(f"Cannot start {nproc} Dask workers on this machine ({error}): try mp.method=processes.") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Connection((), "The Dask cluster on this machine", client, cluster, folder)


def close() -> None:
    """Part from the scheduler; a cluster on this machine ends."""
    global _connection
    connection, _connection = _connection, None
    if connection is None:
        return
    with contextlib.suppress(Exception):
        connection.client.close(timeout=2 * PATIENCE)  # one that lost its scheduler looks for it so long
    if connection.cluster is not None:
        for nanny in connection.cluster.workers.values():
            with contextlib.suppress(Exception):
                _kill(nanny)
        with contextlib.suppress(Exception):
            connection.cluster.close(timeout=PATIENCE)
        shutil.rmtree(connection.folder, ignore_errors=True)


atexit.register(close)


def _kill(nanny: Nanny) -> None:
    """End a worker of this machine, which may be amid a long task that nobody wants any more, or just be starting."""
    nanny.close_gracefully()  # it shall not start another
    deadline = time.monotonic() + PATIENCE
    while nanny.pid is None and nanny.process.status.name == "starting" and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(nanny.pid, signal.SIGKILL)


# What follows runs in the workers.

_one_at_a_time = threading.Lock()


def _work(payload: bytes, folder: str, versions: dict[str, str], task: bytes) -> parallel.Outcome:
    """Do one task; the function is that of the payload."""
    parallel.stay_serial()
    name = get_worker().name
    name = f"worker {name}" if isinstance(name, int) else name
    here = f"{name} on {socket.gethostname()}"
    with _one_at_a_time:
        for what, version in _versions().items():
            if version != versions[what]:
                return parallel.Outcome(
                    name, sorry=f"{here} has {what} {version}, this program {versions[what]}: install the same."
                )
        try:
            os.chdir(folder)  # names of files are relative to it
        except OSError as error:
            return parallel.Outcome(
                name,
                sorry=f"{here} has no folder {folder} ({error.strerror}): all machines must share the file system.",
            )
        try:
            with _collected_records() as records:
                outcome = parallel.measured(_loaded(payload), pickle.loads(task), name)
        except Exception as error:
            outcome = parallel.Outcome(name, error=_picklable(error), trace=f"{here}:\n{traceback.format_exc()}")
        outcome.records = records
        return outcome


@functools.lru_cache(maxsize=4)
def _loaded(payload: bytes) -> Callable:
    return pickle.loads(payload)


@functools.lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """Versions on which results or pickles depend."""
    import numpy

    return {
        "dials_diffuse": __version__,
        "DIALS": dials_version(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": numpy.__version__,
    }


def _picklable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _collected_records() -> Iterator[list[tuple[str, int, str]]]:
    """Logger, level and text of what goes to the log meanwhile."""
    records: list[tuple[str, int, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> Any:
            records.append((record.name, record.levelno, record.getMessage()))

    ours, collector = logging.getLogger("dials.diffuse"), Collector(logging.INFO)
    ours.addHandler(collector)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield records
    finally:
        ours.removeHandler(collector)
