"""dials.diffuse_process on simulated images, with real DIALS: from images, from DIALS's files, and again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dials.array_family import flex
from dials_session import dials
from dxtbx.model.experiment_list import ExperimentList
from processed import ARGS, IMAGES, OURS, files_of_sweep, make_processed
from same_map import assert_same_map
from small_session import program

from dials_diffuse.map_file import read_map

pytestmark = pytest.mark.xdist_group("process")


@pytest.fixture(scope="module")
def made(make_once) -> Path:
    """A folder with images, processed to a map in one call."""
    return make_once("processed", make_processed)


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    """A copy of it to work on: the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps() -> dict:
    return json.loads(Path("process.json").read_text())["steps"]


def ran(log="dials.diffuse_process.log") -> list[str]:
    """The steps that were not kept, by the log of the last run."""
    lines = [line.split() for line in Path(log).read_text().splitlines()]
    return sorted(line[0] for line in lines if len(line) == 3 and "/" in line[0] and line[2] == "s")


def test_from_images_to_a_map(made):
    content = json.loads((made / "process.json").read_text())
    for name in ("sweep_1", "sweep_2"):
        found = content["sweeps"][name]
        assert found["left_out"] is None
        assert found["indexed"] > 0.95 * found["spots"] > 500
        assert max(found["rmsd"]) < 0.1
        assert found["cells"][0][:3] == pytest.approx([20, 22, 24], abs=0.05)
        assert 0.1 < found["mosaicity"] < 1
        assert found["operator"] == "h,k,l"
        for program_name in ("import", "find_spots", "index", "refine", "integrate", "diffuse_extract"):
            assert content["steps"][f"{name}/{program_name}"]["seconds"] > 0
            assert (made / name / f"dials.{program_name}.log").is_file()
    command = content["steps"]["sweep_1/index"]["command"]
    assert "unit_cell=20" in command and command.endswith("n_macro_cycles=1")
    assert "fft1d" in (made / "sweep_1" / "dials.index.log").read_text()  # from the PHIL file
    assert not list(made.rglob("*.out"))
    merged = read_map(made / "merged.nxs")
    assert np.isfinite(merged.intensity).mean() > 0.15
    programs = [record.program for record in merged.history]
    assert programs == [
        f"dials.diffuse_{step}" for step in ("extract", "correct", "extract", "correct", "scale", "merge")
    ]
    by_background = json.loads((made / "sweep_2" / "corrected.json").read_text())["experiments"][0]["background"]
    assert by_background > 0


