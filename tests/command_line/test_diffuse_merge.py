from __future__ import annotations

import json

import numpy as np
import observation_data
import pytest
from dials.array_family import flex

from dials_diffuse.command_line import diffuse_merge
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


def test_asymmetric_unit_alone(truth):
    diffuse_merge.run(["scaled.expt", "scaled.refl", "output.expand=False"])
    table = flex.reflection_table.from_file("merged.refl")
    assert np.isfinite(read_map("merged.nxs").intensity).sum() == len(table)


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
