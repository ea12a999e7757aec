"""Experiments with tilted panels, and observations at random positions on them: for tests of corrections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cctbx import sgtbx, uctbx
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.format.FormatCBFMini import FormatCBFMini
from dxtbx.model import (
    Beam,
    Crystal,
    Detector,
    DetectorFactory,
    Experiment,
    GoniometerFactory,
    ParallaxCorrectedPxMmStrategy,
    ScanFactory,
)
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy

SIZE = (200, 150)
GRID = GlobalGrid(uctbx.unit_cell((40, 40, 60, 90, 90, 90)), sgtbx.space_group_info("P 4").group(), (2, 2, 2), 1.8)
#: Frames: fast axis, slow axis, distance along the normal, offset of the origin along both axes; none faces the beam.
PANELS = (
    ((1, 0, 0), (0, -0.96, 0.28), 140, (-30, -12)),
    ((0.8, 0, 0.6), (0, -1, 0), 110, (5, -20)),
    ((0.6, 0.48, 0.64), (0.8, -0.36, -0.48), 120, (-50, 20)),
)


def tilted_detector(mu: float = 2.1, thickness: float = 0.45) -> Detector:
    """Three tilted panels, with parallax correction where the sensor is known."""
    detector = Detector()
    for i, (fast, slow, distance, (x, y)) in enumerate(PANELS):
        fast, slow = np.array(fast, dtype=float), np.array(slow, dtype=float)
        normal = np.cross(fast, slow)
        normal *= -np.sign(normal[2])
        panel = detector.add_panel()
        panel.set_name(f"panel-{i}")
        panel.set_pixel_size((0.172, 0.2))
        panel.set_image_size(SIZE)
        panel.set_trusted_range((0, 1e6))
        panel.set_frame(tuple(fast), tuple(slow), tuple(distance * normal + x * fast + y * slow))
        panel.set_mu(mu)
        panel.set_thickness(thickness)
        if mu * thickness > 0:
            panel.set_px_mm_strategy(ParallaxCorrectedPxMmStrategy(mu, thickness))
    return detector


def make_experiment(number: int = 0, detector: Detector | None = None, n_frames: int = 90, exposure: float = 0.1):
    """A rotation experiment at 0.7 Angstrom, its beam a little off -z and partly polarised along a tilted normal."""
    beam = Beam((0.02, -0.01, 1.0), 0.7 + 0.1 * number)
    beam.set_polarization_fraction(0.93)
    normal = np.cross(beam.get_unit_s0(), (1, 0.1, 0))
    beam.set_polarization_normal(tuple(normal / np.linalg.norm(normal)))
    return Experiment(
        identifier=f"sweep-{number}",
        beam=beam,
        detector=detector or tilted_detector(),
        goniometer=GoniometerFactory.known_axis((1, 0.05, 0)),
        scan=ScanFactory.make_scan((1, n_frames), exposure, (0.0, 1.0), {i: float(i) for i in range(1, n_frames + 1)}),
        crystal=Crystal((40, 0, 0), (0, 40, 0), (0, 0, 60), space_group_symbol="P 4"),
    )


def random_positions(n: int, panel: int, seed: int, n_frames: int = 90) -> np.ndarray:
    """Positions in pixels, pixels and frames, shape (n, 3)."""
    return np.random.default_rng([seed, panel]).uniform((0, 0, 0), (*SIZE, n_frames), (n, 3))


def make_dataset(experiments: list[Experiment], n: int = 2000, pixels: int = 25, seed: int = 5) -> Dataset:
    """Observations at random places, ``n`` a panel, each of ``pixels`` pixels; their counts are zeros."""
    parts = []
    for i, experiment in enumerate(experiments):
        exposure = experiment.scan.get_exposure_times()[0] if experiment.scan else 1.0
        for panel in range(len(experiment.detector)):
            parts.append((np.full(n, i), np.full(n, panel), random_positions(n, panel, seed + i), np.full(n, exposure)))
    rng = np.random.default_rng(seed)
    order = rng.permutation(n * len(parts))
    ids, panels, xyz, exposures = (np.concatenate(column)[order] for column in zip(*parts))
    table = flex.reflection_table()
    table["id"] = flumpy.from_numpy(ids.astype(np.int32))
    table["panel"] = flumpy.from_numpy(panels.astype(np.uint64))
    table["batch"] = flumpy.from_numpy(xyz[:, 2].astype(np.int32))
    table["miller_index"] = miller_index_from_numpy(rng.integers(-20, 20, (len(ids), 3)))
    table["num_pixels.valid"] = flex.int(len(ids), pixels)
    table["counts"] = flex.double(len(ids), 0.0)
    table["exposure"] = flumpy.from_numpy(pixels * exposures)
    table["xyzobs.px.value"] = flumpy.vec_from_numpy(xyz)
    for i, experiment in enumerate(experiments):
        table.experiment_identifiers()[i] = experiment.identifier
    return Dataset(ExperimentList(experiments), table, GRID)


def flat_detector(size: tuple[int, int] = SIZE) -> Detector:
    """One flat panel facing the beam, without a known sensor: what a miniCBF of dxtbx describes."""
    centre = (size[0] * 0.172 / 2, size[1] * 0.172 / 2)
    return DetectorFactory.simple("PAD", 120, centre, "+x", "-y", (0.172, 0.172), size, (-1, 1e6))


def write_images(folder: Path, images: list[np.ndarray], exposure: float, width: float = 1.0) -> ExperimentList:
    """Write miniCBF files of integer arrays, all of one shape, and import them."""
    model = make_experiment(detector=flat_detector(images[0].shape[::-1]))
    scan = ScanFactory.make_scan((1, len(images)), exposure, (0, width), {i + 1: 0.0 for i in range(len(images))})
    names = [str(folder / f"background_{i + 1:04d}.cbf") for i in range(len(images))]
    for i, (name, image) in enumerate(zip(names, images)):
        data = flumpy.from_numpy(np.ascontiguousarray(image, dtype=np.int32))
        FormatCBFMini.as_file(model.detector, model.beam, model.goniometer, scan[i], data, name)
    return ExperimentListFactory.from_filenames(names)
