"""Images become sweeps, by real dials.import."""

from __future__ import annotations

from pathlib import Path

import pytest
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse
from processed import IMAGES, make_processed

from dials_diffuse.algorithms.processing.children import Children
from dials_diffuse.algorithms.processing.command_line import sort_arguments
from dials_diffuse.algorithms.processing.gather import gather, import_background
from dials_diffuse.algorithms.processing.parameters import Parameters
from dials_diffuse.algorithms.processing.record import Record
from dials_diffuse.algorithms.processing.steps import Runner
from dials_diffuse.algorithms.processing.work import Work
from dials_diffuse.command_line.diffuse_process import phil
from dials_diffuse.provenance import ProcessRecord

pytestmark = pytest.mark.xdist_group("process")

SCOPE = parse(phil, process_includes=True)


@pytest.fixture
def gathered(tmp_path, monkeypatch):
    """A function that gathers the sweeps of a command line in an empty folder, and the background."""
    monkeypatch.chdir(tmp_path)

    def run(*args, background=()):
        line = sort_arguments([str(arg) for arg in args])
        with line.own_arguments() as own, Children() as children:
            interpreter = SCOPE.command_line_argument_interpreter()
            parameters = Parameters(line, SCOPE.fetch(sources=[parse(""), *map(interpreter.process_arg, own)]))
            record = Record("process.json", ProcessRecord.now("dials.diffuse_process"))
            work = Work(parameters, Runner(record, children, ""), 2)
            return gather(line, work), import_background(background, work)

    return run


def test_images_that_their_headers_call_stills_are_a_sweep_if_the_user_says_so(gathered, snase):
    """In 3.12 convert_stills_to_sequences would do; in 3.30 it does not."""
    geometry = Path(__file__).parents[3].parent / "shared" / "data" / "snase" / "geometry.phil"
    images = sorted((snase / "images").glob("*.bz2"))
    ((sweep,), (background,)) = gathered(*images, geometry, background=[str(images[0])])
    assert not sweep.is_stills
    assert sweep.models[0].scan.get_image_range() == (1, 10)
    assert sweep.models[0].scan.get_oscillation() == pytest.approx((-0.5, 1))
    assert len(sweep.images) == 10
    empty = ExperimentList.from_file(background, check_format=False)
    assert empty[0].detector == sweep.models[0].detector  # the same parameters, but for the scan
    assert len(empty[0].imageset) == 1


def test_two_sweeps_in_one_series_of_images(gathered, make_once):
    made = make_once("processed", make_processed)
    images = [made / name for name in IMAGES]
    sweeps, _ = gathered(*images[:8], *images[12:20], *images[32:36], f"template={made}/images/sweep_2_####.cbf")
    names = ["sweep_1_1", "sweep_1_2", "sweep_2", "sweep_3"]
    assert [sweep.name for sweep in sweeps] == names
    assert [len(sweep.images) for sweep in sweeps] == [8, 8, 4, 32]
    for name in names:
        assert len(ExperimentList.from_file(Path(name) / "imported.expt", check_format=False)) == 1


def test_what_is_no_image(gathered, tmp_path, monkeypatch):
    (tmp_path / "notes_1.txt").write_text("no image")
    ((sweep,), _) = gathered(tmp_path / "notes_1.txt")
    assert sweep.left_out.endswith("(see sweep_1/dials.import.out)")
    with pytest.raises(Sorry, match="There is nothing to process"):
        gathered("d_min=2")
    with pytest.raises(Sorry, match="The background .*notes_1.txt cannot be imported"):
        gathered(tmp_path / "notes_1.txt", background=[str(tmp_path / "notes_1.txt")])
