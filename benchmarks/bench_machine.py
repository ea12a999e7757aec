"""Where the hot loop of extraction stands against the machine: part of ``make bench-scale``.

Frames of the 6M of run.py. One core; best of several runs. Instructions are counted by valgrind, if it is there, in
code for AVX2 (valgrind knows no AVX-512): as the difference between two runs of the kernel and one.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from measure import header, line
from run import MODELS, SIMULATED, bare_loop, make_sweep

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD

FRAMES, REPEATS = 6, 7
D_MIN = 1.6


def main(folder: Path) -> None:
    """Measure, print the tables."""
    from dials_diffuse.freed_memory import keep_freed_memory

    keep_freed_memory()  # as programs do
    path = folder / f"6M-{SIMULATED}"
    if not (path / "sweep.expt").exists():
        make_sweep(path, "detector.model=6M", *MODELS["6M"])
    sweep = make_sweep_object(path)
    frames = sweep.read(0, FRAMES)
    pixels = FRAMES * frames.raw[0][0].size
    files = [Path(name) for name in sweep.experiment.imageset.paths()[:FRAMES]]
    compressed = sum(name.stat().st_size for name in files)
    times = {
        "copy (read 8, write 8 bytes)": bandwidth("copy"),
        "triad (read 16, write 8 bytes)": bandwidth("triad"),
    }
    print(header("memory", "GB/s"))
    for name, rate in times.items():
        print(line(name, f"{rate:.1f}"))
    print()
    print(header("a frame of the 6M", "ms", "million pixels a second", "MB/s"), flush=True)
    arguments = kernel_arguments(sweep, frames)
    steps: dict[str, tuple[Callable[[], object], int]] = {
        "files into memory": (lambda: [name.read_bytes() for name in files], compressed),
        "read and decode": (lambda: [sweep.experiment.imageset.get_raw_data(i) for i in range(FRAMES)], compressed),
        "read, decode, masks of frames, bring together": (lambda: sweep.read(0, FRAMES), compressed),
        "bare loop": (bare(sweep, frames), 4 * pixels),
        "our kernel, all masks": (lambda: run_kernel(arguments), 4 * pixels),
    }
    for name, (step, size) in steps.items():
        seconds = best(step)
        rates = f"{pixels / seconds / 1e6:.0f}", f"{size / seconds / 1e6:.0f}"
        print(line(name, f"{1000 * seconds / FRAMES:.1f}", *rates), flush=True)
    good = np.mean(sweep.good[0])
    print(f"\n{100 * good:.0f} % of the pixels can fall into the grid (d_min={D_MIN}) and are not masked.")
    if shutil.which("valgrind"):
        count = count_instructions(arguments)
        each = f"{count / pixels:.1f} a pixel, {count / pixels / good:.1f} a good pixel"
        print(f"Instructions of the kernel (AVX2): {each}.")
    else:
        print("valgrind is not there: instructions are not counted.")


def best(step: Callable[[], object]) -> float:
    """CPU seconds of the fastest of several runs, after one that compiles."""
    step()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return min(times)


def bandwidth(kind: str, size: int = 20_000_000) -> float:
    """GB/s of a copy or a triad (McCalpin's STREAM) of doubles, on one core."""
    from numba import njit

    @njit
    def copy(a, b, c):
        for i in range(len(a)):
            a[i] = b[i]

    @njit(fastmath=True)
    def triad(a, b, c):
        for i in range(len(a)):
            a[i] = b[i] + 3.0 * c[i]

    a, b, c = np.zeros(size), np.ones(size), np.ones(size)
    loop, numbers = {"copy": (copy, 2), "triad": (triad, 3)}[kind]
    return 8 * numbers * size / best(lambda: loop(a, b, c)) / 1e9


def make_sweep_object(path: Path):
    """The sweep as extraction sees it, with all masks."""
    from dials.array_family import flex
    from dxtbx.model.experiment_list import ExperimentList

    from dials_diffuse.algorithms.extraction.sweep import Sweep
    from dials_diffuse.algorithms.masking.masks import make_masks
    from dials_diffuse.grid import GlobalGrid
    from dials_diffuse.parameters import parameters
    from dials_diffuse.rays import detector_rays

    experiments = ExperimentList.from_file(str(path / "sweep.expt"))
    reflections = flex.reflection_table.from_file(str(path / "sweep.refl"))
    params = parameters("extract", f"d_min={D_MIN}", "nproc=1")
    (masks,) = make_masks(experiments, reflections, params, params.pixel_mask)
    grid = GlobalGrid.from_experiments(experiments, params)
    return Sweep(0, masks, detector_rays(experiments[0].detector), grid)


def kernel_arguments(sweep, frames) -> tuple:
    """What :func:`voxel_sums` gives to the kernel."""
    from dials_diffuse.algorithms.extraction import kernel
    from dials_diffuse.algorithms.extraction.voxel_sums import voxel_sums

    with (
        mock.patch.object(sweep, "read", lambda *_: frames),
        mock.patch.object(kernel, "accumulate_frames", side_effect=kernel.accumulate_frames) as called,
    ):
        voxel_sums(sweep, 0, 0, FRAMES)
    return called.call_args.args


def run_kernel(arguments: tuple) -> None:
    """Once, from an empty table of sums: number 15 to 17 of the arguments."""
    from dials_diffuse.algorithms.extraction import kernel

    keys, sums = np.full(1 << 18, -1, dtype=np.int64), np.zeros((1 << 18, kernel.WIDTH))
    kernel.accumulate_frames(*arguments[:15], keys, sums, 0, arguments[18])


def bare(sweep, frames) -> Callable[[], None]:
    """The barest loop over the same frames in memory (see run.py)."""
    loop, (rays,), (raw,) = bare_loop(), sweep.rays, frames.raw
    reach = sweep.experiment.detector.get_max_resolution(sweep.experiment.beam.get_s0())
    cell = sweep.experiment.crystal.get_unit_cell().parameters()
    n_max = np.array([int(3 * edge / reach) + 2 for edge in cell[:3]])
    counts = np.zeros(np.prod(2 * n_max + 1), np.int32)
    offset, stride = n_max.astype(np.float32) + np.float32(0.5), (2 * n_max + 1)[1:].astype(np.int32)

    def run() -> None:
        for image, m, c in zip(raw, *frames.ray_to_hkl):
            loop(image, rays, 3 * m, 3 * c + offset, stride, counts)

    return run


def count_instructions(arguments: tuple) -> int:
    """Instructions that one run of the kernel takes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arguments.pickle"
        file.write_bytes(pickle.dumps(arguments))
        environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
        environment["NUMBA_CACHE_DIR"] = folder

        def run(times: int, *tool: str) -> str:
            command = [*tool, sys.executable, __file__, str(file), str(times)]
            options = {"capture_output": True, "text": True, "check": True}
            return subprocess.run(command, env=environment, **options).stderr

        run(1)  # compiles
        tool = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
        counts = [int(re.search(r"I\s+refs:\s+([\d,]+)", run(n, *tool))[1].replace(",", "")) for n in (1, 2)]
    return counts[1] - counts[0]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        given = pickle.loads(Path(sys.argv[1]).read_bytes())
        for _ in range(int(sys.argv[2])):
            run_kernel(given)
    else:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench").resolve())
