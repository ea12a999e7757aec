"""What it takes to write a map of 400 x 400 x 400 voxels in every format: python benchmarks/bench_maps.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap

GRID = {"unit_cell": (80, 80, 80, 90, 90, 90), "space_group": "P 2ac 2ab", "ndiv": (4, 4, 4), "d_min": 1.6}
CASES = {
    "nexus": [],
    "ccp4": [],
    "yell": [],
    "npz": [],
    "mtz": [],
    "mtz, expanded": ["expand=True"],
    "text": [],
    "text, expanded": ["expand=True"],
    "ccp4, ndiv=1,1,1": ["ndiv=1,1,1"],
    "ccp4, d_min=2": ["range.d_min=2"],
}


def make_map(filename: Path) -> None:
    """A sphere of noise, Laue group mmm, 401 x 401 x 401 voxels."""
    grid = GlobalGrid.from_dict(GRID)
    n = np.arange(-200, 201)
    rng = np.random.default_rng(0)
    eighth = rng.gamma(100, 1, (201, 201, 201)).astype(np.float32)
    axis = np.abs(n)
    intensity = eighth[axis][:, axis][:, :, axis]
    outside = (n**2)[:, None, None] + (n**2)[:, None] + n**2 > 200**2
    intensity[outside] = np.nan
    observations = np.where(outside, 0, 20).astype(np.int32)
    fields = {
        "intensity": intensity,
        "intensity_errors": np.sqrt(intensity),
        "observations": observations,
        "pixels": observations.astype(np.int64) * 50,
        "half_1": intensity * np.float32(1.1),
        "half_1_errors": np.sqrt(2 * intensity),
        "half_2": intensity * np.float32(0.9),
        "half_2_errors": np.sqrt(2 * intensity),
    }
    DiffuseMap(grid, n / 4, n / 4, n / 4, fields, np.ones(1), []).write(filename)


def export(options: list[str]) -> str:
    """Run the program; wall and CPU time, peak memory and the size of what it wrote, as cells of a table."""
    start = time.time()
    program = str(Path(sys.executable).with_name("dials.diffuse_export"))
    child = subprocess.Popen([program, "merged.nxs", "output.map=out", *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{options}: failed")
    seconds = f"{time.time() - start:.1f} s | {usage.ru_utime + usage.ru_stime:.1f} s"
    return f"{seconds} | {usage.ru_maxrss / 1e6:.1f} GB | {Path('out').stat().st_size / 1e6:.0f} MB"


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:  # in a process of its own: the peak memory of a child begins with its parent's
        make_map(Path("merged.nxs"))
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).resolve()
        os.chdir(folder)
        subprocess.run([sys.executable, script, "make"], check=True)
        print("| format | time | CPU time | peak memory | file |\n| --- | --- | --- | --- | --- |")
        for name, options in CASES.items():
            format = name.partition(",")[0]
            print(f"| {name} | {export([f'format={format}', *options])} |", flush=True)
