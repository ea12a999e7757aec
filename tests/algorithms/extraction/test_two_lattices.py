"""Two crystals in the same images: the peaks of each are masked for both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dials.array_family import flex
from dials_session import working_directory
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList
from indexed_spots import indexed_spots
from observation_data import put_scales

from dials_diffuse.algorithms.correction.correct import correct
from dials_diffuse.algorithms.extraction.extract import extract
from dials_diffuse.algorithms.masking.masks import bragg_frame_masks, make_masks
from dials_diffuse.algorithms.masking.shared_images import other_experiments
from dials_diffuse.algorithms.merging.merge import merge
from dials_diffuse.algorithms.simulation.compare import compare
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_simulate
from dials_diffuse.parameters import parameters

SIMULATION = (
    "sweeps=1 frames=40 oscillation.width=1 exposure=1 photons=2 background.photons=0 b.variation=0 b.decay=0"
    " header.perturb=False halos.strength=0 beam_stop.radius=0 detector.model=100K detector.distance=60"
    " crystal.unit_cell=20,22,24,90,90,90 lattices.number=2 lattices.diffuse=0 bragg.photons=3e4 nproc=1"
)
OPTIONS = ("d_min=1.5", "virtual_pixels=False", "grid.ndiv=5,5,5", "nproc=1")


@pytest.fixture(scope="module")
def folder(make_once) -> Path:
    def make(folder: Path) -> None:
        with working_directory(folder):
            diffuse_simulate.run(SIMULATION.split())
            experiments = Truth.from_file("truth.json").experiments(check_format=True)
            indexed_spots(experiments).as_file("both.refl")
            for i in (0, 1):  # as from separate sessions
                experiments[i : i + 1].as_json(f"{i + 1}.expt")

    return make_once("two-lattices", make)


@pytest.fixture(params=["one imageset", "two sessions"])
def lattices(folder, request) -> tuple[ExperimentList, flex.reflection_table]:
    """Both lattices and their spots, by true models."""
    reflections = flex.reflection_table.from_file(folder / "both.refl")
    if request.param == "one imageset":
        return Truth.from_file(folder / "truth.json").experiments(check_format=True), reflections
    experiments = ExperimentList()
    for name in ("1.expt", "2.expt"):
        experiments.extend(ExperimentList.from_file(folder / name))
    assert experiments[0].imageset is not experiments[1].imageset
    return experiments, reflections


def chi_squared(folder: Path, experiments: ExperimentList, reflections: flex.reflection_table) -> float:
    """Of the map of the first lattice, whose diffuse scattering is all there is, away from its own Bragg points."""
    dataset = extract(experiments, reflections, parameters("extract", *OPTIONS, "extract.experiments=0"))
    assert list(dataset.experiments.identifiers()) == [experiments[0].identifier]
    correct(dataset, parameters("correct"))
    put_scales(dataset.observations, np.ones(len(dataset.observations)))
    merged = merge(dataset, parameters("merge"))
    away = (merged.index % 5 != 0).any(axis=1)
    found = compare(
        Truth.from_file(folder / "truth.json"),
        merged.index[away],
        dataset.grid.ndiv,
        merged.intensity[away],
        merged.variance[away],
    )
    assert found.voxels > 50_000
    return found.chi_squared


def test_the_map_does_not_see_the_other_lattice(folder, lattices):
    experiments, reflections = lattices
    assert 0.95 < chi_squared(folder, experiments, reflections) < 1.1


def test_without_the_other_lattice_its_peaks_are_in_the_map(folder):
    experiments = Truth.from_file(folder / "truth.json").experiments(check_format=True)[:1]
    reflections = flex.reflection_table.from_file(folder / "both.refl")
    assert chi_squared(folder, experiments, reflections.select(reflections["id"] == 0)) > 100


def test_mask_of_an_image_shows_both(lattices):
    """It is the intersection of what each has alone, the same for both."""
    experiments, reflections = lattices
    params = parameters("mask", "virtual_pixels=False", "nproc=1")
    masks = make_masks(experiments, reflections, params)
    assert masks[0].pixels is masks[1].pixels
    both = bragg_frame_masks(masks, 7)
    assert all((a == b).all() for a, b in zip(*both))
    for mask in masks:
        mask.others = {}
    alone = bragg_frame_masks(masks, 7)
    assert all((a & b == c).all() for a, b, c in zip(*alone, both[0]))
    assert (alone[0][0] & ~both[0][0]).mean() > 0.01


@pytest.mark.parametrize("mode", ["shoebox", "ellipsoid"])
def test_pixels_of_one_lattice_are_those_of_none_without_the_masks_of_both(folder, mode):
    """Pixel by pixel and frame by frame."""
    experiments = Truth.from_file(folder / "truth.json").experiments(check_format=True)
    for experiment in experiments:
        experiment.imageset = experiment.imageset[2:4]
        experiment.scan = experiment.imageset.get_scan()
    reflections = flex.reflection_table.from_file(folder / "both.refl")
    options = ("extract.mode=pixel", "mask.bad_pixels.find=False", *OPTIONS)

    def pixels(mode: str) -> np.ndarray:
        table = extract(
            experiments, reflections, parameters("extract", *options, f"bragg_mask.mode={mode}")
        ).observations
        x, y, z = (flumpy.to_numpy(part).astype(int) for part in table["xyzobs.px.value"].parts())
        image = np.zeros((2, 2, 195, 487), dtype=bool)
        image[flumpy.to_numpy(table["id"]), z - 2, y, x] = True
        return image

    everything, found = pixels("none"), pixels(mode)
    params = parameters("mask", "virtual_pixels=False", "bad_pixels.find=False", f"bragg_mask.mode={mode}", "nproc=1")
    masks = make_masks(experiments, reflections, params)
    expected = everything & np.array([bragg_frame_masks(masks, image)[0][0] for image in (3, 4)])
    assert (found == expected).all()
    assert found.sum() < 0.97 * everything.sum()


def test_no_good_pixel_is_called_bad_for_the_peaks_of_either(folder, lattices):
    params = parameters("mask", "virtual_pixels=False", "bad_pixels.frames=4", "nproc=1")
    (found,) = make_masks(*lattices, params)[0].pixels
    (good,) = Truth.from_file(folder / "truth.json").mask()
    assert np.count_nonzero(good & ~found) < 5


def test_which_frames_are_shared(folder):
    """Parts of a sweep: the others' frames are counted from where their parts begin."""
    experiments = Truth.from_file(folder / "truth.json").experiments(check_format=True)
    experiments[0].imageset, experiments[1].imageset = experiments[0].imageset[2:6], experiments[1].imageset[4:7]
    assert other_experiments(experiments) == [{2: [(1, 0)], 3: [(1, 1)]}, {0: [(0, 2)], 1: [(0, 3)]}]


