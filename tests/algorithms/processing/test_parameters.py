from __future__ import annotations

from collections import Counter

import pytest
from iotbx.phil import parse

from dials_diffuse.algorithms.processing.command_line import sort_arguments
from dials_diffuse.algorithms.processing.diffuse_steps import merge, scale
from dials_diffuse.algorithms.processing.parameters import Parameters
from dials_diffuse.command_line.diffuse_process import phil


@pytest.fixture
def parameters_of():
    """Parameters of a run by its command line."""
    scope = parse(phil, process_includes=True)

    def make(*args: str) -> Parameters:
        interpreter = scope.command_line_argument_interpreter()
        return Parameters(sort_arguments(list(args)), scope.fetch(sources=[interpreter.process(arg) for arg in args]))

    return make


def test_no_two_parameters_have_one_name():
    names = Counter(found.path for found in parse(phil, process_includes=True).all_definitions())
    assert [name for name, number in names.items() if number > 1] == []


def test_each_program_gets_its_own(parameters_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.nxs").touch()
    made = parameters_of(
        "d_min=2",
        "grid.ndiv=2,2,2",
        "scaling.terms=scale,offset",
        "scaling.smoothness.scale=0.1",
        "outlier.n_sigma=6",
        "bad_frames.exclude=True",
        "error_model.a=1",
        "exclude_images=0:1:5,1:3:4",
        "exclude_images=0:8:9",
        "reference=other.nxs",
        "merging.friedel=apart",
    )
    of_scale = parse(scale([], made, nproc=1).phil)
    given = {found.path: found.object.extract() for found in of_scale.all_definitions()}
    assert given == {
        "scaling.terms": ["scale,offset"],
        "scaling.smoothness.scale": ["0.1"],
        "reference": [str(tmp_path / "other.nxs")],
        "error_model.a": ["1"],
        "outlier.n_sigma": ["6"],
        "bad_frames.exclude": ["True"],
        "exclude_images": ["0:8:9"],
    }
    assert of_scale.as_str().count("exclude_images") == 2
    assert [found.path for found in parse(merge(made, 1).phil).all_definitions()] == ["merging.friedel"]

    assert [found.path for found in parse(made.of_ours("diffuse_extract")).all_definitions()] == ["grid.ndiv", "d_min"]
