"""The page of a map of 401 x 401 x 401 voxels: what it takes to write and open, and how large it is: make bench-maps.

Needs Chromium.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from large_map import SPACE_GROUPS, cost, make_apart

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from browser import browser  # noqa: E402


def opened(page: Path) -> tuple[float, float]:
    """Seconds until the first plane is drawn, and milliseconds to draw another."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as reader:
        seconds = reader.open(page)
        times = [
            reader.evaluate(
                f"(() => {{ view.level = {level}; const begin = performance.now(); colourPlane(); draw(); "
                "return performance.now() - begin; })()"
            )
            for level in range(12)
        ]
    return seconds, float(np.median(times))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print("| Laue group | write | time | CPU time | peak memory | file | open | colour a plane |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for laue_group in SPACE_GROUPS:
            make_apart(Path("map.nxs"), laue_group)
            numbers = cost("dials.diffuse_view", ["map.nxs", "browser=False"])
            page = Path("map.html").resolve()
            seconds, milliseconds = opened(page)
            size = f"{page.stat().st_size / 1e6:.1f} MB"
            print(f"| {laue_group} | page | {numbers} | {size} | {seconds:.1f} s | {milliseconds:.0f} ms |", flush=True)
            numbers = cost("dials.diffuse_view", ["map.nxs", "browser=False", "output.png=map.png"])
            print(f"| {laue_group} | page and picture | {numbers} | | | |", flush=True)
