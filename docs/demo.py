"""The main job from images to a map whose answer is known: ``make demo``.

Two small sweeps are simulated, DIALS finds, indexes and refines them by itself, and the five programs make the map. At
the end it is held against the truth: figures on the screen, slices as pictures in the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD for the programs, too

CELL = "unit_cell=39.5,45.2,51.3,90,90,90"
SWEEPS = ("sweep_1", "sweep_2")


def main(folder: str) -> None:
    """Run everything in ``folder``, which is made anew."""
    path = Path(folder).resolve()
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    began = time.perf_counter()

    run(path, "dials.diffuse_simulate", "sweeps=2", "frames=120", "photons=1")
    for sweep in SWEEPS:
        (path / sweep).mkdir()
        run(path / sweep, "dials.import", f"template=../images/{sweep}_####.cbf")
        run(path / sweep, "dials.find_spots", "imported.expt")
        run(path / sweep, "dials.index", "imported.expt", "strong.refl", CELL, "space_group=P212121")
        run(path / sweep, "dials.refine", "indexed.expt", "indexed.refl")
    (path / "background").mkdir()
    run(path / "background", "dials.import", "template=../images/background_####.cbf")

    refined = [f"{sweep}/refined.{ending}" for sweep in SWEEPS for ending in ("expt", "refl")]
    run(path, "dials.diffuse_extract", *refined, "d_min=2", "beam_stop.find=True", "virtual_pixels=False")
    run(path, "dials.diffuse_correct", "extracted.expt", "extracted.refl", "background=background/imported.expt")
    run(path, "dials.diffuse_scale", "corrected.expt", "corrected.refl")
    run(path, "dials.diffuse_merge", "scaled.expt", "scaled.refl")
    report(path)
    print(f"\nAll in {time.perf_counter() - began:.0f} s. Pictures, map and logs: {path}")


def run(path: Path, *command: str) -> None:
    """Run a program in a folder with its output in a file there, and say how long it took."""
    print(f"{path.name + '/':12s} $ {' '.join(command)}", flush=True)
    began = time.perf_counter()
    with open(path / f"{command[0]}.out", "w") as out:
        status = subprocess.run(command, cwd=path, stdout=out, stderr=subprocess.STDOUT).returncode
    if status:
        sys.exit(f"{command[0]} failed:\n{(path / f'{command[0]}.out').read_text()}")
    print(f"{'':12s}   {time.perf_counter() - began:.1f} s", flush=True)


def report(path: Path) -> None:
    """Hold the map against the truth."""
    from dials_diffuse.algorithms.simulation.compare import compare
    from dials_diffuse.algorithms.simulation.truth import Truth
    from dials_diffuse.map_file import read_map

    truth = Truth.from_file(path / "truth.json")
    measured = read_map(path / "merged.nxs")
    grid = measured.grid
    index = np.argwhere(np.isfinite(measured.intensity)) - np.array(grid.n_max)
    index = index[(index >= 0).all(axis=1)]  # the asymmetric unit of mmm
    at = tuple((index + np.array(grid.n_max)).T)
    intensity, variance = measured.intensity[at], measured.intensity_errors[at] ** 2
    ndiv = np.array(grid.ndiv)
    steps = np.abs((index + ndiv // 2) % ndiv - ndiv // 2).sum(axis=1)
    print("\nThe map against the truth")
    results = {}
    for name, chosen in (
        ("all voxels", steps >= 0),
        ("next to Bragg points", steps == 1),
        ("away from Bragg points", steps > 1),
    ):
        comparison = compare(truth, index[chosen], grid.ndiv, intensity[chosen], variance[chosen])
        results[name] = vars(comparison)
        print(f"  {name}: {comparison}")
    (path / "comparison.json").write_text(json.dumps(results, indent=1))
    pictures(path, truth, measured)


def pictures(path: Path, truth, measured) -> None:
    """Slices through the measured map beside the same slices of the truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = measured.grid
    layers = {"hk0": (2, 0), "h0l": (1, 0), "hk half": (2, grid.ndiv[2] // 2 + 3 * grid.ndiv[2])}
    figure, axes = plt.subplots(len(layers), 2, figsize=(9, 4 * len(layers)), constrained_layout=True)
    for row, (_name, (axis, level)) in zip(axes, layers.items()):
        index = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in grid.n_max), indexing="ij"), axis=-1)
        index = np.take(index, level + grid.n_max[axis], axis=axis)
        seen = np.take(measured.intensity, level + grid.n_max[axis], axis=axis)
        true = truth.voxel_mean(index.reshape(-1, 3), grid.ndiv).reshape(seen.shape)
        true[~grid.contains(index.reshape(-1, 3)).reshape(seen.shape)] = np.nan
        limits = np.nanpercentile(true, (1, 99))
        across, up = (i for i in range(3) if i != axis)
        extent = [sign * grid.n_max[i] / grid.ndiv[i] for i in (across, up) for sign in (-1, 1)]
        for panel, image, title in zip(row, (seen, true), ("measured", "true")):
            drawn = panel.imshow(
                image.T, origin="lower", extent=extent, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto"
            )
            height = level / grid.ndiv[axis]
            panel.set(xlabel="hkl"[across], ylabel="hkl"[up], title=f"{title}, {'hkl'[axis]} = {height:.3g}")
        figure.colorbar(drawn, ax=row, label="photons / (s sr)")
    figure.savefig(path / "slices.png", dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
