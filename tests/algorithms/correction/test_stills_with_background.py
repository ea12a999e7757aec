"""Stills and a background of stills, whose exposure times the images alone tell, held against the known answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from against_truth import against_truth
from dials.array_family import flex
from dials_session import working_directory
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory
from indexed_spots import indexed_spots

from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_correct, diffuse_extract, diffuse_merge, diffuse_scale, diffuse_simulate

STILLS = 30
SIMULATION = (
    f"stills=True sweeps=1 frames={STILLS} exposure=0.2 photons=2 background.photons=1 background.images=8"
    " background.exposure=5 b.variation=0.4 header.perturb=False halos.strength=0 detector.model=100K"
    " detector.distance=60 crystal.unit_cell=20,22,24,90,90,90 bragg.photons=2e3 nproc=1"
)


def make_corrected(folder: Path, form: str) -> Truth:
    """Images in a folder, and the corrected observations of them."""
    folder.mkdir()
    with working_directory(folder):
        diffuse_simulate.run([*SIMULATION.split(), f"format={form}"])
        truth = Truth.from_file("truth.json")
        experiments = truth.experiments(check_format=True)
        experiments.as_json("stills.expt")
        indexed_spots(experiments).as_file("stills.refl")
        images = sorted(str(path) for path in folder.glob("images/background*"))
        background = ExperimentListFactory.from_filenames(images)
        assert len(background) == 8
        background.as_json("background.expt")
        options = ["grid.ndiv=5,5,5", "d_min=1.5", "virtual_pixels=False", "beam_stop.find=True", "nproc=2"]
        diffuse_extract.run(["stills.expt", "stills.refl", *options])
        diffuse_correct.run(["extracted.expt", "extracted.refl", "background=background.expt"])
    log = (folder / "dials.diffuse_correct.log").read_text()
    assert "8 images" in log and f"of {STILLS} experiments" in log and "cannot be compared" not in log
    assert len(log.splitlines()) < 60
    numbers = json.loads((folder / "corrected.json").read_text())["experiments"]
    assert len(numbers) == STILLS == len(ExperimentList.from_file(folder / "corrected.expt", check_format=False))
    assert all(0.1 < one["background"] / one["photons"] < 0.6 for one in numbers)
    return truth


def test_map_against_the_truth(tmp_path):
    """Of CBF files; one NeXus file a series holds the same photons, and gives the same observations."""
    folder = tmp_path / "cbf"
    truth = make_corrected(folder, "cbf")
    make_corrected(tmp_path / "nxmx", "nxmx")
    of_cbf, of_nxmx = (
        flex.reflection_table.from_file(str(tmp_path / form / "corrected.refl")) for form in ("cbf", "nxmx")
    )
    for name in ("id", "counts", "response", "background.sum.value", "background.sum.variance"):
        np.testing.assert_allclose(of_nxmx[name], of_cbf[name], rtol=1e-6, err_msg=name)
    with working_directory(folder):
        diffuse_scale.run(["corrected.expt", "corrected.refl", "scaling.terms=scale"])
        diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.test_symmetry=False"])
    found = against_truth(folder, truth)
    print(f"\n{found}")
    assert found.voxels > 30_000
    assert 0.95 < found.chi_squared < 1.1
    assert found.mean == pytest.approx(1, abs=0.01)
