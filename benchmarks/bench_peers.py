"""mdx2, dials.rs_mapper and ours, side by side, one core each: part of ``make bench-scale``.

The same images and grid: frames of 0.1 degrees of a simulated 6M and images of background, made once in bench/peers,
up to the merged table, with true models for all; then half of the frames up to corrected observations, to tell what
each further pixel takes from what a program takes anyway. mdx2 is looked for in bench/mdx2, a virtual environment over
the system's DIALS (``make bench/mdx2``).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from measure import Cost, add, header, line, megabytes, watch
from run import MODELS, make_sweep

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD, for mdx2 as well

FRAMES, BACKGROUNDS, PIXELS = 50, 5, 2463 * 2527
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "BLOSC", "NUMEXPR")} | {
    "NUMEXPR_MAX_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}
IMAGES, B, ALL_TERMS = "images to corrected observations", "scale (b), merge", "scale (a, b, c, d), merge"
#: Steps of each part. mdx2 sums a voxel over chunks of 10 frames; so do ours, a batch being a degree.
OURS = {
    IMAGES: [
        "dials.diffuse_mask sweep.expt sweep.refl nproc=1",
        "dials.diffuse_extract sweep.expt sweep.refl pixel_mask=pixels.mask ndiv=3,3,3 nproc=1",
        "dials.diffuse_correct extracted.expt extracted.refl background=background.expt nproc=1",
    ],
    B: [
        "dials.diffuse_scale corrected.expt corrected.refl scaling.terms=scale nproc=1",
        "dials.diffuse_merge scaled.expt scaled.refl nproc=1",
    ],
    ALL_TERMS: [
        "dials.diffuse_scale corrected.expt corrected.refl scaling.terms=scale,absorption,offset,detector nproc=1",
        "dials.diffuse_merge scaled.expt scaled.refl nproc=1",
    ],
}
MDX2 = {
    IMAGES: [
        "mdx2.import_geometry ../sweep.expt",
        "mdx2.import_data ../sweep.expt",
        "mdx2.import_data ../background.expt --outfile background.nxs --datastore datastore_background",
        "mdx2.bin_image_series background.nxs 2 20 20 --outfile binned.nxs",
        "mdx2.find_peaks geometry.nxs data.nxs --count_threshold 20",
        "mdx2.mask_peaks geometry.nxs data.nxs peaks.nxs",
        "mdx2.integrate geometry.nxs data.nxs --mask mask.nxs --subdivide 3 3 3",
        "mdx2.correct geometry.nxs integrated.nxs --background binned.nxs",
    ],
    B: ["mdx2.scale corrected.nxs", "mdx2.merge corrected.nxs --scale scales.nxs --split randomHalf"],
    ALL_TERMS: [
        "mdx2.scale corrected.nxs --mca2020",
        "mdx2.merge corrected.nxs --scale scales.nxs --split randomHalf",
    ],
}
RS_MAPPER = {"images to map": ["dials.rs_mapper sweep.expt max_resolution=1.15 grid_size=256"]}
#: What programs say of how much there was.
AMOUNTS = {
    "mdx2.mask_peaks": r"Masked pixels: ([\d.]+ ?%)",
    "mdx2.integrate": r"Binned from \d+ to (\d+) voxels",
    "mdx2.merge": r"Unique reflections in merged output: (\d+)",
    "dials.diffuse_extract": r"(\d+) observations from",
    "dials.diffuse_merge": r"observations into (\d+) voxels",
}


def main(folder: Path) -> None:
    """Make the images where they are missing, measure, print the tables."""
    path, half = folder / "peers", folder / "peers" / "half"
    if not (half / "background.expt").exists():
        make_images(path, half)
    environment = Path(os.environ.get("MDX2_VENV", folder / "mdx2")).absolute() / "bin"
    has_mdx2 = (environment / "mdx2.integrate").exists()
    print(header("program", "CPU time", "wall time", "peak memory", ""), flush=True)
    totals = {"ours": run(path, OURS), "rs_mapper": run(half, RS_MAPPER)}
    halves = {"ours": run(half, {IMAGES: OURS[IMAGES]}, quiet=True)}
    if has_mdx2:
        totals["mdx2"] = run(path / "mdx2", MDX2, environment)
        halves["mdx2"] = run(half / "mdx2", {IMAGES: MDX2[IMAGES]}, environment, quiet=True)
    else:
        print(f"\nmdx2 is not in {environment}: skipped (make bench/mdx2).")
    compare(totals, halves)


def make_images(path: Path, half: Path) -> None:
    """Simulate, import, take half."""
    numbers = [f"frames={FRAMES}", f"background.images={BACKGROUNDS}"]
    make_sweep(path, "detector.model=6M", *MODELS["6M"], *numbers)
    for folder in (half / "mdx2", path / "mdx2"):
        folder.mkdir(parents=True)
    images = sorted(map(str, (path / "images").glob("background_*.cbf")))
    files = ("output.experiments_filename=half/sweep.expt", "output.reflections_filename=half/sweep.refl")
    for command in (
        ["dials.slice_sequence", "sweep.expt", "sweep.refl", f"image_range=1,{FRAMES // 2}", *files],
        ["dials.import", *images, "output.experiments=background.expt"],
        ["cp", "background.expt", "half"],
    ):
        subprocess.run(command, cwd=path, check=True, stdout=subprocess.DEVNULL)


def run(path: Path, steps: dict[str, list[str]], environment: Path | None = None, quiet: bool = False) -> dict:
    """Run all steps, one line of the table for each; the sums of the parts."""
    totals = {}
    for part, commands in steps.items():
        costs = []
        for command in commands:
            program, *arguments = command.split()
            full = [str(environment / program) if environment else program, *arguments]
            costs.append(watch(full, path, one_core=True, environment=ONE_THREAD))
            amount = re.findall(AMOUNTS.get(program, "$^"), costs[-1].out)
            if not quiet:
                print(line(command.replace("../", ""), *figures(costs[-1]), *(amount[-1:] or [""])), flush=True)
        totals[part] = add(costs)
    return totals


def figures(cost: Cost) -> tuple[str, str, str]:
    """Cells of a table."""
    return f"{cost.cpu:.1f} s", f"{cost.wall:.1f} s", megabytes(cost.memory)


def compare(totals: dict[str, dict[str, Cost]], halves: dict[str, dict[str, Cost]]) -> None:
    """Print the sums, and how they stand to mdx2's."""
    print("\n" + header("part", "program", "CPU time", "wall time", "peak memory", "Mpixel/s", "mdx2's CPU time"))
    rates: dict[str, float] = {}
    for name, parts in totals.items():
        for part, cost in parts.items():
            frames = {IMAGES: FRAMES, "images to map": FRAMES // 2}.get(part)
            rate = f"{frames * PIXELS / cost.cpu / 1e6:.1f}" if frames else ""
            theirs = totals.get("mdx2", {}).get(part)
            ratio = f"{theirs.cpu / cost.cpu:.2f} times" if theirs and name != "mdx2" else ""
            print(line(part, name, *figures(cost), rate, ratio), flush=True)
        if name in halves:
            rates[name] = (FRAMES - FRAMES // 2) * PIXELS / (parts[IMAGES].cpu - halves[name][IMAGES].cpu) / 1e6
    for name, rate in rates.items():
        ratio = f", {rate / rates['mdx2']:.1f} times mdx2" if "mdx2" in rates and name != "mdx2" else ""
        print(f"\n{name}: {rate:.1f} million further pixels a second of CPU time, images to corrected{ratio}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench").absolute())
