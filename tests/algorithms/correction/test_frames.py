"""The loop over frames for scripts gives what extraction and correction make of the same images."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dials_session import working_directory
from dxtbx import flumpy
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse
from scitbx import matrix
from small_session import EXTRACTION, copy_session, make_session, predicted_reflections, program

from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.correct import correct
from dials_diffuse.algorithms.correction.frames import pixel_frames
from dials_diffuse.algorithms.correction.model import CorrectionModel
from dials_diffuse.algorithms.extraction.extract import extract
from dials_diffuse.algorithms.masking.masks import make_masks
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.parameters import parameters


@pytest.fixture
def sweep(make_once, tmp_path, monkeypatch) -> Experiment:
    copy_session(make_once("small-session", make_session), tmp_path)
    monkeypatch.chdir(tmp_path)
    return ExperimentList.from_file("refined_1.expt")[0]


def scan_varying(sweep: Experiment) -> Experiment:
    """Crystal and beam turn by some tenths of a degree over the sweep; gain and pedestal are not 1 and 0."""
    points = sweep.scan.get_num_images() + 1
    axis = matrix.col((0.3, 1.0, -0.4))
    turns = [matrix.sqr(axis.axis_and_angle_as_r3_rotation_matrix(0.1 * i, deg=True)) for i in range(points)]
    sweep.crystal.set_A_at_scan_points([(turn * matrix.sqr(sweep.crystal.get_A())).elems for turn in turns])
    sweep.beam.set_s0_at_scan_points([(turn * matrix.col(sweep.beam.get_s0())).elems for turn in turns])
    for panel in sweep.detector:
        panel.set_gain(2.0)
        panel.set_pedestal(3.0)
    return sweep


def still(sweep: Experiment) -> Experiment:
    imageset = ImageSetFactory.new([sweep.imageset.get_path(2)])[0]
    return Experiment(sweep.beam, sweep.detector, crystal=sweep.crystal, imageset=imageset, identifier="still")


@pytest.fixture
def two_panels(make_once) -> Experiment:
    def make(folder):
        panels = (
            "detector.model=two_modules detector.panel_size=120,80 detector.distance=60 background.images=0 format=nxmx"
        )
        with working_directory(folder):
            program("simulate")(f"sweeps=1 frames=2 oscillation.width=1 nproc=1 {panels}".split())

    folder = make_once("two-panels", make)
    with working_directory(folder):
        return Truth.from_file("truth.json").experiments(check_format=True)[0]


def as_columns(masks, **options) -> dict[str, np.ndarray]:
    """All that the loop yields, one row a pixel."""
    passed = list(pixel_frames(masks, **options))
    names = ("x", "y", "q", "h", "index", "counts", "response")
    columns = {name: np.concatenate([getattr(pixels, name) for pixels in passed]) for name in names}
    for name in ("panel", "z"):
        columns[name] = np.repeat([getattr(pixels, name) for pixels in passed], [len(pixels.x) for pixels in passed])
    assert all(len(values) == len(columns["x"]) for values in columns.values())
    return columns


def test_sums_over_voxels_are_the_observations(sweep):
    """With the Bragg mask that the reflections make, of counts and pixels exactly."""
    experiments, reflections = ExperimentList([sweep]), predicted_reflections(sweep)
    dataset = extract(experiments, reflections, parameters("extract", *EXTRACTION))
    correct(dataset, parameters("correct"))
    table, grid = dataset.observations, dataset.grid
    (masks,) = make_masks(experiments, reflections, parameters("mask", "nproc=1"))
    pixels = as_columns(masks, grid=grid)

    def sums(index, *values):
        key = grid.index2key(index)
        voxels, inverse = np.unique(key, return_inverse=True)
        return voxels, *(np.bincount(inverse, value) for value in values)

    names = ("num_pixels.valid", "counts", "response")
    expected = sums(miller_index_to_numpy(table["miller_index"]), *(flumpy.to_numpy(table[name]) for name in names))
    found = sums(pixels["index"], np.ones(len(pixels["x"])), pixels["counts"], pixels["response"])
    for i in range(3):
        assert (found[i] == expected[i]).all()
    # dials.diffuse_correct takes the corrections at the observation's mean pixel, and these voxels are large
    np.testing.assert_allclose(found[3], expected[3], rtol=2e-3)
    assert found[3].sum() == pytest.approx(expected[3].sum(), rel=5e-4)
    assert 0 < len(pixels["x"]) < 0.99 * 6 * masks.pixels[0].sum()  # Bragg peaks are masked
    near = np.abs(pixels["h"] - pixels["index"]).max()
    assert 0.49 < near < 0.5001


@pytest.mark.parametrize("case", ["rotating", "scan_varying", "still", "two_panels"])
def test_pixels_are_those_of_extraction_pixel_by_pixel(case, request):
    if case == "two_panels":
        experiment = request.getfixturevalue("two_panels")
    else:
        sweep = request.getfixturevalue("sweep")
        experiment = {"rotating": lambda it: it, "scan_varying": scan_varying, "still": still}[case](sweep)
    experiments = ExperimentList([experiment])
    unmasked = ("bragg_mask.mode=none", "nproc=1")
    wanted = parameters("extract", "extract.mode=pixel", "grid.ndiv=2,2,2", "d_min=2", *unmasked)
    dataset = extract(experiments, None, wanted)
    correct(dataset, parameters("correct"))
    table = dataset.observations
    (masks,) = make_masks(experiments, None, parameters("mask", *unmasked))
    pixels = as_columns(masks, grid=dataset.grid)
    xyz = flumpy.to_numpy(table["xyzobs.px.value"])
    panel = np.array(table["panel"])
    assert len(np.unique(panel)) == len(experiment.detector) and len(np.unique(xyz[:, 2])) == len(experiment.imageset)
    theirs = np.lexsort((*xyz.T, panel))
    ours = np.lexsort((pixels["x"], pixels["y"], pixels["z"], pixels["panel"]))
    assert len(theirs) == len(ours) > 1000
    assert (np.stack([pixels[name][ours] for name in "xyz"], axis=1) == xyz[theirs]).all()
    assert (pixels["index"][ours] == miller_index_to_numpy(table["miller_index"])[theirs]).all()
    np.testing.assert_array_equal(pixels["counts"][ours], flumpy.to_numpy(table["counts"])[theirs])
    np.testing.assert_allclose(pixels["response"][ours], flumpy.to_numpy(table["response"])[theirs], rtol=1e-6)
    if experiment.crystal.num_scan_points == 0:
        h = flumpy.to_numpy(table["rlp"])[theirs] @ np.linalg.inv(np.array(experiment.crystal.get_A()).reshape(3, 3)).T
        np.testing.assert_allclose(pixels["h"][ours], h, atol=1e-5)
    length = np.linalg.norm(pixels["q"], axis=1)
    assert length.max() < 0.5 + 0.1
    assert np.allclose(length, dataset.grid.q(2 * pixels["h"]), rtol=0.02)


def test_predicted_reflections_are_where_they_are_found(sweep):
    """Pixels next to reflections that DIALS predicts have their indices, frame by frame."""
    reflections = predicted_reflections(sweep)
    (masks,) = make_masks(ExperimentList([sweep]), None, parameters("mask", "bragg_mask.mode=none", "nproc=1"))
    xyz = flumpy.to_numpy(reflections["xyzcal.px"])
    indices = miller_index_to_numpy(reflections["miller_index"])
    seen = 0
    for pixels in pixel_frames(masks, frames=[1, 4]):
        assert pixels.frame in (1, 4) and pixels.z == sweep.scan.get_array_range()[0] + pixels.frame + 0.5
        image = np.full((*sweep.detector[0].get_image_size(), 3), np.nan)
        image[pixels.x.astype(int), pixels.y.astype(int)] = pixels.h
        now = np.abs(xyz[:, 2] - pixels.z) < 0.2
        found = image[tuple(np.floor(xyz[now, :2]).astype(int).T)]
        known = np.isfinite(found).all(axis=1)
        assert np.abs(found - indices[now])[known].max() < 0.15
        seen += known.sum()
    assert seen > 5


def test_corrections_that_are_the_same_on_all_frames_are_computed_once(sweep):
    class Counting(CorrectionModel):
        name = "counting"
        phil_scope = parse("use = True\n  .type = bool")
        calls = 0

        def factor(self, geometry):
            type(self).calls += 1
            return 1 + geometry.xyz[:, 2]

    class Constant(Counting):
        name = "constant"
        same_on_all_frames = True
        calls = 0

    (masks,) = make_masks(ExperimentList([sweep]), None, parameters("mask", "bragg_mask.mode=none", "nproc=1"))
    plain = CombinedCorrection(parameters("correct").correction)
    more = copy.copy(plain)
    more.models = [*plain.models, Counting(None)]
    base, varied = as_columns(masks, corrections=plain), as_columns(masks, corrections=more)
    assert Counting.calls == 6
    np.testing.assert_allclose(varied["response"] / base["response"], 1 + base["z"], rtol=1e-12)
    more.models = [Constant(None)]
    constant = as_columns(masks, corrections=more)
    assert Constant.calls == 1 and len(np.unique(constant["response"])) == 1
