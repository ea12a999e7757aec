from __future__ import annotations

import numpy as np
import pytest
from dials.array_family import flex
from dials_session import dials
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentListFactory

from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_simulate


def test_dials_finds_indexes_and_refines(tmp_path, monkeypatch):
    """By itself, from headers that are a little wrong and know nothing of the tilts."""
    monkeypatch.chdir(tmp_path)
    diffuse_simulate.run(["sweeps=1", "frames=40", "photons=0.5", "background.images=0", "nproc=1"])
    truth = Truth.from_file("truth.json")
    cell = truth.cell.parameters()
    for command in (
        "import template=images/sweep_1_####.cbf",
        "find_spots imported.expt d_min=3 nproc=1",
        f"index imported.expt strong.refl unit_cell={','.join(map(str, cell))} space_group=P212121 nproc=1"
        " indexing.method=fft1d n_macro_cycles=2",
        "refine indexed.expt indexed.refl scan_varying=False",
    ):
        dials(tmp_path, *command.split())
    spots = flex.reflection_table.from_file("indexed.refl")
    indexed = spots.get_flags(spots.flags.indexed)
    assert spots.size() > 500
    assert indexed.count(True) > 0.9 * spots.size()

    refined = flex.reflection_table.from_file("refined.refl")
    refined = refined.select(refined.get_flags(refined.flags.used_in_refinement))
    residual = flumpy.to_numpy(refined["xyzcal.px"] - refined["xyzobs.px.value"])
    assert refined.size() > 500
    assert np.sqrt(np.mean(residual**2, axis=0)).max() < 0.1

    (found,) = ExperimentListFactory.from_json_file("refined.expt", check_format=False)
    np.testing.assert_allclose(found.crystal.get_unit_cell().parameters(), cell, rtol=1e-3)
    # the orientation is the true one up to a rotation of the point group, and the detector stands where it should
    (true,) = truth.experiments()
    change = np.linalg.inv(np.reshape(true.crystal.get_A(), (3, 3))) @ np.reshape(found.crystal.get_A(), (3, 3))
    np.testing.assert_allclose(np.abs(change), np.eye(3), atol=3e-3)
    assert found.detector[0].get_distance() == pytest.approx(true.detector[0].get_distance(), rel=1e-3)


def test_help_and_bad_parameters(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diffuse_simulate.run([])
    assert "truth.json" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="frames has 2 values"):
        diffuse_simulate.run(["sweeps=3", "frames=10,20"])
