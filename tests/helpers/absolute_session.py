"""A crystal of known contents: simulated images, scaled observations, reflections integrated from the same photons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cctbx import crystal, miller
from dials.array_family import flex
from dials_session import working_directory
from dxtbx import flumpy
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from small_session import predicted_reflections, program

from dials_diffuse.algorithms.simulation.truth import Truth

#: Of the unit cell.
ORDERED, WATERS = "C190H300N50O60S2", 150
FRAMES = 45
SIMULATION = (
    f"sweeps=1 frames={FRAMES} oscillation.width=1.4 photons=20 background.photons=1 background.images=5 nproc=1 "
    "detector.model=custom detector.image_size=370,360 detector.distance=38 beam_stop.radius=1.5 "
    "bragg.b_factor=12 bragg.sigma=0.004 clouds.length=3,6 "
    f"crystal.unit_cell=20,22,24,90,90,90 absolute.crystal={ORDERED} absolute.solvent=O{WATERS}H{2 * WATERS}"
)
COMPOSITION = (
    "composition.per=unit_cell",
    f"composition.formula={ORDERED}",
    f"composition.formula={WATERS}*H2O",
    "composition.solvent.fraction=0",
)
D_MIN = 1.45


@pytest.fixture(scope="session")
def absolute_session(make_once) -> Path:
    """Holds truth.json, scaled.expt, scaled.refl, integrated.expt, integrated.refl, calculated.mtz."""
    return make_once("absolute", make_session)


def make_session(folder: Path) -> None:
    with working_directory(folder):
        program("simulate")(SIMULATION.split())
        truth = Truth.from_file("truth.json")
        experiments = truth.experiments(check_format=True)
        experiments.as_json("refined.expt")
        reflections = predicted_reflections(experiments[0])
        reflections.as_file("refined.refl")
        imageset = ImageSetFactory.new([f"images/background_{i:04d}.cbf" for i in range(1, 6)])[0]
        models = imageset.get_beam(), experiments[0].detector, imageset.get_goniometer(), imageset.get_scan()
        ExperimentList([Experiment(*models, imageset=imageset)]).as_json("background.expt")
        program("extract")(["refined.expt", "refined.refl", "grid.ndiv=2,2,2", f"d_min={D_MIN}", "nproc=1"])
        program("correct")(["extracted.expt", "extracted.refl", "background=background.expt"])
        program("scale")(["corrected.expt", "corrected.refl", "scaling.terms=scale"])
        experiments.as_json("integrated.expt")
        integrated(truth, experiments[0], reflections).as_file("integrated.refl")
        calculated(truth).as_mtz_dataset(column_root_label="FC").mtz_object().write("calculated.mtz")


def integrated(truth: Truth, experiment: Experiment, reflections: flex.reflection_table) -> flex.reflection_table:
    """Photons in a box round every reflection, less those expected of everything else."""
    bragg = truth._bragg
    truth.__dict__["_bragg"] = bragg._replace(intensity=0 * bragg.intensity)
    excess, image = np.zeros((2, len(truth.sweeps) * FRAMES, *truth._raw.q_length.shape))
    for frame in range(FRAMES):
        image[frame] = flumpy.to_numpy(experiment.imageset.get_raw_data(frame)[0])
        excess[frame] = image[frame] - truth.expected_image(0, frame)[0]
    truth.__dict__["_bragg"] = bragg
    x, y, z = (np.array(part) for part in reflections["xyzcal.px"].parts())
    box = [np.floor(centre).astype(int) for centre in (x, y, z)]
    slow, fast = image.shape[1:]
    inside = (z > 3) & (z < FRAMES - 3) & (x > 4) & (x < fast - 4) & (y > 4) & (y < slow - 4)
    zeta = np.abs(np.array(reflections["s1"]) @ np.cross([1.0, 0, 0], truth.beam.get_unit_s0()))
    inside &= zeta * truth.beam.get_wavelength() > 0.15
    inside &= truth.mask()[0][np.clip(box[1], 0, slow - 1), np.clip(box[0], 0, fast - 1)]
    chosen = reflections.select(flex.bool(inside))
    counts, variance = [], []
    for i, j, k in zip(*(centre[inside] for centre in box)):
        here = slice(k - 3, k + 4), slice(j - 4, j + 5), slice(i - 4, i + 5)
        counts.append(excess[here].sum())
        variance.append(image[here].sum())
    x, y, z = (flex.int(centre[inside]) for centre in box)
    chosen["bbox"] = flex.int6(x - 4, x + 5, y - 4, y + 5, z - 3, z + 4)
    chosen["intensity.sum.value"], chosen["intensity.sum.variance"] = flex.double(counts), flex.double(variance)
    chosen["partiality"] = flex.double(len(chosen), 1)
    chosen["flags"] = flex.size_t(len(chosen), 0)
    chosen.set_flags(flex.bool(len(chosen), True), chosen.flags.integrated_sum)
    return chosen


def calculated(truth: Truth) -> miller.array:
    """|F| of the truth in electrons."""
    bragg = truth._bragg
    symmetry = crystal.symmetry(unit_cell=truth.cell, space_group=truth.space_group)
    indices = miller.set(symmetry, flex.miller_index([tuple(map(int, h)) for h in bragg.hkl]), anomalous_flag=False)
    squares = bragg.intensity / truth.scales["diffuse"] * truth.cell.volume()
    amplitudes = indices.array(data=flex.double(np.sqrt(squares))).set_observation_type_xray_amplitude()
    return amplitudes.merge_equivalents().array()
