"""From images to a merged map, by real DIALS and our programs, held against the known answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from against_truth import against_truth
from dials.array_family import flex
from dials_session import TWO_SWEEPS, index_and_refine, working_directory
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList
from observation_data import put_scales

from dials_diffuse.algorithms.masking.mask_file import write_mask
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_correct, diffuse_extract, diffuse_merge, diffuse_scale, diffuse_simulate
from dials_diffuse.geometry import IndexMapping
from dials_diffuse.grid import miller_index_to_numpy

SWEEPS = ("sweep_1", "sweep_2")


def extract_and_correct(folder: Path, source: Path, *options: str) -> None:
    """The first two programs, from the refined sweeps in ``source``."""
    folder.mkdir(exist_ok=True)
    refined = [str(source / sweep / f"refined.{ending}") for sweep in SWEEPS for ending in ("expt", "refl")]
    with working_directory(folder):
        diffuse_extract.run([*refined, "d_min=2", "virtual_pixels=False", "nproc=1", *options])
        background = f"background={source / 'background' / 'imported.expt'}"
        diffuse_correct.run(["extracted.expt", "extracted.refl", background, "rotation_bins=8"])


def scale_and_merge(folder: Path, *options: str) -> None:
    with working_directory(folder):
        diffuse_scale.run(["corrected.expt", "corrected.refl", *options])
        diffuse_merge.run(["scaled.expt", "scaled.refl"])


def merge_with_true_scales(folder: Path, truth: Truth) -> None:
    """Put the true b into the observations in place of the refined one, then merge."""
    table = flex.reflection_table.from_file(str(folder / "corrected.refl"))
    z = flumpy.to_numpy(table["xyzobs.px.value"].parts()[2])
    ids = np.array(table["id"])
    b = np.empty(len(table))
    for number, sweep in enumerate(truth.sweeps):
        b[ids == number] = truth.b(number, sweep.start + sweep.width * z[ids == number])
    put_scales(table, b)
    table.as_file(str(folder / "scaled.refl"))
    shutil.copy(folder / "corrected.expt", folder / "scaled.expt")
    with working_directory(folder):
        diffuse_merge.run(["scaled.expt", "scaled.refl"])


@pytest.fixture(scope="module")
def merged(two_sweeps, make_once) -> Path:
    """The map of the two sweeps at 1 photon a pixel."""

    def make(folder: Path) -> None:
        extract_and_correct(folder, two_sweeps, "beam_stop.find=True")
        scale_and_merge(folder)

    return make_once("merged", make)


@pytest.mark.xdist_group("main_job")
def test_map_is_as_good_as_with_true_scales_and_masks(two_sweeps, merged, tmp_path):
    truth = Truth.from_file(two_sweeps / "truth.json")
    found = against_truth(merged, truth)
    write_mask(truth.mask(), tmp_path / "true.mask")
    extract_and_correct(tmp_path, two_sweeps, f"pixel_mask={tmp_path / 'true.mask'}")
    merge_with_true_scales(tmp_path, truth)
    ideal = against_truth(tmp_path, truth)
    print(f"\nfound: {found}\nideal: {ideal}")
    assert found.voxels > 0.95 * ideal.voxels
    assert found.correlation > 0.99 * ideal.correlation
    assert 0.95 < found.chi_squared < 1.05
    assert found.scale == pytest.approx(1, abs=0.01)
    assert found.mean == pytest.approx(1, abs=0.01)


@pytest.mark.xdist_group("main_job")
def test_refined_scale_is_the_true_one(two_sweeps, merged):
    truth = Truth.from_file(two_sweeps / "truth.json")
    table = flex.reflection_table.from_file(str(merged / "scaled.refl"))
    z = flumpy.to_numpy(table["xyzobs.px.value"].parts()[2])
    ids, found = np.array(table["id"]), flumpy.to_numpy(table["inverse_scale_factor"])
    for number, sweep in enumerate(truth.sweeps):
        true = truth.b(number, sweep.start + sweep.width * z[ids == number])
        error = np.sqrt(np.mean((found[ids == number] / true - 1) ** 2))
        print(f"\nsweep {number + 1}: b is off by {error:.4f} (rms)")
        assert error < 0.01
        assert np.ptp(true) > 0.2


@pytest.mark.xdist_group("main_job")
def test_low_counts(two_sweeps, tmp_path):
    """0.05 photons a pixel: the same crystals, so DIALS's geometry of the stronger images serves."""
    with working_directory(tmp_path):
        diffuse_simulate.run(["photons=0.05", "background.photons=0.02", *TWO_SWEEPS])
    for sweep in (*SWEEPS, "background"):
        (tmp_path / sweep).mkdir()
        name = "imported.expt" if sweep == "background" else "refined.expt"
        content = json.loads((two_sweeps / sweep / name).read_text())
        content["imageset"][0]["template"] = str(tmp_path / "images" / f"{sweep}_####.cbf")
        (tmp_path / sweep / name).write_text(json.dumps(content))
        if sweep != "background":
            shutil.copy(two_sweeps / sweep / "refined.refl", tmp_path / sweep)
    truth = Truth.from_file(tmp_path / "truth.json")
    extract_and_correct(tmp_path, tmp_path, "beam_stop.find=True")
    scale_and_merge(tmp_path, "scaling.terms=scale")
    found = against_truth(tmp_path, truth)
    print(f"\n0.05 photons: {found}")
    assert 0.9 < found.chi_squared < 1.1
    assert found.mean == pytest.approx(1, abs=0.01)


@pytest.mark.xdist_group("main_job")
def test_map_file_names_everything_that_ran(merged):
    with h5py.File(merged / "merged.nxs") as file:
        processes = [group for group in file["entry"].values() if group.attrs.get("NX_class") == "NXprocess"]
        programs = [group["program"][()].decode() for group in processes]
    steps = ("extract", "correct", "scale", "merge")
    assert programs == [f"dials.diffuse_{step}" for step in steps]


def assert_spots_map_to_integers(refined: Path) -> None:
    experiment = ExperimentList.from_file(refined / "refined.expt", check_format=False)[0]
    table = flex.reflection_table.from_file(str(refined / "refined.refl"))
    table = table.select(table.get_flags(table.flags.used_in_refinement))
    x, y, z = (flumpy.to_numpy(part) for part in table["xyzobs.px.value"].parts())
    expected, panels = miller_index_to_numpy(table["miller_index"]), np.array(table["panel"])
    mapping = IndexMapping(experiment)
    off = np.empty(len(table))
    for panel in set(panels):
        these = panels == panel
        off[these] = np.abs(mapping.hkl(int(panel), x[these], y[these], z[these]) - expected[these]).max(axis=1)
    assert len(table) > 1000
    for first in range(int(z.min()), int(z.max()), 10):  # at every rotation angle, not on average
        assert np.percentile(off[(z >= first) & (z < first + 10)], 95) < 0.05


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.xdist_group("main_job")
def test_observed_spots_map_to_integers(two_sweeps, sweep):
    assert_spots_map_to_integers(two_sweeps / sweep)


def test_observed_spots_map_to_integers_on_many_panels(tmp_path):
    with working_directory(tmp_path):
        diffuse_simulate.run(["sweeps=1", "frames=40", "background.images=0"])
    index_and_refine(tmp_path / "panels", "../images/sweep_1_####.cbf", "format.multi_panel=True")
    experiment = ExperimentList.from_file(tmp_path / "panels" / "refined.expt", check_format=False)[0]
    assert len(experiment.detector) == 3
    assert_spots_map_to_integers(tmp_path / "panels")