def test_again_does_nothing_and_a_parameter_only_what_depends_on_it(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.refl")}
    program("process")(ARGS)
    assert ran() == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.refl")} == before
    program("process")([*ARGS, "merging.n_shells=3"])
    assert ran() == ["./diffuse_merge"]
    (folder / "sweep_2" / "corrected.json").unlink()
    program("process")([*ARGS, "merging.n_shells=3"])
    assert ran()[-1] == "sweep_2/diffuse_correct"
    assert "sweep_1/diffuse_correct" not in ran()


def test_in_partitions(made, folder):
    """DIALS's steps are kept."""
    program("process")([*ARGS, "output.partitioned=True"])
    assert ran() == sorted(
        ["./diffuse_merge", "./diffuse_scale"]
        + [f"sweep_{sweep}/diffuse_{step}" for sweep in (1, 2) for step in ("correct", "extract")]
    )
    assert len(list((folder / "scaled.parts").glob("*.h5"))) > 0
    assert_same_map(made, folder)


def test_a_corrupt_image(folder, caplog):
    """The other sweep goes on; what is left out and why is said, and the program succeeds."""
    image = Path(IMAGES[40])
    image.write_bytes(image.read_bytes()[:20_000])
    program("process")(ARGS)
    assert "sweep_2 is left out: dials.find_spots: " in caplog.text
    assert "(see sweep_2/dials.find_spots.out)" in caplog.text
    assert not [step for step in ran() if step.startswith("sweep_1")]
    content = json.loads(Path("process.json").read_text())
    assert content["sweeps"]["sweep_1"]["left_out"] is None
    assert content["sweeps"]["sweep_2"]["left_out"].startswith("dials.find_spots: ")
    assert len(ExperimentList.from_file("scaled.expt", check_format=False)) == 1


def test_from_files_in_different_states_and_settings(made, tmp_path, monkeypatch):
    """Sweeps in different states, one with its axes called otherwise, give the map that the images give."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "images", "images")
    dials(tmp_path, "reindex", *files_of_sweep(made, "sweep_2", "integrated"), "change_of_basis_op=l,h,k")
    program("process")([*files_of_sweep(made, "sweep_1", "indexed"), "reindexed.refl", "reindexed.expt", *OURS])
    assert {"sweep_1/refine", "sweep_1/integrate", "sweep_2/reindex", "sweep_2/diffuse_extract"} <= set(ran())
    assert not {"sweep_1/index", "sweep_1/reindex", "sweep_2/refine", "sweep_2/integrate"} & set(ran())
    found = json.loads(Path("process.json").read_text())["sweeps"]["sweep_2"]
    assert found["operator"] == "k,l,h"
    assert found["cells"][0][:3] == pytest.approx([20, 22, 24], abs=0.05)
    maps = [read_map(path / "merged.nxs").intensity for path in (tmp_path, made)]
    both = np.isfinite(maps[0]) & np.isfinite(maps[1])
    assert both.sum() > 0.9 * np.isfinite(maps[1]).sum()
    assert np.corrcoef(maps[0][both], maps[1][both])[0, 1] > 0.98


def test_parameters_that_dials_does_not_know(made, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "images", "images")
    with pytest.raises(SystemExit, match="Sorry: There is no map"):
        program("process")([*files_of_sweep(made, "sweep_1", "indexed"), *OURS, "dials.refine.no_such=3"])
    assert "sweep_1 is left out: dials.refine: Unknown command line parameter definition: no_such = 3" in caplog.text
    with pytest.raises(SystemExit, match="Sorry: dials.scale is not run"):
        program("process")([*files_of_sweep(made, "sweep_1", "indexed"), *OURS, "dials.scale.no_such=3"])


def test_a_model_that_does_not_fit(made, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    expt, refl = files_of_sweep(made, "sweep_2", "refined")
    table = flex.reflection_table.from_file(refl)
    table["xyzcal.px"] = table["xyzcal.px"] + flex.vec3_double(len(table), (4, 0, 0))
    table.as_file("bad.refl")
    with pytest.raises(SystemExit, match="Sorry: There is no map"):
        program("process")([expt, "bad.refl"])
    assert "sweep_1 is left out: its spots are 4.0, 0.0 pixels (RMSD in x, y)" in caplog.text


def test_nothing_of_others_is_overwritten(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "sweep_1", "sweep_1")
    files = files_of_sweep(Path(), "sweep_1", "refined")
    with pytest.raises(SystemExit, match="sweep_1/refined.expt would be overwritten: choose another output.prefix"):
        program("process")(files)
    with pytest.raises(
        SystemExit, match=r"sweep_1/corrected.expt is not from dials.diffuse_process \(process.json does"
    ):
        program("process")(files_of_sweep(made, "sweep_2", "refined"))
    assert Path(files[0]).read_bytes() == (made / files[0]).read_bytes()


def start_and_stop(folder, args, number) -> int:
    """Start the program in a process of its own, send a signal while it extracts sweep_1; its exit status."""
    code = "from dials_diffuse.command_line.diffuse_process import run; run()"
    process = subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: "diffuse_extract" in programs_in(folder, "sweep_1"))
    process.send_signal(number)
    process.communicate(timeout=20)
    wait_for(lambda: not programs_in(folder))  # no process is left over
    return process.returncode


def test_stopped_or_killed_and_started_again(folder):
    """What was done is kept; what was begun is done anew."""
    args = [*ARGS, "mask.d_max=15"]  # masks and all that follows are new
    assert start_and_stop(folder, args, signal.SIGTERM) == 1
    assert not list(folder.rglob("*.part*"))
    assert "sweep_1/diffuse_mask" in steps() and "sweep_1/diffuse_extract" not in steps()
    assert start_and_stop(folder, args, signal.SIGKILL) == -signal.SIGKILL
    program("process")(args)
    assert [step for step in ran() if step.startswith("sweep_1")] == [
        "sweep_1/diffuse_correct",
        "sweep_1/diffuse_extract",
    ]
    assert len(ExperimentList.from_file("scaled.expt", check_format=False)) == 2


def programs_in(folder: Path, sweep: str = "sweep_") -> list[str]:
    """Names of the processes that work in the sweeps' folders."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd").startswith(str(folder.resolve() / sweep)):
                found.append((path / "comm").read_text().strip())
        except OSError:  # it is gone, or another user's
            continue
    return found


def wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)
