"""Stills that share one image set, as dials.import makes them of images whose headers call the rotation 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dials_session import dials, working_directory
from dxtbx.model import Experiment, ScanFactory
from dxtbx.model.experiment_list import ExperimentList
from indexed_spots import indexed_spots

from dials_diffuse.algorithms.extraction.extract import extract
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_simulate
from dials_diffuse.images import frame_arrays
from dials_diffuse.parameters import parameters
from dials_diffuse.stills import is_still, own_images, with_own_images

SIMULATION = (
    "stills=True sweeps=1 frames=5 background.photons=0 detector.model=100K detector.distance=60"
    " crystal.unit_cell=20,22,24,90,90,90 header.perturb=False bragg.photons=3e4 nproc=1"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    with working_directory(folder):
        diffuse_simulate.run(SIMULATION.split())
        dials(folder, "import", *sorted(str(path) for path in Path("images").glob("sweep_1_*.cbf")))
    return folder


@pytest.fixture
def shared(folder) -> ExperimentList:
    """What dials.import makes, with the true models: one sequence of images, scans of one image each."""
    imported = ExperimentList.from_file(folder / "imported.expt")
    assert len(imported) == 5 and len(imported.imagesets()) == 1 and len(imported[0].imageset) == 5
    for experiment, true in zip(imported, Truth.from_file(folder / "truth.json").experiments()):
        assert experiment.scan.get_num_images() == 1
        experiment.crystal, experiment.beam, experiment.detector = true.crystal, true.beam, true.detector
    return imported


def test_every_still_gets_its_own_image(shared):
    own = with_own_images(shared)
    for i, (before, after) in enumerate(zip(shared, own)):
        assert is_still(before) and is_still(after) and len(after.imageset) == 1
        assert after.crystal == before.crystal and after.identifier == before.identifier
        (image,), (same,) = frame_arrays(after.imageset, 0), frame_arrays(before.imageset, i)
        np.testing.assert_array_equal(image, same)
    assert len(shared[0].imageset) == 5
    again = with_own_images(own)
    assert all(a.imageset is b.imageset for a, b in zip(own, again))


def test_extraction_is_that_of_separate_images(folder, shared):
    apart = Truth.from_file(folder / "truth.json").experiments(check_format=True)
    spots = indexed_spots(apart)
    options = parameters("extract", "d_min=1.5", "nproc=1", "bragg_mask.mode=ellipsoid")
    expected = extract(apart, spots, options).observations
    found = extract(shared, spots, options).observations
    assert set(found["id"]) == {0, 1, 2, 3, 4}
    for column in expected.keys():
        assert list(found[column]) == list(expected[column]), column


def test_a_sweep_that_has_a_part_of_the_images(folder):
    whole = ExperimentList.from_file(folder / "imported.expt")[0]
    scan = ScanFactory.make_scan((2, 4), [0.1] * 3, (0.5, 0.5), {i: i for i in range(2, 5)})
    part = Experiment(imageset=whole.imageset, scan=scan, detector=whole.detector, beam=whole.beam)
    images = own_images(part)
    assert len(images) == 3
    np.testing.assert_array_equal(frame_arrays(images, 0)[0], frame_arrays(whole.imageset, 1)[0])
