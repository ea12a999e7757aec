"""Several experiments in one file, as dials.combine_experiments writes them, with shared models."""

from __future__ import annotations

import pytest
from dials.array_family import flex
from dials_session import dials, working_directory
from dxtbx.model.experiment_list import ExperimentList
from small_session import EXTRACTION, copy_session, make_session, program

PAIRS = ("refined_1.expt", "refined_1.refl", "refined_2.expt", "refined_2.refl")


@pytest.fixture
def session(make_once, tmp_path):
    copy_session(make_once("small-session", make_session), tmp_path)
    return tmp_path


def test_one_combined_file_gives_what_two_files_give(session):
    extract = program("extract")
    shared = ("reference_from_experiment.detector=0", "reference_from_experiment.beam=0")
    dials(session, "combine_experiments", *PAIRS, *shared)
    combined = ExperimentList.from_file(session / "combined.expt", check_format=False)
    assert len(combined) == 2 and len(combined.detectors()) == 1 and len(combined.beams()) == 1
    with working_directory(session):
        extract([*PAIRS, *EXTRACTION])
        apart = flex.reflection_table.from_file("extracted.refl")
        extract(["combined.expt", "combined.refl", *EXTRACTION])
        together = flex.reflection_table.from_file("extracted.refl")
    assert set(apart["id"]) == {0, 1}
    for column in apart.keys():
        assert list(apart[column]) == list(together[column]), column
