"""A large map, and what a program takes that works on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap

#: Of space groups by Laue group, Hall symbols.
SPACE_GROUPS = {"mmm": "P 2ac 2ab", "-1": "P 1"}


def make_map(filename: Path, laue_group: str) -> None:
    """A sphere of noise, 401 x 401 x 401 voxels, all fields; it has the symmetry mmm in any case."""
    grid = GlobalGrid.from_dict(
        {
            "unit_cell": (80, 80, 80, 90, 90, 90),
            "space_group": SPACE_GROUPS[laue_group],
            "ndiv": (4, 4, 4),
            "d_min": 1.6,
        }
    )
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
    DiffuseMap(grid, *grid.axes(n[[0, 0, 0]], outside.shape), fields, np.ones(1), []).write(filename)


def make_apart(filename: Path, laue_group: str) -> None:
    """The same in a process of its own: the peak memory of a child begins with its parent's."""
    subprocess.run([sys.executable, __file__, str(filename), laue_group], check=True)


def cost(program: str, arguments: list[str]) -> str:
    """Run a program; wall and CPU time and peak memory, as cells of a table."""
    start = time.time()
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: failed")
    return f"{time.time() - start:.1f} s | {usage.ru_utime + usage.ru_stime:.1f} s | {usage.ru_maxrss / 1e6:.1f} GB"


if __name__ == "__main__":
    make_map(Path(sys.argv[1]), sys.argv[2])
