from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dials.util import Sorry
from dials_session import working_directory
from small_session import copy_session, make_session, program

from dials_diffuse.algorithms.merging.fine import fine_dataset, fine_grid
from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.exclude_images import exclude_images
from dials_diffuse.dataset import Dataset
from dials_diffuse.map_file import read_map
from dials_diffuse.phil_scope.mp import phil_scope as mp_scope

MP = mp_scope.extract().mp
MASKING = ("d_min=1.8", "untrusted.rectangle=0,40,0,60", "bragg_mask.ellipsoid.n_sigma=4", "nproc=1")


def reduce(sweep, ndiv, folder):
    """Extract and correct one sweep in a folder of its own, with parameters of its own; files are named relatively."""
    folder.mkdir(parents=True)
    up = "/".join([".."] * len(folder.relative_to(folder.parents[1]).parts))
    with working_directory(folder):
        files = [f"{up}/refined_{sweep}.expt", f"{up}/refined_{sweep}.refl"]
        program("extract")([*files, f"grid.ndiv={ndiv},{ndiv},{ndiv}", *MASKING, f"extract.batch_width={sweep}"])
        options = [f"background={up}/background.expt", f"background_model.scale={1 + sweep / 10}"]
        program("correct")(["extracted.expt", "extracted.refl", *options, "background_model.half_width=5"])


@pytest.fixture(scope="module")
def scaled(make_once, tmp_path_factory):
    """A folder with two sweeps scaled together on a coarse grid, images 3 and 4 of the second excluded."""
    folder = tmp_path_factory.mktemp("fine") / "session"
    copy_session(make_once("small-session", make_session), folder)
    with working_directory(folder):
        for sweep in (1, 2):
            reduce(sweep, 1, folder / f"coarse_{sweep}" / "reduced")
        files = [f"coarse_{i}/reduced/corrected.{kind}" for i in (1, 2) for kind in ("expt", "refl")]
        program("scale")([*files, "scaling.terms=scale", "scaling.scale_interval=2"])
        dataset = Dataset.from_files("scaled.expt", "scaled.refl")
        exclude_images(dataset, [["1:3:4"]])
        dataset.write("scaled.expt", "scaled.refl")
    return folder


def fine_of(folder, ndiv, d_min=None):
    """The fine data set, from files."""
    dataset = Dataset.from_files(str(folder / "scaled.expt"), str(folder / "scaled.refl"))
    grid = fine_grid(dataset.grid, ndiv, d_min)
    return fine_dataset(dataset.experiments, dataset.history, grid, MP)


def sorted_columns(table):
    """Columns as arrays, the rows in an order of their own."""
    columns = {name: np.array(list(table[name])).reshape(len(table), -1) for name in table.keys()}
    order = np.lexsort([*columns["miller_index"].T, *(columns[name][:, 0] for name in ("panel", "batch", "id"))])
    return {name: values[order] for name, values in columns.items()}


def compare(found, wanted):
    """All columns but flags. Variances are those of shells, whose limits fall between voxels of equal |q|."""
    assert found.keys() == wanted.keys()
    for name in found.keys() - {"flags", "intensity.sum.variance"}:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, err_msg=name)
    name = "intensity.sum.variance"
    assert np.mean(np.isclose(found[name], wanted[name], rtol=1e-9)) > 0.9


def test_one_command_is_as_good_as_four(scaled, tmp_path, monkeypatch):
    """Extraction and correction by their programs at the finer ndiv, and the models put on."""
    monkeypatch.chdir(tmp_path)  # elsewhere than where anything was made
    fine = fine_of(scaled, (2, 2, 2))
    assert fine.grid.ndiv == (2, 2, 2) and fine.grid.d_min == 1.8
    parts = []
    for sweep in (1, 2):
        folder = scaled / f"fine_{sweep}" / "reduced"
        reduce(sweep, 2, folder)
        parts.append(Dataset.from_files(folder / "corrected.expt", folder / "corrected.refl"))
    expected = Dataset.combine(parts)
    coarse = Dataset.from_files(scaled / "scaled.expt", scaled / "scaled.refl")
    expected.experiments = coarse.experiments
    apply_models(expected)
    exclude_images(expected, None)
    found, wanted = sorted_columns(fine.observations), sorted_columns(expected.observations)
    compare(found, wanted)
    flags = fine.observations.flags
    excluded = wanted["flags"] & flags.user_excluded_in_scaling != 0
    assert 0.2 < excluded[wanted["id"] == 1].mean() < 0.8 and not excluded[wanted["id"] == 0].any()
    assert (found["flags"] & flags.user_excluded_in_scaling != 0).tolist() == excluded.tolist()
    outliers = found["flags"] & flags.outlier_in_scaling != 0
    assert outliers.mean() < 0.02
    assert list(fine.observations.experiment_identifiers().values()) == list(fine.experiments.identifiers())


