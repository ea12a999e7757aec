from __future__ import annotations

import json

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.command_line import diffuse_scale
from dials_diffuse.dataset import Dataset, read_diffuse_header
from dials_diffuse.provenance import ProcessRecord


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corrected(level=1.0, **kwargs):
    dataset, truth = observation_data.make_dataset(level, n_frames=30, samples=40, **kwargs)
    dataset.history = [ProcessRecord.now("dials.diffuse_correct")]
    return dataset, truth


def one_sweep(dataset, i):
    """A sweep as a data set of its own."""
    table = dataset.observations.select(dataset.observations["id"] == i)
    for key in list(table.experiment_identifiers().keys()):
        del table.experiment_identifiers()[key]
    table["id"] = flex.int(len(table), 0)
    table.experiment_identifiers()[0] = dataset.experiments[i].identifier
    return Dataset(ExperimentList([dataset.experiments[i]]), table, dataset.grid, dataset.history)


def test_two_pairs_of_files_or_one(folder):
    dataset, truth = corrected()
    dataset.write("both.expt", "both.refl")
    for i, name in enumerate("ab"):
        one_sweep(dataset, i).write(f"{name}.expt", f"{name}.refl")
    diffuse_scale.run(["both.expt", "both.refl"])
    diffuse_scale.run(
        ["a.expt", "a.refl", "b.expt", "b.refl", "output.experiments=2.expt", "output.reflections=2.refl"]
    )
    tables = [flex.reflection_table.from_file(name) for name in ("scaled.refl", "2.refl")]
    factors = [np.array(table["inverse_scale_factor"]) for table in tables]
    np.testing.assert_allclose(factors[0], factors[1], rtol=1e-5)
    ratio = factors[0] / truth.b
    assert ratio.std() / ratio.mean() < 0.02
    for name in ("scaled.expt", "2.expt"):
        experiments = ExperimentListFactory.from_json_file(name, check_format=False)
        assert [experiment.scaling_model.id_ for experiment in experiments] == ["diffuse", "diffuse"]
        history = read_diffuse_header(name, "")[1]
        assert [record.program for record in history] == ["dials.diffuse_correct", "dials.diffuse_scale"]
        assert len(history[1].inputs) == (2 if name == "scaled.expt" else 4)
    report = json.loads((folder / "dials.diffuse_scale.json").read_text())
    assert report["cycles"] and len(report["sweeps"]) == 2
    assert "Converged" in (folder / "dials.diffuse_scale.log").read_text()


def test_uncorrected_observations_are_refused(folder):
    dataset, _ = corrected()
    del dataset.observations["response"]
    dataset.write("a.expt", "a.refl")
    with pytest.raises(SystemExit, match="a.refl has no column response.*dials.diffuse_correct"):
        diffuse_scale.run(["a.expt", "a.refl"])
    assert not (folder / "scaled.refl").exists()


def test_no_signal_at_all(folder):
    dataset, _ = corrected()
    dataset.observations["response"] = flex.double(len(dataset.observations), 0.0)
    dataset.write("a.expt", "a.refl")
    with pytest.raises(SystemExit, match="no observations"):
        diffuse_scale.run(["a.expt", "a.refl"])


def test_help(folder, capsys):
    diffuse_scale.run([])
    assert "dials.diffuse_scale corrected.expt" in capsys.readouterr().out