def test_which_images_of_one_file_are_shared(tmp_path):
    with working_directory(tmp_path):
        diffuse_simulate.run([*SIMULATION.split(), "frames=3", "stills=True", "format=nxmx"])
        experiments = Truth.from_file("truth.json").experiments(check_format=True)
    assert len(experiments) == 6 and len(set(experiments[0].imageset.paths() + experiments[5].imageset.paths())) == 1
    pairs = [(0, 1), (2, 3), (4, 5)]  # two crystals an image
    assert other_experiments(experiments) == [{0: [(b, 0)]} for pair in pairs for b in reversed(pair)]


def test_links_are_followed(folder, tmp_path):
    """Two sessions that reach the images by different paths."""
    (tmp_path / "images").symlink_to(folder / "images")
    content = json.loads((folder / "2.expt").read_text())
    template = content["imageset"][0]["template"]
    content["imageset"][0]["template"] = template.replace(str(folder), str(tmp_path))
    (tmp_path / "2.expt").write_text(json.dumps(content))
    experiments = ExperimentList.from_file(folder / "1.expt")
    experiments.extend(ExperimentList.from_file(tmp_path / "2.expt"))
    assert experiments[0].imageset.get_path(0) != experiments[1].imageset.get_path(0)
    assert other_experiments(experiments) == [{i: [(1 - n, i)] for i in range(40)} for n in (0, 1)]