def test_the_grid_of_scaling_gives_the_same_observations(scaled):
    fine, coarse = fine_of(scaled, (1, 1, 1)), Dataset.from_files(scaled / "scaled.expt", scaled / "scaled.refl")
    assert fine.grid == coarse.grid
    found, wanted = sorted_columns(fine.observations), sorted_columns(coarse.observations)
    compare(found, wanted)


def test_inputs_that_are_gone_or_have_changed_are_named(scaled, tmp_path):
    cases = [("refined_2.refl", "has changed", "extract"), ("background.expt", "is missing", "correct")]
    for name, message, step in cases:
        path = scaled / name
        content = path.read_bytes()
        try:
            path.unlink() if "missing" in message else path.write_bytes(content + b" ")
            with pytest.raises(Sorry, match=f"{name}.*{message}.*dials.diffuse_{step}.*put it back"):
                fine_of(scaled, (2, 2, 2))
        finally:
            path.write_bytes(content)


def test_a_history_that_does_not_tell_enough(scaled):
    dataset = Dataset.from_files(scaled / "scaled.expt", scaled / "scaled.refl")
    for record in dataset.history:
        record.experiments = []
    with pytest.raises(Sorry, match="older version"):
        fine_dataset(dataset.experiments, dataset.history, dataset.grid, MP)
    with pytest.raises(Sorry, match="how the data were scaled"):
        fine_dataset(dataset.experiments, [], dataset.grid, MP)
    for experiment in dataset.experiments:
        experiment.scaling_model = None
    with pytest.raises(Sorry, match="no scaling models"):
        fine_dataset(dataset.experiments, dataset.history, dataset.grid, MP)


def test_some_of_the_sweeps(scaled):
    """The second alone: its own extraction and correction are found in the history of both."""
    dataset = Dataset.from_files(scaled / "scaled.expt", scaled / "scaled.refl")
    fine = fine_dataset(dataset.experiments[1:], dataset.history, dataset.grid, MP)
    ids = np.array(dataset.observations["id"])
    assert len(fine.observations) == np.sum(ids == 1)
    assert sum(fine.observations["counts"]) == np.array(dataset.observations["counts"])[ids == 1].sum()
    assert set(fine.observations["id"]) == {0}


def test_the_program(scaled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program("merge")([str(scaled / "scaled.expt"), "grid.ndiv=2,2,2", "nproc=1"])
    fine = read_map("merged.nxs")
    program("merge")([str(scaled / "scaled.expt"), str(scaled / "scaled.refl"), "output.map=coarse.nxs"])
    coarse = read_map("coarse.nxs")
    assert fine.grid.ndiv == (2, 2, 2)
    assert np.isfinite(fine.intensity).sum() > 4 * np.isfinite(coarse.intensity).sum()
    assert [r.program.split("_")[1] for r in fine.history] == [*["extract", "correct"] * 2, "scale", "merge"]
    # the same photons: voxels 2n are near the middles of voxels n
    index = np.argwhere(np.isfinite(coarse.intensity)) - np.array(coarse.intensity.shape) // 2
    index = index[(index != 0).any(axis=1)]
    a, b = coarse.at(index), fine.at(2 * index)
    both = np.isfinite(a * b)
    assert both.sum() > 100
    assert np.median(b[both] / a[both]) == pytest.approx(1, abs=0.1)


def test_a_lower_resolution_needs_no_images(scaled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program("merge")([str(scaled / "scaled.expt"), str(scaled / "scaled.refl"), "d_min=3"])
    assert read_map("merged.nxs").grid.d_min == 3
    assert "Extracting" not in Path("dials.diffuse_merge.log").read_text()
    assert "million pixels a second" not in Path("dials.diffuse_merge.log").read_text()


def test_what_the_program_cannot_do(scaled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ([str(scaled / "scaled.expt")], "1 experiment files but 0 reflection files"),
        ([str(scaled / f"coarse_{i}/reduced/corrected.expt") for i in (1, 2)] + ["grid.ndiv=2,2,2"], "one .expt file"),
        ([str(scaled / "coarse_1/reduced/corrected.expt"), "grid.ndiv=2,2,2"], "no scaling models"),
        ([str(scaled / "refined_1.expt"), "grid.ndiv=2,2,2"], "holds no grid"),
    ):
        with pytest.raises(SystemExit, match=message):
            program("merge")(arguments)
