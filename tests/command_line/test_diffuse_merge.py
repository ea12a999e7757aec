from __future__ import annotations

import json

import numpy as np
import observation_data
import pytest
from dials.array_family import flex

from dials_diffuse.command_line import diffuse_merge
from dials_diffuse.dataset import Dataset
from dials_diffuse.map_file import read_map
from dials_diffuse.provenance import ProcessRecord


@pytest.fixture
def truth(tmp_path, monkeypatch):
    """Scaled observations in the working directory, and what they were made from."""
    monkeypatch.chdir(tmp_path)
    dataset, truth = observation_data.make_dataset(1, n_frames=30, samples=40)
    observation_data.put_scales(dataset.observations, truth.b)
    dataset.history = [ProcessRecord.now(f"dials.diffuse_{name}") for name in ("extract", "correct", "scale")]
    dataset.write("scaled.expt", "scaled.refl")
    return truth


def test_table_map_and_statistics_agree(truth, tmp_path):
    diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.n_shells=5"])
    table = flex.reflection_table.from_file("merged.refl")
    index = np.array(list(table["miller_index"]))
    merged = read_map("merged.nxs")
    intensity = np.array(table["intensity.scale.value"])
    np.testing.assert_allclose(merged.at(index), intensity, rtol=1e-6)
    np.testing.assert_allclose(
        merged.at(index, "intensity_errors"), np.sqrt(np.array(table["intensity.scale.variance"])), rtol=1e-6
    )
    np.testing.assert_allclose(merged.at(index, "half_1"), np.array(table["half_1.value"]), rtol=1e-6)
    assert (merged.at(index, "observations") == np.array(table["multiplicity"])).all()
    h, k, l = index.T
    np.testing.assert_array_equal(merged.at(np.stack([-k, h, -l], axis=1)), merged.at(index))  # 4/m
    expected = truth(index)
    chi_squared = (intensity - expected) ** 2 / np.array(table["intensity.scale.variance"])
    assert chi_squared.mean() == pytest.approx(1, abs=0.12)
    assert [record.program.split("_")[1] for record in merged.history] == ["extract", "correct", "scale", "merge"]
    assert set(merged.history[-1].inputs) == {"scaled.expt", "scaled.refl"}
    assert merged.wavelengths.tolist() == [observation_data.WAVELENGTH]
    report = json.loads((tmp_path / "dials.diffuse_merge.json").read_text())
    assert len(report["shells"]) == 5
    assert report["overall"]["voxels"] == len(table)
    assert "CC1/2" in (tmp_path / "dials.diffuse_merge.log").read_text()


@pytest.mark.parametrize("options", [[], ["merging.friedel=apart", "merging.halves=sweep"]])
def test_partitions_on_disk_give_the_same_files(truth, tmp_path, options):
    files = ["scaled.expt", "scaled.parts"]
    Dataset.from_files("scaled.expt", "scaled.refl").write(*files)
    Dataset.from_files(*files).in_memory().write("scaled.expt", "scaled.refl")  # in single precision, too
    diffuse_merge.run(
        ["scaled.expt", "scaled.refl", "output.reflections=single.refl", "output.map=single.nxs", *options]
    )
    wanted = json.loads((tmp_path / "dials.diffuse_merge.json").read_text())
    diffuse_merge.run([*files, "nproc=2", *options])
    found, single = (flex.reflection_table.from_file(name) for name in ("merged.refl", "single.refl"))
    assert (found["miller_index"] == single["miller_index"]).count(False) == 0
    for name in found.keys():
        if name != "miller_index":
            np.testing.assert_allclose(np.array(found[name]), np.array(single[name]), rtol=1e-12, err_msg=name)
    one, other = read_map("merged.nxs"), read_map("single.nxs")
    for name, values in one.fields.items():
        np.testing.assert_allclose(values, other.fields[name], rtol=1e-6, err_msg=name)
    overall = json.loads((tmp_path / "dials.diffuse_merge.json").read_text())["overall"]
    assert overall == pytest.approx(wanted["overall"], rel=1e-9)
    assert not list(tmp_path.glob(".*"))


