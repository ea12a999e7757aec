"""The page of a large map: how long it takes to write and to open, and how large it is. Needs Chromium.

benchmarks/bench_view.py [voxels along an axis, 400] [folder for the files, bench]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD before anything of cctbx is imported

from cctbx import sgtbx, uctbx  # isort: skip
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from browser import browser  # noqa: E402

CELL = (60, 60, 60, 90, 90, 90)
NDIV = 3


def make_map(filename: Path, symbol: str, size: int) -> None:
    """A map of so many voxels along each axis: clouds with an error of 10 %, all noise, to the sphere's edge."""
    reach = (size - 1) // 2
    group = sgtbx.space_group_info(symbol).group()
    grid = GlobalGrid(uctbx.unit_cell(CELL), group, (NDIV,) * 3, NDIV * CELL[0] / (reach + 0.5))
    axis = np.arange(-reach, reach + 1) / NDIV
    diffuse_map = DiffuseMap(grid, axis, axis, axis, {}, np.ones(1), [])
    q = diffuse_map.q()
    part = [slice(reach, None)] * 3 if symbol != "P 1" else [slice(reach, None), slice(None), slice(None)]
    rng = np.random.default_rng(0)
    waves = np.cos(5 * axis[:, None, None]) * np.cos(4 * axis[:, None]) * np.cos(3 * axis)
    truth = (1 + waves) * np.exp(-((3 * q) ** 2))
    noise = rng.normal(1, 0.1, q[tuple(part)].shape)
    intensity = np.full(q.shape, np.nan, np.float32)
    intensity[tuple(part)] = (truth[tuple(part)] + 0.2) * noise * 1e6
    if symbol == "P 1":
        intensity[:reach] = intensity[:reach:-1, ::-1, ::-1]
        intensity[reach, :, :reach] = intensity[reach, ::-1, :reach:-1]
        intensity[reach, :reach, reach] = intensity[reach, :reach:-1, reach]
    else:
        intensity[:reach] = intensity[:reach:-1]
        intensity[:, :reach] = intensity[:, :reach:-1]
        intensity[..., :reach] = intensity[..., :reach:-1]
    intensity[q > 1 / grid.d_min] = np.nan
    errors = (np.abs(intensity) * rng.uniform(0.08, 0.12, q.shape)).astype(np.float32)
    diffuse_map.fields = {"intensity": intensity, "intensity_errors": errors}
    diffuse_map.write(filename)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "bench").resolve()
    folder.mkdir(exist_ok=True)
    print("| map | Laue group | write page | write page and picture | page | open | colour a plane | peak memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for symbol in ("P 1", "P 2 2 2"):
        name = folder / f"map_{size}_{symbol.replace(' ', '')}.nxs"
        if not name.exists():
            make_map(name, symbol, size)
        code = "from dials_diffuse.command_line.diffuse_view import run; run()"
        seconds = []
        for more in ([], ["output.png=map.png"]):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, str(name), "browser=False", *more], cwd=folder, check=True)
            seconds.append(time.perf_counter() - begin)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        page = folder / f"{name.stem}.html"
        with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as reader:
            opened = reader.open(page)
            times = [
                reader.evaluate(
                    f"(() => {{ view.level = {level}; const begin = performance.now(); colourPlane(); draw(); "
                    "return performance.now() - begin; })()"
                )
                for level in range(12)
            ]
        numbers = [f"{n:.1f} s" for n in (*seconds, opened)]
        numbers[2:2] = [f"{page.stat().st_size / 1e6:.1f} MB"]
        numbers += [f"{np.median(times):.0f} ms", f"{memory / 1e6:.1f} GB"]
        print("|", " | ".join([f"{size}^3", "-1" if symbol == "P 1" else "mmm", *numbers]), "|")


if __name__ == "__main__":
    main()
