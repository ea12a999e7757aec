"""Observations that are five times the memory of the workers: ``make bench-memory``.

Two sweeps of 150 frames of a 6M (the images of run.py under two names), a frame a batch, so that a voxel is measured
many times: extraction, correction, scaling, merging on two workers of Dask that were started from the command line with
a limit of memory, and peaks of what each process held.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measure import Peaks, header, line, megabytes, on_disk, watch
from run import MODELS, SIMULATED, make_sweep, write_models

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD

#: Bytes that Dask lets a worker have, workers, sweeps and the frames of each.
LIMIT, WORKERS, SWEEPS, FRAMES = 800_000_000, 2, 2, 150
GRID = ["d_min=1.6", "ndiv=6,6,6", "batch_width=0"]
STEPS = {
    "extract": ["sweep.expt", "sweep.refl", *GRID, "output.reflections=extracted.parts"],
    "correct": ["extracted.expt", "extracted.parts", "output.reflections=corrected.parts"],
    "scale": ["corrected.expt", "corrected.parts", "scaling.terms=scale", "output.reflections=scaled.parts"],
    "merge": ["scaled.expt", "scaled.parts"],
}
MADE = {"extract": "extracted.parts", "correct": "corrected.parts", "scale": "scaled.parts", "merge": "merged.nxs"}


def main(folder: Path, limit: int = LIMIT, frames: int = FRAMES) -> None:
    """Make what is missing, run all steps, print the table."""
    source, path = folder / f"6M-{SIMULATED}", folder / "memory" / f"{frames}"
    if not (source / "sweep.expt").exists():
        make_sweep(source, "detector.model=6M", *MODELS["6M"])
    if not (path / "sweep.expt").exists():
        copy_sweeps(source, path, frames)
    for name in MADE.values():
        shutil.rmtree(path / name, ignore_errors=True)
    print(header("step", "time", "own process", *(f"worker {n + 1}" for n in range(WORKERS)), "on disk"), flush=True)
    for step, arguments in STEPS.items():
        with workers(path, limit) as peaks:
            mp = ["mp.method=dask", f"mp.scheduler={path}/scheduler.json"]
            cost = watch([f"dials.diffuse_{step}", *arguments, *mp], path)
        held = (megabytes(peak.peaks[2]) for peak in peaks)
        print(line(step, f"{cost.wall:.0f} s", megabytes(cost.driver), *held, megabytes(on_disk(path / MADE[step]))))
        sys.stdout.flush()
    report_size(path, limit)


def copy_sweeps(source: Path, path: Path, frames: int) -> None:
    """The frames again under other names, as sweeps of their own with the same models."""
    from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

    shutil.rmtree(path, ignore_errors=True)
    (path / "images").mkdir(parents=True)
    (original,) = ExperimentList.from_file(str(source / "sweep.expt"))
    experiments = ExperimentList()
    for sweep in range(1, SWEEPS + 1):
        names = [path / "images" / f"sweep_{sweep}_{frame + 1:04d}.cbf" for frame in range(frames)]
        for image, name in zip(original.imageset.paths(), names):
            os.link(image, name)
        (experiment,) = ExperimentListFactory.from_filenames(list(map(str, names)))
        for model in ("beam", "detector", "goniometer", "crystal"):
            setattr(experiment, model, copy.deepcopy(getattr(original, model)))
        experiment.identifier = f"sweep {sweep}"
        experiments.append(experiment)
    write_models(path, experiments)


@contextlib.contextmanager
def workers(path: Path, limit: int) -> Iterator[list[Peaks]]:
    """A scheduler and workers from the command line; what each of them (below the process that watches it) holds."""
    file = path / "scheduler.json"
    file.unlink(missing_ok=True)
    module, local = [sys.executable, "-m"], ["--interface", "lo", "--no-dashboard", "--scheduler-file", str(file)]
    one = ["--nworkers", "1", "--nthreads", "1", "--memory-limit", str(limit), "--local-directory", str(path)]
    commands = [[*module, "distributed.cli.dask_scheduler", "--port", "0", *local]]
    commands += [[*module, "distributed.cli.dask_worker", *one, *local]] * WORKERS
    processes = []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(path / "workers.log", "a"))
        for command in commands:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            while not file.exists():
                time.sleep(0.1)
        try:
            yield [stack.enter_context(Peaks(process.pid)) for process in processes[1:]]
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def report_size(path: Path, limit: int) -> None:
    """How large the observations are, against the limit."""
    from dials_diffuse.partitioned_table import PartitionedTable

    table = PartitionedTable(path / "corrected.parts")
    rows = table.parts[0].rows
    sizes = {
        "as a .refl file": len(table.table(0).as_msgpack()) / rows,
        "as columns in single precision": sum(column.nbytes for column in table.read(0).values()) / rows,
        "on disk": on_disk(table.folder) / table.rows,
    }
    print(f"\n{table.rows / 1e6:.1f} million observations in {len(table.parts)} partitions; limit {megabytes(limit)}.")
    for name, size in sizes.items():
        whole = table.rows * size
        print(f"- {name}: {size:.0f} bytes each, {whole / 1e9:.2f} GB, {whole / limit:.1f} times a worker's limit")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(Path(arguments[0] if arguments else "bench").absolute(), *map(int, arguments[1:]))
