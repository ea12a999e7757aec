"""Stills, each with a crystal of its own, from images to a map held against the known answer."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from dials.array_family import flex
from dials_session import working_directory
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList
from indexed_spots import indexed_spots
from scitbx import matrix

from dials_diffuse.algorithms.extraction.extract import experiments_by_detector, extract
from dials_diffuse.algorithms.masking.masks import attach_masks, bragg_frame_masks, make_masks
from dials_diffuse.algorithms.masking.peak_shape import measure_peak_shape
from dials_diffuse.algorithms.simulation.compare import compare
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_correct, diffuse_extract, diffuse_merge, diffuse_scale, diffuse_simulate
from dials_diffuse.dataset import read_diffuse_header
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.map_file import read_map
from dials_diffuse.parameters import parameters

pytestmark = pytest.mark.xdist_group("stills")

STILLS = 40
SIMULATION = (
    f"stills=True sweeps=1 frames={STILLS} exposure=1 photons=2 background.photons=0 b.variation=0.4"
    " header.perturb=False halos.strength=0 beam_stop.radius=0 detector.model=100K detector.distance=60"
    " crystal.unit_cell=20,22,24,90,90,90 bragg.photons=2e3 nproc=1"
)
FILES = ("stills.expt", "stills.refl")


@pytest.fixture(scope="module")
def made(make_once) -> Path:
    """Images, truth.json, stills.* as DIALS would make them, and all that our programs make of them."""

    def make(folder: Path) -> None:
        with working_directory(folder):
            diffuse_simulate.run(SIMULATION.split())
            experiments = Truth.from_file("truth.json").experiments(check_format=True)
            experiments.as_json(FILES[0])
            indexed_spots(experiments).as_file(FILES[1])
            diffuse_extract.run([*FILES, "grid.ndiv=5,5,5", "d_min=1.5", "virtual_pixels=False", "nproc=2"])
            diffuse_correct.run(["extracted.expt", "extracted.refl"])
            diffuse_scale.run(["corrected.expt", "corrected.refl"])
            diffuse_merge.run(["scaled.expt", "scaled.refl"])

    return make_once("stills", make)


@pytest.fixture
def stills(made) -> tuple[ExperimentList, flex.reflection_table]:
    return ExperimentList.from_file(made / FILES[0]), flex.reflection_table.from_file(made / FILES[1])


def test_map_against_the_truth(made):
    grid, history = read_diffuse_header(made / "scaled.expt", "")
    assert len(history) == 3 and read_map(made / "merged.nxs").intensity.shape
    table = flex.reflection_table.from_file(made / "merged.refl")
    index = miller_index_to_numpy(table["miller_index"])
    away = (index % 5 != 0).any(axis=1)
    values, variances = (flumpy.to_numpy(table[f"intensity.scale.{name}"])[away] for name in ("value", "variance"))
    found = compare(Truth.from_file(made / "truth.json"), index[away], grid.ndiv, values, variances)
    print(f"\n{found}")
    assert found.voxels > 30_000
    assert 0.95 < found.chi_squared < 1.1
    assert found.mean == pytest.approx(1, abs=0.01)
    assert found.correlation > 0.9


def test_factors_of_the_stills(made):
    table = flex.reflection_table.from_file(made / "scaled.refl")
    ids, b = np.array(table["id"]), flumpy.to_numpy(table["inverse_scale_factor"])
    true = Truth.from_file(made / "truth.json").b_of_frames(0)
    experiments = ExperimentList.from_file(made / "scaled.expt", check_format=False)
    errors = np.array([e.scaling_model.components["scale"].parameter_esds[0] for e in experiments])
    found = np.array([b[ids == still].mean() for still in range(STILLS)])
    assert all(np.ptp(b[ids == still]) == 0 for still in range(STILLS))
    assert found.mean() == pytest.approx(1, abs=1e-6)
    assert np.std(true) > 0.15
    assert np.mean(((found - true) / errors) ** 2) == pytest.approx(1, abs=0.6)
    assert np.abs(found / true - 1).max() < 0.03


def test_the_log_is_short(made):
    for program in ("extract", "scale"):
        assert len((made / f"dials.diffuse_{program}.log").read_text().splitlines()) < 150
    assert (made / "extracted.mask").exists() and not list(made.glob("extracted_*.mask"))


def test_shape_of_peaks_pooled_over_stills(stills):
    """Isotropic in 1/A, of the simulated standard deviation and that of a pixel, though each spot is cut flat."""
    experiments, reflections = stills
    tables = [reflections.select(reflections["id"] == number) for number in range(STILLS)]
    params = parameters("mask").bragg_mask.ellipsoid
    shape = measure_peak_shape(list(experiments), tables, params)
    b = np.array(experiments[0].crystal.get_B()).reshape(3, 3)
    assert len(shape.strength) == len(reflections)
    pixel = 0.172 / 60 / experiments[0].beam.get_wavelength()
    for q in (0.1, 0.45):
        expected = np.sqrt(0.0013**2 + (np.radians(0.03) * q) ** 2 + pixel**2 / 12)
        widths = np.sqrt(np.linalg.eigvalsh(b @ shape.covariance @ b.T * (1 + shape.growth * q**2)))
        assert widths == pytest.approx(expected, rel=0.25)


def test_one_mask_for_all_and_no_still_decides_alone(stills):
    experiments, reflections = stills
    params = parameters("mask", "virtual_pixels=False", "nproc=1")
    masks = make_masks(experiments, reflections, params)
    assert len({id(mask.pixels) for mask in masks}) == len({id(mask.bragg.ellipsoids) for mask in masks}) == 1
    truth = Truth.from_file(Path(experiments[0].imageset.get_path(0)).parents[1] / "truth.json")
    assert (masks[0].pixels[0] & ~truth.mask()[0]).sum() <= 12 and (~masks[0].pixels[0] & truth.mask()[0]).sum() < 5
    few = make_masks(experiments[:3], reflections.select(reflections["id"] < 3), params)
    assert few[0].pixels[0].all()  # three stills do not tell hot pixels from good ones
    assert len(attach_masks(masks, "pixels.mask")) == 1
    for number in (1, STILLS):
        (frame,) = bragg_frame_masks(masks, number)
        assert 0.002 < 1 - frame[0].sum() / masks[0].pixels[0].sum() < 0.3


def test_detectors_that_were_refined_one_by_one(stills, made):
    """A still whose detector model is a pixel off, as refinement may leave it: judged with the others, by its rays."""
    experiments, reflections = stills
    for number in (1, 2):
        detector = experiments[number].detector = copy.deepcopy(experiments[number].detector)
        panel = detector[0]
        origin = matrix.col(panel.get_origin()) + matrix.col((0.172 * number, 0, 0))
        panel.set_frame(panel.get_fast_axis(), panel.get_slow_axis(), origin)
    assert experiments_by_detector(experiments) == [list(range(STILLS))]
    options = ("grid.ndiv=5,5,5", "d_min=1.5", "extract.mode=pixel", f"pixel_mask={made}/extracted.mask")
    first = experiments[:4]
    chosen = reflections.select(reflections["id"] < 4)
    table = extract(first, chosen, parameters("extract", *options, "nproc=2")).observations
    ids = np.array(table["id"])
    for number, still in enumerate(first):
        xyz = flumpy.to_numpy(table["xyzobs.px.value"])[ids == number][::997]
        panel = still.detector[0]
        for (x, y, _), rlp in zip(xyz, flumpy.to_numpy(table["rlp"])[ids == number][::997]):
            lab = matrix.col(panel.get_lab_coord(panel.pixel_to_millimeter((x, y))))
            q = lab.normalize() / still.beam.get_wavelength() - matrix.col(still.beam.get_s0())
            assert np.abs(np.array(q) - rlp).max() < 1e-6
