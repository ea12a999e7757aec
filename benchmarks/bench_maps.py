"""What it takes to write a map of 401 x 401 x 401 voxels in every format: make bench-maps."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from large_map import cost, make_apart

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

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_apart(Path("merged.nxs"), "mmm")
        print("| format | time | CPU time | peak memory | file |\n| --- | --- | --- | --- | --- |")
        for name, options in CASES.items():
            format = f"format={name.partition(',')[0]}"
            numbers = cost("dials.diffuse_export", ["merged.nxs", "output.map=out", format, *options])
            print(f"| {name} | {numbers} | {Path('out').stat().st_size / 1e6:.0f} MB |", flush=True)
