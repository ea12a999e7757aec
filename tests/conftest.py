"""Fixtures that many tests share. Whatever is slow to make is made once a test session, also under pytest-xdist."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dials_session import TWO_SWEEPS, dials, index_and_refine, working_directory

import dials_diffuse  # noqa: F401, I001  sets LIBTBX_BUILD before anything of cctbx is imported

SNASE = Path(__file__).resolve().parents[2] / "shared" / "data" / "snase"


#: Where the longest tests are, the longest first: they begin first, or one process would wait for the other at the end.
SLOW = ("test_full_model.py", "test_main_job.py", "test_any_experiment.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``make_once(name, make)``: the folder that ``make(folder)`` filled, by whichever test process came first."""
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder = root / f"made-{name}"
        with open(root / f"made-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / ".complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (folder / ".complete").touch()
        return folder

    return once


@pytest.fixture
def snase(tmp_path, monkeypatch) -> Path:
    """A folder with the real experiment: refined.expt, refined.refl, images; the working directory of the test."""
    if not SNASE.is_dir():
        pytest.skip("the real images in ../shared/data/snase are not here")
    for name in ("refined.expt", "refined.refl"):
        shutil.copyfile(SNASE / name, tmp_path / name)
    (tmp_path / "images").symlink_to(SNASE / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def two_sweeps(make_once) -> Path:
    """Simulated at 1 photon a pixel, b and background varying, and refined by DIALS.

    Holds truth.json, images, sweep_1/refined.*, sweep_2/refined.*, background/imported.expt.
    """

    def make(folder: Path) -> None:
        from dials_diffuse.command_line.diffuse_simulate import run

        with working_directory(folder):
            run(["photons=1", *TWO_SWEEPS])
        for sweep in ("sweep_1", "sweep_2"):
            index_and_refine(folder / sweep, f"../images/{sweep}_####.cbf")
        (folder / "background").mkdir()
        dials(folder / "background", "import", "template=../images/background_####.cbf")

    return make_once("two-sweeps", make)
