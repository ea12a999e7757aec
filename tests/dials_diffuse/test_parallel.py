from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import parallel_work as work
import psutil
import pytest
from dask_cluster import HELPERS, cluster
from dials.util import Sorry

from dials_diffuse import dask_map, parallel
from dials_diffuse.parallel import parallel_map
from dials_diffuse.parameters import parameters


def mp_of(*assignments: str):
    return parameters("extract", "nproc=2", *assignments).mp


@pytest.fixture(scope="module")
def local():
    """The scope mp for a cluster on this machine, which tests have in common."""
    yield mp_of("method=dask")
    dask_map.close()


@pytest.fixture
def connection():
    """Connections that a test makes are closed."""
    dask_map.close()
    yield
    dask_map.close()


def run(function, mp, tasks=range(12)):
    return list(parallel_map(function, tasks, mp, "Working"))


def test_any_way_gives_the_same_in_the_same_order(local):
    expected = [(task, 1 / (task + 3)) for task in range(12)]
    for mp in (1, 2, mp_of(), mp_of("nproc=1"), local):
        assert run(work.slow_first, mp) == expected
    offset = 5
    for mp in (2, local):
        assert run(lambda task: task + offset, mp) == list(range(5, 17))  # pickled by value
        assert list(parallel_map(len, ["key", ("a", 1), (len, [1])], mp, "As they are")) == [3, 2, 2]
        assert run(work.square, mp, []) == []


def test_work_is_shared_out_once(local):
    for mp in (2, local):
        assert len(set(run(work.process_of, mp)) - {os.getpid()}) == 2
        assert all(len(processes) == 1 for processes in run(work.nested, mp, range(4)))


def test_few_tasks_wait_at_a_time(local):
    for mp in (2, local):
        asked_for = []
        results = parallel_map(work.square, Recorded(asked_for), mp, "Working")
        assert [next(results), next(results)] == [0, 1]
        assert len(asked_for) < 15
        results.close()
    held = dask_map._connection.cluster.scheduler.tasks
    deadline = time.monotonic() + 5
    while held and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not held  # nothing is kept for longer than needed


class Recorded(list):
    """A thousand tasks that tell when they are asked for."""

    def __init__(self, asked_for: list[int]) -> None:
        super().__init__(range(1000))
        self.asked_for = asked_for

    def __iter__(self):
        for task in super().__iter__():
            self.asked_for.append(task)
            yield task


def test_user_errors_travel(local):
    for mp in (1, 2, local):
        with pytest.raises(Sorry, match="^Task 3 is wrong: give another.$"):
            run(work.fail, mp)


def test_other_errors_tell_where_they_were(local):
    for mp in (2, local):
        with pytest.raises(ZeroDivisionError) as info:
            run(work.divide, mp)
        assert "in divide\n    return 1 / (3 - task)" in str(info.value.__cause__)


def test_log_of_workers(local, caplog):
    with caplog.at_level(logging.INFO, "dials.diffuse"):
        run(work.tell, local, range(4))
    told = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == work.logger.name]
    texts = [re.sub(r"^worker [01]: ", "", text) for _, text in told]
    assert texts == ["task 0", "task 1", "task 2", "dark", "task 3"]
    assert [level for level, _ in told].count(logging.WARNING) == 1
    assert all(text.startswith("worker ") for _, text in told)


def test_log_of_forks_is_written_once(tmp_path, capsys):
    log = tmp_path / "log"
    handler = logging.FileHandler(log)
    logger = logging.getLogger("dials.diffuse")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        run(work.tell, 2, range(4))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert sorted(log.read_text().split("\n")) == ["", "dark", "task 0", "task 1", "task 2", "task 3"]


def test_summary(monkeypatch):
    monkeypatch.setattr(parallel, "_shares", {})
    run(work.square, 1)
    assert parallel.summary() == ""
    run(work.process_of, 2)
    run(work.process_of, 2)
    rows = [line.split("|")[1:-1] for line in parallel.summary().splitlines()[3:-1]]
    names = [(step.strip(), worker.strip()) for step, worker, *_ in rows]
    assert names == [("Working", "process 1"), ("Working", "process 2")]
    assert sum(int(row[2]) for row in rows) == 24
    assert 1.1 < sum(float(row[3]) for row in rows) < 8
    assert all(20 < float(row[4]) < 5000 for row in rows)
    monkeypatch.setattr(parallel, "MANY", 1)
    (line,) = parallel.summary().splitlines()[3:-1]
    assert "2 workers: min / median / max" in line


def test_a_killed_worker_is_replaced(tmp_path, local, capfd):
    assert run(partial(work.die_once, tmp_path), local) == [task * task for task in range(12)]
    assert (tmp_path / "died").exists()
    assert capfd.readouterr() == ("", "")


