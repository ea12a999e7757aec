"""From images to the map on workers of Dask, in partitions: the map of one process with its data in memory."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from dask_cluster import dask_program
from dials.array_family import flex
from dials_session import working_directory
from same_map import assert_same_map
from small_session import make_session

from dials_diffuse import dask_map
from dials_diffuse.algorithms.extraction import tasks
from dials_diffuse.algorithms.scaling import regroup

#: What is run: program, input, output.
STEPS = (
    ("extract", "", "extracted"),
    ("correct", "extracted", "corrected"),
    ("scale", "corrected", "scaled"),
    ("merge", "scaled", "merged"),
)
OPTIONS = {
    "extract": ("grid.ndiv=2,2,2", "d_min=1.5", "virtual_pixels=False"),
    "scale": ("scaling.terms=scale,offset",),
}


def run_all(folder: Path, sweeps: Path, form: str, *mp: str, before: Callable[[str], None] = lambda name: None) -> None:
    """Fill a folder with what the programs make of two sweeps, observations in ``form``."""
    folder.mkdir()
    refined = [str(sweeps / f"refined_{i}.{ending}") for i in (1, 2) for ending in ("expt", "refl")]
    with working_directory(folder):
        for name, given, made in STEPS:
            before(name)
            files = [f"{given}.expt", f"{given}.{form}"] if given else refined
            output = "refl" if name == "merge" else form
            run = importlib.import_module(f"dials_diffuse.command_line.diffuse_{name}").run
            run([*files, f"output.reflections={made}.{output}", *OPTIONS.get(name, ()), *mp])


@pytest.fixture(scope="session")
def sweeps(make_once) -> Path:
    """Two sweeps of simulated images and their models."""
    return make_once("small-session", make_session)


@pytest.fixture(scope="session")
def in_memory(make_once, sweeps) -> Path:
    """By one process."""
    return make_once("in-memory", lambda folder: run_all(folder / "run", sweeps, "refl", "nproc=1")) / "run"


@pytest.fixture(autouse=True)
def small_partitions(monkeypatch):
    """As many partitions as a large data set has."""
    monkeypatch.setattr(tasks, "GOOD_SIZE", 2_500)
    monkeypatch.setattr(regroup, "GOOD_SIZE", 2_500)
    yield
    dask_map.close()


def test_two_workers(in_memory, sweeps, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dials.diffuse"):
        run_all(tmp_path / "dask", sweeps, "parts", "mp.method=dask", "mp.nproc=2")
    assert len(list((tmp_path / "dask/extracted.parts").glob("*.h5"))) > 8
    assert len(list((tmp_path / "dask/scaled.parts").glob("*.h5"))) > 8
    assert_same_map(in_memory, tmp_path / "dask")
    run_all(tmp_path / "one", sweeps, "parts", "mp.nproc=1")  # bit by bit
    for made in ("extracted", "corrected", "scaled"):
        parts = [sorted((tmp_path / folder / f"{made}.parts").glob("*.h5")) for folder in ("dask", "one")]
        assert len(parts[0]) == len(parts[1])
        assert all(one.read_bytes() == two.read_bytes() for one, two in zip(*parts))
    merged = [tmp_path / folder / "merged.refl" for folder in ("dask", "one")]
    assert merged[0].read_bytes() == merged[1].read_bytes()


def test_workers_killed_at_half_time(in_memory, sweeps, tmp_path, monkeypatch, capfd):
    """A scheduler and two workers over TCP; one of them is killed amid extraction, another amid scaling."""
    monkeypatch.chdir(tmp_path)
    file = ("--scheduler-file", "scheduler.json", "--host", "127.0.0.1")
    folder = tmp_path / "dask"
    killed = []

    def kill(worker: psutil.Process, when: Callable[[], bool]) -> None:
        while not when():
            time.sleep(0.002)
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()
        killed.append(worker.pid)

    def before(name: str) -> None:
        half_done = {
            "extract": lambda: len(list((folder / ".extracted.parts.work/parts").glob("*.h5"))) > 3,
            "scale": lambda: (folder / ".scaled.parts.work/regrouped/manifest.json").exists(),
        }
        if name in half_done:
            victim = psutil.Process(workers.pop().pid)
            threads.append(threading.Thread(target=kill, args=(victim, half_done[name]), daemon=True))
            threads[-1].start()

    threads: list[threading.Thread] = []
    with dask_program("scheduler", *file, "--port", "0"):
        while not os.path.exists("scheduler.json"):
            time.sleep(0.05)
        one = ("worker", *file, "--nthreads", "1", "--no-nanny")
        with dask_program(*one) as first, dask_program(*one) as second, dask_program(*one):
            workers = [first, second]
            run_all(folder, sweeps, "parts", "mp.method=dask", f"mp.scheduler={tmp_path}/scheduler.json", before=before)
        for thread in threads:
            thread.join(timeout=1)
    assert len(killed) == 2
    assert_same_map(in_memory, folder)


def test_scaling_goes_on_from_regrouped_partitions(in_memory, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    shutil.copy(in_memory / "corrected.expt", ".")
    shutil.copy(in_memory / "corrected.refl", ".")
    from dials_diffuse.algorithms.scaling import scale
    from dials_diffuse.command_line import diffuse_scale

    command = ["corrected.expt", "corrected.refl", "output.reflections=scaled.parts", "mp.method=dask", "nproc=2"]
    command += OPTIONS["scale"]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(scale, "find_bad_frames", None)
        with pytest.raises(TypeError):
            diffuse_scale.run(command)
    assert not Path("scaled.parts").exists() and not Path("scaled.expt").exists()
    regrouped = {path: path.stat().st_mtime_ns for path in Path(".scaled.parts.work/regrouped").glob("*.h5")}
    assert len(regrouped) > 8
    monkeypatch.setattr(regroup, "_sort", None)  # it is not called again
    diffuse_scale.run(command)
    assert not Path(".scaled.parts.work").exists()
    compare_scales(in_memory / "scaled.refl", Path("scaled.parts"))


def compare_scales(refl: Path, parts: Path) -> None:
    from dials_diffuse.partitioned_table import PartitionedTable

    one, two = flex.reflection_table.from_file(str(refl)), PartitionedTable(parts).whole_table()
    assert len(one) == len(two)
    for name in ("inverse_scale_factor", "offset.sum.value"):
        np.testing.assert_allclose(np.sort(np.array(one[name])), np.sort(np.array(two[name])), rtol=1e-9, atol=1e-9)
