"""Extraction and correction into partitions on workers of Dask: two processes on loopback TCP."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from partition_runs import correct, extract, finished, wait_until
from small_session import copy_session, make_session

from dials_diffuse.algorithms.masking.mask_file import write_mask


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def on_dask(cluster):
    return ["mp.method=dask", f"mp.scheduler={cluster.scheduler_address}"]


@pytest.fixture
def folder(make_once, tmp_path, monkeypatch):
    copy_session(make_once("small-session", make_session), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_on_workers_of_dask(folder, on_dask):
    expected = extract("one.parts")
    assert extract("two.parts", *on_dask).parts == expected.parts
    corrected = correct("one.parts", "c1.parts")
    assert correct("two.parts", "c2.parts", *on_dask).parts == corrected.parts


def test_a_killed_worker(folder, cluster, on_dask):
    expected = extract("expected.parts")
    killed = []

    def kill_a_worker():
        wait_until(finished)
        pid = next(iter(cluster.workers.values())).pid
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    table = extract("extracted.parts", *on_dask)
    thread.join()
    assert killed and table.parts == expected.parts


def test_a_bad_image_on_one_machine(folder, on_dask):
    image = folder / "images" / "sweep_2_0004.cbf"
    good = image.resolve()
    image.unlink()
    image.write_bytes(good.read_bytes()[:3000])
    write_mask((np.ones((195, 487), dtype=bool),), "good.mask")
    masks = ["pixel_mask=good.mask"]  # or the images would be looked at before
    with pytest.raises(SystemExit, match=r"sweep_2_0004\.cbf .*\(On .*\.\) \d+ finished partitions of .* are kept"):
        extract("extracted.parts", *on_dask, *masks)
    image.unlink()
    image.symlink_to(good)
    assert len(extract("extracted.parts", "nproc=1", *masks).parts) == 12
    assert "Going on from" in Path("dials.diffuse_extract.log").read_text()
