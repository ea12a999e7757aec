"""Speed and memory of extraction on simulated sweeps: ``make bench`` prints the table.

For a Pilatus 6M and a 300K: decoding alone, decoding with the barest loop that indexes and accumulates (what the
machine can do), and ``dials.diffuse_extract`` with all masks, for one and two processes, and for all, half and a
quarter of the frames; then ``dials.diffuse_correct``. Then frames of the 6M as one panel and as 60, from CBF and from
NeXus. Images are made once, in bench/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measure import watch

import dials_diffuse  # noqa: F401  sets LIBTBX_BUILD

#: Frames that are simulated, of which the first so many are taken.
SIMULATED = 200
FRAMES = (100, 50, 25)
MODELS = {"300K": ["detector.distance=100"], "6M": ["detector.distance=250"]}
#: The cases of formats: file format or compression in NeXus, and a panel for each module.
LAYOUTS = {
    f"{images}-{'60' if multi_panel else '1'}": (images, multi_panel)
    for images in ("cbf", "gzip", "bitshuffle-lz4")
    for multi_panel in (False, True)
}
LAYOUT_FRAMES = 30


def main(folder: str) -> None:
    """Make the images where they are missing, measure, print the table."""
    root = Path(folder).resolve()
    rows = []
    for model, options in MODELS.items():
        path = root / f"{model}-{SIMULATED}"
        if not (path / "sweep.expt").exists():
            make_sweep(path, f"detector.model={model}", *options)
        for frames in FRAMES:
            for nproc in (1, 2):
                rows.append(measure(path, model, frames, nproc))
                print(format_row(rows[-1]) if len(rows) > 1 else HEADER + "\n" + format_row(rows[-1]), flush=True)
        report_correct(path, model)
    compare_layouts(root)


def make_sweep(path: Path, *options: str) -> None:
    """Simulate a sweep of :data:`SIMULATED` frames of 0.1 degrees, if the options do not say otherwise, and write it
    with its true models."""
    from dials_diffuse.algorithms.simulation.truth import Truth

    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    sweep = ["sweeps=1", f"frames={SIMULATED}", "oscillation.width=0.1", "header.perturb=False", "background.images=0"]
    subprocess.run(["dials.diffuse_simulate", *sweep, *options], cwd=path, check=True, stdout=subprocess.DEVNULL)
    write_models(path, Truth.from_file(path / "truth.json").experiments(check_format=True))


def write_models(path: Path, experiments) -> None:
    """Write experiments, with reflections where DIALS predicts them."""
    from dials.algorithms.spot_prediction import ScanStaticReflectionPredictor
    from dials.array_family import flex

    tables = []
    for number, experiment in enumerate(experiments):
        table = ScanStaticReflectionPredictor(experiment, dmin=1.5).for_ub(experiment.crystal.get_A())
        x, y, z = table["xyzcal.px"].parts()
        for unit in ("px", "mm"):
            table[f"xyzobs.{unit}.value"] = table[f"xyzcal.{unit}"]
        frames = max(1, round(0.6 / experiment.scan.get_oscillation()[1]))
        corners = [part + shift for part, width in ((x, 4), (y, 4), (z, frames)) for shift in (-width, width)]
        table["bbox"] = flex.int6(*(corner.iround() for corner in corners))
        table["intensity.sum.value"] = flex.double(len(table), 2000)
        table["id"] = flex.int(len(table), number)
        table.experiment_identifiers()[number] = experiment.identifier
        tables.append(table)
    flex.reflection_table.concat(tables).as_file(str(path / "sweep.refl"))
    experiments.as_file(str(path / "sweep.expt"))


def measure(path: Path, model: str, frames: int, nproc: int) -> dict:
    """All figures for one number of frames and processes."""
    short = path / f"{frames}"
    shutil.rmtree(short, ignore_errors=True)
    short.mkdir()
    cut = [f"image_range=1,{frames}", f"output.experiments_filename={short}/sweep.expt"]
    cut.append(f"output.reflections_filename={short}/sweep.refl")
    subprocess.run(
        ["dials.slice_sequence", "sweep.expt", "sweep.refl", *cut], cwd=path, check=True, stdout=subprocess.DEVNULL
    )
    me = [sys.executable, __file__]
    row = {"model": model, "frames": frames, "nproc": nproc}
    for kind in ("decode", "bare"):
        row[kind] = float(watch([*me, kind, str(short / "sweep.expt"), str(nproc)], short).out.split()[-1])
    command = ["dials.diffuse_extract", "sweep.expt", "sweep.refl", "d_min=1.6", f"nproc={nproc}"]
    cost = watch(command, short)
    row["seconds"], row["memory"] = cost.wall, cost.memory
    row["extract"] = float(re.search(r"\((\d+) million pixels a second\)", cost.out)[1])
    row["observations"] = int(re.search(r"(\d+) observations from", cost.out)[1])
    return row


HEADER = (
    "| detector | frames | processes | decode | decode + bare loop | extract | of the bare loop | whole program "
    "| peak memory | observations |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def format_row(row: dict) -> str:
    """One line of the table; rates in million pixels a second."""
    return (
        f"| {row['model']} | {row['frames']} | {row['nproc']} | {row['decode']:.0f} | {row['bare']:.0f} "
        f"| {row['extract']:.0f} | {row['extract'] / row['bare']:.2f} | {row['seconds']:.1f} s "
        f"| {row['memory'] / 1e6:.0f} MB | {row['observations']} |"
    )


def report_correct(path: Path, model: str) -> None:
    """Time and memory of dials.diffuse_correct on all frames."""
    cost = watch(["dials.diffuse_correct", "extracted.expt", "extracted.refl"], path / f"{FRAMES[0]}")
    figures = f"{cost.wall:.1f} s, {cost.memory / 1e6:.0f} MB"
    print(f"\ndials.diffuse_correct, {model}, {FRAMES[0]} frames: {figures}\n", flush=True)


def compare_layouts(root: Path, repeats: int = 3) -> None:
    """Decoding and extraction in one process for all :data:`LAYOUTS`, in turn; the median of the repeats."""
    from h5py import h5z

    from dials_diffuse.algorithms.simulation.bitshuffle import FILTER

    layouts = [layout for layout in LAYOUTS if "bitshuffle" not in layout or h5z.filter_avail(FILTER)]
    for layout in layouts:
        if not (root / "layouts" / layout / "sweep.expt").exists():
            make_layout(root / "layouts" / layout, root / f"6M-{SIMULATED}", *LAYOUTS[layout])
    runs: dict[str, list[tuple[float, ...]]] = {layout: [] for layout in layouts}
    for _ in range(repeats):
        for layout in layouts:
            path = root / "layouts" / layout
            decoded = watch([sys.executable, __file__, "decode", "sweep.expt", "1"], path).out.split()[-1]
            command = ["dials.diffuse_extract", "sweep.expt", "sweep.refl", "d_min=1.6", "nproc=1"]
            cost = watch(command, path)
            extracted = float(re.search(r"\((\d+) million pixels a second\)", cost.out)[1])
            runs[layout].append((float(decoded), extracted, cost.wall, cost.cpu, cost.memory / 1e6))
    print("| images | panels | decode | extract | whole program | its CPU time | peak memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for layout, figures in runs.items():
        decode, extracted, wall, cpu, memory = np.median(figures, axis=0)
        images, panels = layout.rsplit("-", 1)
        print(
            f"| {images} | {panels} | {decode:.0f} | {extracted:.0f} | {wall:.1f} s | {cpu:.1f} s | {memory:.0f} MB |"
        )


def make_layout(path: Path, source: Path, images: str, multi_panel: bool) -> None:
    """The first frames of the 6M's sweep in another layout, with true models."""
    from dxtbx.model.experiment_list import ExperimentListFactory

    from dials_diffuse.algorithms.simulation.nxmx import NXmxWriter, nxmx_frame
    from dials_diffuse.algorithms.simulation.truth import Truth
    from dials_diffuse.images import frame_arrays

    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    experiments = Truth.from_file(source / "truth.json").experiments(multi_panel, check_format=True)
    experiment = experiments[0]
    experiment.scan = experiment.scan[:LAYOUT_FRAMES]
    experiment.imageset = experiment.imageset[:LAYOUT_FRAMES]
    if images != "cbf":
        models = {name: getattr(experiment, name) for name in ("beam", "detector", "goniometer", "scan")}
        with NXmxWriter(path / "sweep.nxs", **models, compression=images) as writer:
            for frame in range(LAYOUT_FRAMES):
                writer.write(frame, frame_arrays(experiment.imageset, frame))
        experiments = ExperimentListFactory.from_filenames([str(path / "sweep.nxs")])
        crystal = experiment.crystal
        turn = nxmx_frame(experiment.beam)
        crystal.set_U(tuple((turn @ np.array(crystal.get_U()).reshape(3, 3)).ravel()))
        experiments[0].crystal = crystal
        experiments[0].identifier = experiment.identifier
    write_models(path, experiments)


