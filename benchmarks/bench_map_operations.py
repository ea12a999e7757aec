"""What operations on a map of 401 x 401 x 401 voxels take: python benchmarks/bench_map_operations.py.

Laue group mmm, and -1, for which four times as many voxels are different.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
from bench_maps import GRID, make_map

from dials_diffuse.grid import GlobalGrid

NO_MAP = "output.map=None"
CASES = {
    "read, write": [],
    "profile": [NO_MAP, "output.profile=p.csv"],
    "section": [NO_MAP, "sections.plane=hk0"],
    "isotropic": ["operations=isotropic"],
    "variational": ["operations=variational"],
    "minimum subtracted": ["operations=variational", "isotropic.kind=minimum"],
    "Bragg voxels punched, filled": ["operations=punch,fill"],
    "symmetrise 4/mmm": ["operations=symmetrise", "symmetrise.group=P422"],
    "difference": ["second.nxs", "operations=difference"],
    "correlation": ["second.nxs", NO_MAP, "output.correlation=c.csv"],
    "delta-PDF": [NO_MAP, "output.delta_pdf=pdf.ccp4"],
    "punch,fill,variational, delta-PDF": [NO_MAP, "operations=punch,fill,variational", "output.delta_pdf=pdf.ccp4"],
}


def operate(options: list[str]) -> str:
    """Run the program; wall and CPU time and peak memory, as cells of a table."""
    start = time.time()
    program = str(Path(sys.executable).with_name("dials.diffuse_map"))
    child = subprocess.Popen([program, "merged.nxs", *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{options}: failed")
    return f"{time.time() - start:.1f} s | {usage.ru_utime + usage.ru_stime:.1f} s | {usage.ru_maxrss / 1e6:.1f} GB"


def make(space_group: str) -> None:
    make_map(Path("merged.nxs"))
    with h5py.File("merged.nxs", "r+") as file:
        file["entry"].attrs["dials_diffuse_grid"] = GlobalGrid.from_dict({**GRID, "space_group": space_group}).as_json()
    Path("second.nxs").write_bytes(Path("merged.nxs").read_bytes())


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:  # in a process of its own: the peak memory of a child begins with its parent's
        make(sys.argv[2])
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).resolve()
        os.chdir(folder)
        print("| Laue group | operation | time | CPU time | peak memory |\n| --- | --- | --- | --- | --- |")
        for name, space_group in {"mmm": GRID["space_group"], "-1": "P 1"}.items():
            subprocess.run([sys.executable, script, "make", space_group], check=True)
            for case, options in CASES.items():
                print(f"| {name} | {case} | {operate(options)} |", flush=True)
