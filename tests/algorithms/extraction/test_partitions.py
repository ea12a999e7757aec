"""Extraction and correction into partitions: as into single tables, however the work is divided and interrupted."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dials.array_family import flex
from partition_runs import INPUTS, WORK, correct, extract, finished, run, wait_until
from small_session import copy_session, make_session, program

from dials_diffuse.algorithms.extraction.tasks import pieces_of_work
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.parameters import parameters
from dials_diffuse.partitioned_table import PartitionedTable
from dials_diffuse.table_file import columns_of


@pytest.fixture
def folder(make_once, tmp_path, monkeypatch):
    copy_session(make_once("small-session", make_session), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(parts: PartitionedTable, table: flex.reflection_table) -> bool:
    """Whether partitions hold the rows of a table in their order, bit by bit, and both in single precision."""
    whole, expected = columns_of(parts.whole_table()), columns_of(table)
    exact = all((flex.double(values.ravel()) == flex.double(values.ravel())) for values in expected.values())
    return exact and list(whole) == list(expected) and all(np.array_equal(whole[n], expected[n]) for n in expected)


def manifest(name):
    return json.loads(Path(name, "manifest.json").read_text())


def command(*args):
    """dials.diffuse_extract in a process of its own."""
    call = "from dials_diffuse.command_line.diffuse_extract import run; run()"
    return [sys.executable, "-c", call, *INPUTS, "output.reflections=extracted.parts", *args]


# The same numbers


def test_partitions_hold_what_single_tables_hold(folder):
    table, one = extract("one.refl"), extract("one.parts")
    assert same(one, table) and len(one.parts) == 12
    two = extract("two.parts", "nproc=2")
    assert two.parts == one.parts and manifest("two.parts") == manifest("one.parts")
    assert all(np.unique(one.read(i)["id"]).size == 1 for i in range(12))  # of one sweep each

    table, parts = correct("one.refl", "corrected.refl"), correct("one.parts", "c1.parts")
    assert same(parts, table)
    assert correct("one.parts/", "c2.parts", "nproc=2").parts == parts.parts
    assert same(correct("one.refl", "c3.parts"), table)  # cut up on writing
    correct("one.parts", "c4.refl", "nproc=2")  # put together on writing
    ours, theirs = (Path(name).read_bytes() for name in ("c4.refl", "corrected.refl"))
    assert (ours[:29], ours[30:]) == (theirs[:29], theirs[30:])  # between them: see test_table_file.py
    reports = [json.loads(Path(f"{name}.json").read_text()) for name in ("corrected", "c1", "c2", "c3", "c4")]
    assert all(report["experiments"] == reports[0]["experiments"] for report in reports)
    for one, other in itertools.product(reports[:1], reports[1:]):
        for name, values in one["corrections"].items():
            assert other["corrections"][name] == pytest.approx(values, rel=1e-12)
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_several_data_sets_in_partitions_are_one(folder):
    extract("both.parts")
    for i in (1, 2):
        run("extract", [f"refined_{i}.expt", f"refined_{i}.refl", *INPUTS[4:]], f"e{i}.parts", "nproc=1")
        run("extract", [f"refined_{i}.expt", f"refined_{i}.refl", *INPUTS[4:]], f"e{i}.refl", "nproc=1")
    files = ["e2.parts", "e1.expt", "e1.parts", "e2.expt"]
    joined, both = run("correct", files, "joined.parts"), correct("both.parts", "corrected.parts")
    assert joined.identifiers == both.identifiers and joined.rows == both.rows
    assert same(joined, run("correct", [name.replace("parts", "refl") for name in files], "joined.refl"))
    with pytest.raises(SystemExit, match="is in partitions and other observations are single tables"):
        program("correct")(["e1.expt", "e1.refl", "e2.expt", "e2.parts"])


# Interruptions


def test_a_killed_process_and_a_second_start(folder):
    """One of two processes is killed amid the work; the same command does the rest, and a damaged partition again."""
    expected = extract("expected.parts")
    child = subprocess.Popen(command("nproc=2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill_a_process():
        wait_until(lambda: finished() or child.poll() is not None)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        own = Path(f"/proc/{child.pid}/cmdline").read_bytes()  # Python's resource tracker has another
        forks = [pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == own]
        os.kill(int(forks[0]), signal.SIGKILL)

    kill_a_process()
    _, said = child.communicate()
    assert child.returncode == 1 and said.startswith("Sorry: A process died")
    done = finished()
    assert f"{len(done)} finished partitions of {folder}/extracted.parts are kept: the same command goes on" in said
    assert 0 < len(done) < 12 and not Path("extracted.parts").exists()
    done[0].write_bytes(done[0].read_bytes()[:-1000])  # as a crash of the machine may leave it
    ages = {path.name: path.stat().st_mtime_ns for path in done}

    assert extract().parts == expected.parts
    log = Path("dials.diffuse_extract.log").read_text()
    assert f"Going on from {len(done)} partitions" in log
    pixels_of_frame = 487 * 195
    read = round(float(log.rpartition("observations from ")[2].split()[0]) / pixels_of_frame)
    assert read == 12 - len(done) + 1
    kept = [name for name, age in ages.items() if (folder / "extracted.parts" / name).stat().st_mtime_ns == age]
    assert sorted(kept) == [path.name for path in done[1:]]
    assert not WORK.exists()


def test_other_parameters_start_anew(folder):
    extract("expected.parts", "nproc=1", "extract.batch_width=2")
    WORK.joinpath("parts").mkdir(parents=True)
    for path in Path("expected.parts").glob("*.h5"):
        (WORK / "parts" / path.name).write_bytes(path.read_bytes())
    (WORK / "fingerprint").write_text("of something else")
    assert len(extract().parts) == 12
    assert "An earlier run with other inputs or parameters left 6" in Path("dials.diffuse_extract.log").read_text()


def test_a_full_disk(folder):
    one = extract("one.parts", "nproc=1", "extract.batch_width=6")
    inputs = ["one.expt", "one.parts", "nproc=1"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(part.bytes for part in one.parts), limits[1]))
    try:
        with pytest.raises(SystemExit, match=r"Cannot write .*\.h5: .* 2 finished partitions of .* are kept"):
            run("correct", inputs, "two.parts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not Path("two.parts").exists() and not Path("two.expt").exists()
    assert run("correct", inputs, "two.parts").rows == one.rows
    assert "Going on from 2 partitions" in Path("dials.diffuse_correct.log").read_text()


# Names


def test_names_on_the_command_line(folder, tmp_path):
    extract("one.parts")
    with pytest.raises(SystemExit, match=r"one\.parts holds observations, not Bragg reflections"):
        program("mask")(["refined_1.expt", "one.parts"])
    with pytest.raises(SystemExit, match="is an input, too, and would be overwritten"):
        program("correct")(["one.expt", "one.parts/", "output.reflections=one.parts"])
    Path("mine.parts").mkdir()
    Path("mine.parts/letter.txt").touch()
    with pytest.raises(SystemExit, match=r"mine\.parts exists and is no table of observations"):
        program("correct")(["one.expt", "one.parts", "output.reflections=mine.parts"])
    with pytest.raises(SystemExit, match=r"mine\.parts is unfinished or not a table"):
        program("correct")(["one.expt", "mine.parts"])
    with pytest.raises(SystemExit, match=r"none\.parts does not exist"):
        program("correct")(["one.expt", "none.parts"])
    with pytest.raises(SystemExit, match=r"None of .*one\.parts belongs to extracted\.expt"):
        program("correct")(["extracted.expt", "one.parts"])


def test_too_many_observations_for_a_refl_file(folder, monkeypatch):
    monkeypatch.setattr("dials_diffuse.table_file.MOST_BYTES", 100_000)
    program("extract")([*INPUTS, "output.reflections=many.refl", "nproc=1"])
    assert not Path("many.refl").exists()
    assert PartitionedTable("many.parts").rows > 6000
    assert "many.parts takes its place" in Path("dials.diffuse_extract.log").read_text()


def test_pieces_of_work_are_runs_of_batches_of_a_sweep(folder):
    experiments = dict(enumerate(Dataset.from_files("extracted.expt", "extracted.refl").experiments))
    experiments[1] = experiments[0]
    grid = GlobalGrid.from_experiments(list(experiments.values()), parameters("extract", "d_min=1.5"))
    pieces = pieces_of_work(experiments, grid, 0.02)
    batches = [batch for piece in pieces for batch in piece]
    assert batches == sorted(batches) and len(batches) == 12
    assert [(b.start, b.stop) for b in batches] == 2 * [(i, i + 1) for i in range(6)]
    assert all(len({batch.experiment for batch in piece}) == 1 for piece in pieces)