def test_a_worker_killed_from_outside(tmp_path, local, capfd):
    """Its finished results, which it still holds, are made again, too."""
    go = tmp_path / "go"

    def kill_one():
        while not (tmp_path / "began-0").exists():
            time.sleep(0.01)
        os.kill(next(iter(dask_map._connection.cluster.workers.values())).pid, signal.SIGKILL)
        time.sleep(0.5)
        go.touch()

    thread = threading.Thread(target=kill_one)
    thread.start()
    assert run(partial(work.wait_for, go), local) == list(range(12))
    thread.join()
    assert capfd.readouterr() == ("", "")


def test_work_that_kills_every_worker(tmp_path, monkeypatch, connection, capfd):
    monkeypatch.chdir(tmp_path)
    with cluster("--nworkers", "2", "--nthreads", "1", "--memory-limit", "0"):
        with pytest.raises(
            Sorry, match=r"died.*want of memory.*127.0.0.1.*fewer on a machine, a larger --memory-limit"
        ):
            run(work.die, mp_of("method=dask", "scheduler=scheduler.json"))
    assert capfd.readouterr() == ("", "")


def test_somebodys_cluster(tmp_path, monkeypatch, connection, caplog, capfd):
    """Workers elsewhere, with threads; relative names are those of the program's folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "go").touch()
    monkeypatch.chdir(tmp_path)
    with cluster("--nworkers", "1", "--nthreads", "3", "--name", "node") as scheduler:
        monkeypatch.chdir(tmp_path / "here")
        mp = mp_of("method=dask", "scheduler=../scheduler.json")
        with caplog.at_level(logging.INFO, "dials.diffuse"):
            assert run(partial(work.wait_for, Path("go")), mp) == list(range(12))
            run(work.tell, mp, range(2))
        assert "several threads" in caplog.text and "node: task 1" in caplog.text
        go = tmp_path / "never"
        results = parallel_map(partial(work.wait_for, go), range(12), mp, "Working")
        threading.Timer(0.5, scheduler.kill).start()
        began = time.monotonic()
        with pytest.raises(Sorry, match=r"Working: The Dask scheduler at tcp://127.0.0.1:\d+ was lost.*same command"):
            next(results)
        assert time.monotonic() - began < 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9 .*dask scheduler"),
        ("tcp://no.such.host.invalid:8786", "No Dask scheduler answers at tcp://no.such.host.invalid:8786"),
        ("what://ever", "No Dask scheduler answers at what://ever"),
        ("missing.json", "mp.scheduler=missing.json is not a scheduler file.*--scheduler-file missing.json"),
    ],
)
def test_no_scheduler_there(scheduler, message, connection, monkeypatch, capfd):
    monkeypatch.setattr(dask_map, "PATIENCE", 1)
    began = time.monotonic()
    with pytest.raises(Sorry, match=message):
        run(work.square, mp_of("method=dask", f"scheduler={scheduler}"))
    assert time.monotonic() - began < 4
    assert capfd.readouterr() == ("", "")


def test_other_versions(local, monkeypatch):
    monkeypatch.setattr(
        dask_map, "_versions", lambda: dict.fromkeys(("dials_diffuse", "DIALS", "Python", "numpy"), "0")
    )
    with pytest.raises(Sorry, match=r"worker \d on .* has dials_diffuse .*, this program 0: install the same"):
        run(work.square, local)


def test_a_folder_that_workers_do_not_see(tmp_path, local, monkeypatch):
    run(work.square, local)  # the workers start in a folder that there is
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "elsewhere"))
    with pytest.raises(Sorry, match=r"has no folder .*elsewhere.*share the file system"):
        run(work.square, local)


@pytest.mark.parametrize(("number", "to"), [("SIGINT", "all"), ("SIGTERM", "one"), ("SIGKILL", "one")])
def test_an_interrupted_program_leaves_nothing(tmp_path, number, to):
    script = tmp_path / "script.py"
    script.write_text(
        f"from parallel_work import program\nif __name__ == '__main__': program({str(tmp_path / 'go')!r})"
    )
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])])
    process = subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "began-0").exists() and process.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 1
    if to == "all":
        os.killpg(process.pid, getattr(signal, number))
    else:
        process.send_signal(getattr(signal, number))
    output, _ = process.communicate(timeout=30)
    if number != "SIGKILL":
        assert output.strip() == f"Stopped by {number}: the outputs are as they were before."
        assert not list(tmp_path.glob("dials_diffuse.dask.*"))
    assert psutil.wait_procs(children, timeout=20)[1] == []
