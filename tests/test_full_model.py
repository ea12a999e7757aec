"""The full scaling model on simulated images in which all its terms are at work, held against the known answer.

Geometry and pixel mask are the true ones: what is wrong in the map is scaling's or merging's doing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from against_truth import against_truth
from dials_session import working_directory
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from indexed_spots import indexed_spots
from true_terms import offset_gauge, put_terms, static_response, term_errors, true_terms

from dials_diffuse.algorithms.masking.mask_file import write_mask
from dials_diffuse.algorithms.scaling.apply import term_values
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_correct, diffuse_extract, diffuse_merge, diffuse_scale, diffuse_simulate
from dials_diffuse.dataset import Dataset

TERMS = "a.strength=0.15 c.strength=0.3 d.strength=0.08"
SIMULATION = f"background.variation=0.2 nproc=1 {TERMS}"
#: Frames whose spots tell the size of the peaks.
SPOT_FRAMES = 20


def make_corrected(folder: Path, simulation: str, d_min: float) -> None:
    """Images, and the corrected observations of them."""
    with working_directory(folder):
        diffuse_simulate.run(f"{SIMULATION} {simulation}".split())
        truth = Truth.from_file("truth.json")
        experiments = truth.experiments(check_format=True)
        experiments.as_file("true.expt")
        for experiment in experiments:
            experiment.imageset = experiment.imageset[:SPOT_FRAMES]
            experiment.scan = experiment.scan[:SPOT_FRAMES]
        indexed_spots(experiments).as_file("true.refl")
        write_mask(truth.mask(), "true.mask")
        imageset = ImageSetFactory.new([str(path) for path in sorted(Path("images").glob("background_*.cbf"))])[0]
        models = imageset.get_beam(), truth.detector, imageset.get_goniometer(), imageset.get_scan()
        ExperimentList([Experiment(*models, imageset=imageset)]).as_file("background.expt")
        options = ("pixel_mask=true.mask", f"d_min={d_min}", "virtual_pixels=False", "nproc=1")
        diffuse_extract.run(["true.expt", "true.refl", *options])
        diffuse_correct.run(["extracted.expt", "extracted.refl", "background=background.expt", "rotation_bins=8"])


def make_scaled(folder: Path, simulation: str, d_min: float) -> None:
    """The map as a user gets it, from images to merged.nxs."""
    make_corrected(folder, simulation, d_min)
    with working_directory(folder):
        diffuse_scale.run(["corrected.expt", "corrected.refl", "scaling.terms=scale,absorption,offset,detector"])
        diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.test_symmetry=False"])


@pytest.fixture(scope="module")
def one_photon(make_once) -> Path:
    """At 1 photon a pixel: corrected, scaled, merged."""
    simulation = "photons=1 frames=100 background.images=40"
    return make_once("full-model-1", lambda folder: make_scaled(folder, simulation, d_min=2))


def merge_with_true_terms(made: Path, folder: Path, truth: Truth) -> None:
    dataset = Dataset.from_files(made / "corrected.expt", made / "corrected.refl")
    put_terms(dataset.observations, true_terms(dataset, truth))
    dataset.write(folder / "scaled.expt", folder / "scaled.refl")
    with working_directory(folder):
        diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.test_symmetry=False"])


@pytest.mark.xdist_group("full_model")
def test_every_term_is_the_true_one(one_photon):
    dataset = Dataset.from_files(one_photon / "scaled.expt", one_photon / "scaled.refl")
    errors = term_errors(dataset, Truth.from_file(one_photon / "truth.json"), term_values(dataset))
    print(f"\n{errors}")
    assert errors.b < 0.01
    assert errors.a < 0.015
    assert errors.d < 0.01
    assert errors.c < 0.03


@pytest.mark.xdist_group("full_model")
def test_map_is_as_good_as_with_true_terms(one_photon, tmp_path):
    truth = Truth.from_file(one_photon / "truth.json")
    response = static_response(truth)
    found, touching = (against_truth(one_photon, truth, touching=t, response=response) for t in (False, True))
    merge_with_true_terms(one_photon, tmp_path, truth)
    ideal = against_truth(tmp_path, truth)
    print(f"\nfound: {found}\nideal: {ideal}\ntouching Bragg points: {touching}")
    assert found.voxels > 0.99 * ideal.voxels
    assert found.correlation > 0.99 * ideal.correlation
    assert 0.97 < found.chi_squared < 1.05
    assert touching.chi_squared < 1.3
    assert found.mean == pytest.approx(1, abs=0.01)


def test_low_counts(make_once):
    """0.05 photons a pixel.

    b I + c does not tell a function of |q| that c has from one that I has. By convention the least c over all angles is
    0; noise makes the least one lower, so that c holds something of I: the mean is compared after I has it back.
    """
    simulation = "photons=0.05 background.photons=0.02 frames=100 background.images=40"
    made = make_once("full-model-0.05", lambda folder: make_scaled(folder, simulation, d_min=2.5))
    truth = Truth.from_file(made / "truth.json")
    dataset = Dataset.from_files(made / "scaled.expt", made / "scaled.refl")
    terms = term_values(dataset)
    errors = term_errors(dataset, truth, terms)
    found = against_truth(made, truth, response=static_response(truth), lost=offset_gauge(dataset, truth, terms))
    print(f"\n0.05 photons: {found}\n{errors}")
    assert 0.95 < found.chi_squared < 1.1
    assert found.mean == pytest.approx(1, abs=0.01)
    assert errors.c < 0.03
