"""Cost against frames, sweeps and voxels: part of ``make bench-scale``.

Frames: extraction and correction of the first frames of the 6M of run.py, into partitions, by one process and by two.
Sweeps: a 300K, sweeps of 12 frames of 0.2 degrees, all steps. Voxels: all steps on 25 frames of the 6M, by the number
of voxels to a reciprocal-lattice spacing. Under each table the exponents of powers that are fitted to it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from measure import Cost, add, exponent, header, line, megabytes, on_disk, watch
from run import MODELS, SIMULATED, make_sweep, write_models

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD

FRAMES, SWEEPS, NDIV = (25, 50, 100, 200), (1, 4, 16, 32), (1, 2, 3, 4, 6)
#: Peaks of memory: of all processes together, of the program's own, of the largest of its others.
MEMORY = ("memory", "own process", "largest worker")


def main(folder: Path, *tables: str) -> None:
    """Make the images where they are missing, measure, print the tables (all if none is named)."""
    path = folder / f"6M-{SIMULATED}"
    if not (path / "sweep.expt").exists():
        make_sweep(path, "detector.model=6M", *MODELS["6M"])
    for table in tables or ("frames", "sweeps", "voxels"):
        {"frames": frames, "sweeps": sweeps, "voxels": voxels}[table](folder, path)


def frames(folder: Path, path: Path) -> None:
    """Extraction and correction against frames."""
    steps = (f"{step}, {what}" for step in ("extract", "correct") for what in ("time", "CPU time", *MEMORY))
    print(header("frames", "processes", *steps, "observations", "on disk"), flush=True)
    cpu: dict[int, list[float]] = {1: [], 2: []}
    memory: dict[int, list[int]] = {1: [], 2: []}
    for number in FRAMES:
        short = cut(path, number)
        for nproc in cpu:
            extracted = extract(short, f"nproc={nproc}", "d_min=1.6")
            corrected = correct(short, f"nproc={nproc}")
            cells = (*figures(extracted), *figures(corrected), observations(extracted))
            print(line(number, nproc, *cells, megabytes(on_disk(short / "corrected.parts"))), flush=True)
            cpu[nproc].append(extracted.cpu + corrected.cpu)
            memory[nproc].append(max(extracted.memory, corrected.memory))
    for nproc in cpu:
        further = (cpu[nproc][-1] - cpu[nproc][0]) / (FRAMES[-1] - FRAMES[0])
        powers = [f"frames^{exponent(FRAMES, values[nproc]):.2f}" for values in (cpu, memory)]
        each = f"{1000 * further:.0f} ms for each further frame"
        print(f"\nProcesses: {nproc}. CPU time ~ {powers[0]}, {each}; memory ~ {powers[1]}")
    print()


def sweeps(folder: Path, path: Path) -> None:
    """All steps against sweeps."""
    path = folder / "sweeps"
    if not (path / "sweep.expt").exists():
        widths = ["oscillation.width=0.2", "frames=12", f"sweeps={SWEEPS[-1]}"]
        make_sweep(path, "detector.model=300K", *MODELS["300K"], *widths)
    print(header("sweeps", *HEADINGS), flush=True)
    rows = []
    for number in SWEEPS:
        few = path / f"{number}"
        few.mkdir(exist_ok=True)
        take_sweeps(path, few, number)
        rows.append(all_steps(few, f"{number}", "d_min=1.6"))
    print(f"\nCPU time ~ sweeps^{exponent(SWEEPS, [row.cpu for row in rows]):.2f}", end="")
    print(f", memory ~ sweeps^{exponent(SWEEPS, [row.memory for row in rows]):.2f}\n")


def voxels(folder: Path, path: Path) -> None:
    """All steps against voxels."""
    short = cut(path, 25)
    print(header("ndiv", *HEADINGS), flush=True)
    rows = [all_steps(short, f"{ndiv}", "d_min=1.6", f"ndiv={ndiv},{ndiv},{ndiv}") for ndiv in NDIV]
    volume = [ndiv**3 for ndiv in NDIV]
    print(f"\nCPU time ~ voxels^{exponent(volume, [row.cpu for row in rows]):.2f}", end="")
    print(f", memory ~ voxels^{exponent(volume, [row.memory for row in rows]):.2f}\n")


PROGRAMS = ("extract", "correct", "scale", "merge")
HEADINGS = (*PROGRAMS, "CPU time of all", *MEMORY, "observations", "merged voxels", "on disk")


def all_steps(path: Path, name: str, *options: str) -> Cost:
    """Run all steps with two processes; print a line of a table."""
    extracted = extract(path, "nproc=2", *options)
    corrected = correct(path, "nproc=2")
    shutil.rmtree(path / "scaled.parts", ignore_errors=True)
    scale = ["corrected.expt", "corrected.parts", "scaling.terms=scale", "output.reflections=scaled.parts", "nproc=2"]
    scaled = watch(["dials.diffuse_scale", *scale], path)
    merged = watch(["dials.diffuse_merge", "scaled.expt", "scaled.parts", "nproc=2"], path)
    costs = [extracted, corrected, scaled, merged]
    whole = add(costs)
    times = (f"{cost.wall:.1f} s" for cost in costs)
    made = [path / file for file in ("extracted.parts", "corrected.parts", "scaled.parts", "merged.refl", "merged.nxs")]
    cells = (*times, f"{whole.cpu:.1f} s", *map(megabytes, (whole.memory, whole.driver, whole.worker)))
    count = re.search(r"observations into (\d+) voxels", merged.out)[1]
    print(line(name, *cells, observations(extracted), count, megabytes(on_disk(*made))), flush=True)
    return whole


def extract(path: Path, *options: str) -> Cost:
    """Into partitions."""
    shutil.rmtree(path / "extracted.parts", ignore_errors=True)
    output = "output.reflections=extracted.parts"
    return watch(["dials.diffuse_extract", "sweep.expt", "sweep.refl", output, *options], path)


def correct(path: Path, *options: str) -> Cost:
    """From partitions, into partitions."""
    shutil.rmtree(path / "corrected.parts", ignore_errors=True)
    files = ["extracted.expt", "extracted.parts", "output.reflections=corrected.parts"]
    return watch(["dials.diffuse_correct", *files, *options], path)


def cut(path: Path, number: int) -> Path:
    """A folder with the first frames of a sweep."""
    short = path / f"parts-{number}"
    short.mkdir(exist_ok=True)
    files = [f"output.experiments_filename={short}/sweep.expt", f"output.reflections_filename={short}/sweep.refl"]
    command = ["dials.slice_sequence", "sweep.expt", "sweep.refl", f"image_range=1,{number}", *files]
    subprocess.run(command, cwd=path, check=True, stdout=subprocess.DEVNULL)
    return short


def take_sweeps(path: Path, few: Path, number: int) -> None:
    """The first sweeps, with reflections where DIALS predicts them."""
    from dials_diffuse.algorithms.simulation.truth import Truth

    write_models(few, Truth.from_file(path / "truth.json").experiments(check_format=True)[:number])


def observations(cost: Cost) -> str:
    """What dials.diffuse_extract says of their number."""
    return re.search(r"(\d+) observations from", cost.out)[1]


def figures(cost: Cost) -> tuple[str, ...]:
    """Cells of a table."""
    return (f"{cost.wall:.1f} s", f"{cost.cpu:.1f} s", *map(megabytes, (cost.memory, cost.driver, cost.worker)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench").absolute(), *sys.argv[2:])
