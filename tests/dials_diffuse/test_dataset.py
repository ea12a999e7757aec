from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from dxtbx import flumpy
from small_session import make_session

from dials_diffuse.dataset import Dataset


@pytest.fixture
def session(make_once):
    return make_once("small-session", make_session)


def test_files_read_and_written_again(session, tmp_path):
    dataset = Dataset.from_files(session / "scaled.expt", session / "scaled.refl")
    assert [record.program for record in dataset.history] == [
        f"dials.diffuse_{step}" for step in ("extract", "correct", "scale")
    ]
    dataset.write(tmp_path / "a.expt", tmp_path / "a.refl")
    again = Dataset.from_files(str(tmp_path / "a.expt"), str(tmp_path / "a.refl"))
    assert again.grid == dataset.grid and again.history == dataset.history
    assert again.experiments[0].scaling_model.to_dict() == dataset.experiments[0].scaling_model.to_dict()
    for name in ("counts", "response", "inverse_scale_factor"):
        assert (flumpy.to_numpy(again.observations[name]) == flumpy.to_numpy(dataset.observations[name])).all()
    assert np.unique(flumpy.to_numpy(again.observations["id"])).tolist() == [0]


def test_files_without_grid_or_of_others(session):
    with pytest.raises(Sorry, match="holds no grid"):
        Dataset.from_files(session / "refined_1.expt", session / "refined_1.refl")
    with pytest.raises(Sorry, match="refined_2.refl belongs to .*scaled.expt"):
        Dataset.from_files(session / "scaled.expt", session / "refined_2.refl")