def test_asymmetric_unit_alone(truth):
    diffuse_merge.run(["scaled.expt", "scaled.refl", "output.expand=False"])
    table = flex.reflection_table.from_file("merged.refl")
    assert np.isfinite(read_map("merged.nxs").intensity).sum() == len(table)


def test_friedel_mates_apart(truth):
    """Rotations, and no inversion, give the map its symmetry; the table has both hands."""
    diffuse_merge.run(["scaled.expt", "scaled.refl"])
    together = read_map("merged.nxs")
    n_together = len(flex.reflection_table.from_file("merged.refl"))
    diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.friedel=apart"])
    table = flex.reflection_table.from_file("merged.refl")
    assert 1.2 * n_together < len(table) <= 2 * n_together
    index = np.array(list(table["miller_index"]))
    merged = read_map("merged.nxs")
    assert merged.grid.friedel_apart
    intensity = np.array(table["intensity.scale.value"])
    np.testing.assert_allclose(merged.at(index), intensity, rtol=1e-6)
    h, k, l = index.T
    np.testing.assert_array_equal(merged.at(np.stack([-k, h, l], axis=1)), merged.at(index))
    inside = (np.abs(index) <= -np.array([merged.h[0], merged.k[0], merged.l[0]]) * 2).all(axis=1)
    inside &= (-index <= np.array([merged.h[-1], merged.k[-1], merged.l[-1]]) * 2).all(axis=1)
    mates = merged.at(-index[inside])
    both = np.isfinite(mates) & (l[inside] != 0)
    assert both.sum() > 500
    assert (mates != intensity.astype(np.float32)[inside])[both].mean() > 0.99
    average = together.at(index[inside][both])
    low, high = np.sort([mates[both], intensity[inside][both]], axis=0)
    assert ((low <= average * 1.0001) & (average <= high * 1.0001)).all()


def test_half_maps_by_sweep(truth, tmp_path):
    diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.halves=sweep", "merging.halo_radius=0"])
    table = flex.reflection_table.from_file("merged.refl")
    halves = [np.array(table[f"half_{i}.value"]) for i in (1, 2)]
    dataset = Dataset.from_files("scaled.expt", "scaled.refl")
    grid, own = dataset.grid, np.array(list(dataset.observations["miller_index"]))
    seen = [set(map(tuple, grid.map_to_asu(own[np.array(dataset.observations["id"]) == i]))) for i in (0, 1)]
    found = [{index for index, value in zip(table["miller_index"], half) if np.isfinite(value)} for half in halves]
    wanted = [{index for index in voxels if grid.contains(np.array([index]))[0]} for voxels in seen]
    assert found in (wanted, wanted[::-1])
    report = json.loads((tmp_path / "dials.diffuse_merge.json").read_text())
    assert report["halves"] == "sweep"
    assert report["overall"]["cc_sweep"] == report["overall"]["cc_half_anisotropic"]
    assert report["halo"]["overall"]["voxels"] == pytest.approx(len(table) / 8, rel=0.2)
    assert "half sets by sweep" in (tmp_path / "dials.diffuse_merge.log").read_text()


def test_half_sets_that_can_not_be(truth):
    with pytest.raises(SystemExit, match="merging.halves=friedel: Friedel mates are not merged with each other"):
        diffuse_merge.run(["scaled.expt", "scaled.refl", "merging.halves=friedel", "merging.friedel=apart"])


def test_unscaled_observations_are_refused(truth, tmp_path):
    table = flex.reflection_table.from_file("scaled.refl")
    del table["inverse_scale_factor"]
    table.as_file("scaled.refl")
    with pytest.raises(SystemExit, match="no column inverse_scale_factor.*dials.diffuse_scale"):
        diffuse_merge.run(["scaled.expt", "scaled.refl"])
    assert not list(tmp_path.glob("merged.*"))


def test_no_place_to_write(truth, tmp_path):
    with pytest.raises(SystemExit, match="output.map=nowhere.*does not exist"):
        diffuse_merge.run(["scaled.expt", "scaled.refl", "output.map=nowhere/merged.nxs"])
    assert not list(tmp_path.glob("*merged*"))


def test_help(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    diffuse_merge.run([])
    assert "dials.diffuse_merge scaled.expt" in capsys.readouterr().out