def rate(kind: str, filename: str, nproc: int) -> float:
    """Million pixels a second of decoding alone, or with the barest loop, over all frames of an experiment file."""
    from dxtbx.model.experiment_list import ExperimentList

    from dials_diffuse.geometry import IndexMapping
    from dials_diffuse.images import frame_arrays
    from dials_diffuse.parallel import parallel_map
    from dials_diffuse.rays import detector_rays

    experiment = ExperimentList.from_file(filename)[0]
    imageset, mapping = experiment.imageset, IndexMapping(experiment)
    frames = len(imageset)
    if kind == "bare":
        bare = bare_loop()
        (rays,) = detector_rays(experiment.detector)
        reach = experiment.detector.get_max_resolution(experiment.beam.get_s0())
        n_max = np.array([int(3 * edge / reach) + 2 for edge in experiment.crystal.get_unit_cell().parameters()[:3]])
        counts = np.zeros(np.prod(2 * n_max + 1), np.int32)  # a process touches its own copy
        offset = n_max.astype(np.float32) + np.float32(0.5)
        stride = (2 * n_max + 1)[1:].astype(np.int32)

    def work(run: tuple[int, int]) -> int:
        pixels = 0
        for index in range(*run):
            panels = frame_arrays(imageset, index)
            if kind == "bare":
                (raw,) = panels
                m, c = mapping.ray_to_hkl(mapping.array_range[0] + index + 0.5)
                bare(raw, rays, (3 * m).astype(np.float32), (3 * c).astype(np.float32) + offset, stride, counts)
            pixels += sum(panel.size for panel in panels)
        return pixels

    if kind == "bare":
        work((0, 1))  # compiles
    edges = np.linspace(0, frames, max(nproc, frames // 10) + 1).astype(int)
    began = time.perf_counter()
    pixels = sum(parallel_map(work, list(zip(edges[:-1], edges[1:])), nproc, kind))
    return pixels / (time.perf_counter() - began) / 1e6


def bare_loop():
    """Index every pixel and add its counts to a dense array: no mask, no error, no position; the least there can be."""
    from numba import njit

    @njit(cache=True)
    def bare(raw, rays, m, c, stride, counts):
        for y in range(raw.shape[0]):
            for i in range(raw.shape[1]):
                u, v, w = rays[y, 0, i], rays[y, 1, i], rays[y, 2, i]
                h = np.int32(m[0, 0] * u + m[0, 1] * v + m[0, 2] * w + c[0])
                k = np.int32(m[1, 0] * u + m[1, 1] * v + m[1, 2] * w + c[1])
                l = np.int32(m[2, 0] * u + m[2, 1] * v + m[2, 2] * w + c[2])
                counts[(h * stride[0] + k) * stride[1] + l] += raw[y, i]

    return bare


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    if len(sys.argv) == 4:
        print(rate(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "bench")
