"""Bad input: a sentence that names the file and the cure, no output, no leftovers, inputs as they were."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dials.array_family import flex
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from small_session import copy_session, make_long_sweep, make_session, program

from dials_diffuse.dataset import Dataset

DATA = {
    "mask": ("refined_1.expt", "refined_1.refl"),
    "extract": ("refined_1.expt", "refined_1.refl", "grid.ndiv=1,1,1", "d_min=1.5", "nproc=1"),
    "correct": ("extracted.expt", "extracted.refl"),
    "scale": ("corrected.expt", "corrected.refl"),
    "merge": ("scaled.expt", "scaled.refl"),
}
BEFORE = dict(zip(["correct", "scale", "merge"], ["extract", "correct", "scale"]))


@pytest.fixture
def folder(make_once, tmp_path, monkeypatch):
    """The small session, as it is before and between all programs; the working directory."""
    copy_session(make_once("small-session", make_session), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents():
    """SHA-256 of every file under the working directory but logs, by name."""
    files = (path for path in Path().rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def nothing_changes():
    before = contents()
    yield
    assert contents() == before
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def refuse(name, *args, message):
    """Run a program that must refuse and change nothing; ``message`` is found in what it says (a regex)."""
    with nothing_changes(), pytest.raises(SystemExit) as stop:
        program(name)(list(args))
    assert isinstance(stop.value.code, str)  # as an exit status: 1
    assert stop.value.code.startswith("Sorry: ")
    assert "Traceback" not in stop.value.code
    assert re.search(message, stop.value.code, re.S), stop.value.code


def run_apart(name, *args, before="", **kwargs):
    """A program in a process of its own."""
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{before}\n"
    code += f"from dials_diffuse.command_line.diffuse_{name} import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **kwargs
    )


def tamper(path, content):
    """Put another file in the place of a link."""
    path.unlink()
    path.write_bytes(content)


def edit(name, change):
    """Change an .expt file as JSON."""
    content = json.loads(Path(name).read_text())
    change(content)
    Path(name).write_text(json.dumps(content))


# Images


@pytest.mark.parametrize("name", ["mask", "extract"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_missing_image(folder, name, number):
    Path(f"images/sweep_1_000{number}.cbf").unlink()
    refuse(name, *DATA[name], message=rf"images/sweep_1_000{number}\.cbf.*(missing|No such file).*\. ?(Put|put|)")


@pytest.mark.parametrize("name", ["mask", "extract"])
def test_all_images_missing(folder, name):
    shutil.rmtree("images")
    refuse(name, *DATA[name], message=r"images/sweep_1_0001\.cbf of refined_1\.expt is missing: put it back, or import")


@pytest.mark.parametrize("nproc", [1, 2])
@pytest.mark.parametrize("made_before", [True, False])
def test_a_truncated_image_in_the_middle(folder, nproc, made_before):
    image = Path("images/sweep_1_0004.cbf")
    tamper(image, image.read_bytes()[:60_000])
    Path("extracted.mask").rename("given.mask")
    given = ["pixel_mask=given.mask"] * made_before  # or the frames are sampled for bad pixels, in another place
    refuse(
        "extract", *DATA["extract"], *given, f"nproc={nproc}", message=r"image 4 .*sweep_1_0004\.cbf.*slice_sequence"
    )


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY" * 1000, b"###CBF: VERSION 1.5\r\n" * 40])
@pytest.mark.parametrize("number", [1, 3])
def test_an_image_that_is_none(folder, content, number):
    tamper(Path(f"images/sweep_1_000{number}.cbf"), content)
    refuse("extract", *DATA["extract"], message=rf"sweep_1_000{number}\.cbf.*(whole|Put the file right)")


def test_an_image_of_another_size(folder):
    header, _, rest = Path("images/sweep_1_0003.cbf").read_bytes().partition(b"X-Binary-Size-Second-Dimension: 195")
    tamper(Path("images/sweep_1_0003.cbf"), header + b"X-Binary-Size-Second-Dimension: 194" + rest)
    refuse("extract", *DATA["extract"], message=r"sweep_1_0003\.cbf")


def test_a_background_whose_images_are_gone(folder):
    for image in Path("images").glob("background*"):
        image.unlink()
    refuse("correct", *DATA["correct"], "background=background.expt", message=r"background\.expt.*dials\.import")


def test_a_truncated_background(folder):
    image = Path("images/background_0002.cbf")
    tamper(image, image.read_bytes()[:60_000])
    refuse("correct", *DATA["correct"], "background=background.expt", message=r"background_0002\.cbf")


def test_a_background_of_another_detector(folder):
    edit("background.expt", lambda content: content["detector"][0]["panels"][0].update(image_size=[400, 195]))
    refuse("correct", *DATA["correct"], "background=background.expt", message=r"background\.expt.*same detector")


@pytest.mark.parametrize("wrong", ["no_such.expt", "extracted.mask", "scaled.refl"])
def test_a_background_that_is_none(folder, wrong):
    refuse("correct", *DATA["correct"], f"background={wrong}", message=rf"{wrong}.*dials\.import")


# Models


@pytest.mark.parametrize("args", [("mask", *DATA["mask"]), ("extract", *DATA["extract"], "bragg_mask.mode=none")])
def test_no_crystal(folder, args):
    edit("refined_1.expt", lambda content: content["experiment"][0].pop("crystal"))
    refuse(*args, message=r"images/sweep_1_####\.cbf has no crystal.*dials\.index")


def test_no_scan(folder):
    edit("refined_1.expt", lambda content: content["experiment"][0].pop("scan"))
    for name in ("mask", "extract"):
        refuse(name, *DATA[name], message=r"refined_1\.expt has several images but no scan.*dials\.import")


def test_several_images_that_are_no_sequence(folder):
    (experiment,) = ExperimentList.from_file("refined_1.expt", check_format=True)
    images = ImageSetFactory.make_imageset([experiment.imageset.get_path(i) for i in range(3)])
    models = experiment.beam, experiment.detector, experiment.goniometer, None, experiment.crystal
    ExperimentList([Experiment(*models, imageset=images)]).as_json("stills.expt")
    refuse(
        "extract", "stills.expt", "bragg_mask.mode=none", message=r"sweep_1_0001\.cbf has several images but no scan"
    )


def test_different_laue_groups(folder):
    edit("refined_2.expt", lambda content: content["crystal"][0].update(space_group_hall_symbol="P 2y"))
    both = [f"refined_{i}.{kind}" for i in (1, 2) for kind in ("expt", "refl")]
    refuse("extract", *both, message=r"sweep_1_.* and .*sweep_2_.* different Laue groups.*dials\.reindex")


def test_ndiv_against_the_laue_group(folder):
    wrong = ["grid.space_group=P4", "grid.ndiv=2,3,3"]
    refuse("extract", *DATA["extract"], *wrong, message=r"grid\.ndiv=2,3,3 does not fit Laue group 4/m.*same number")


@pytest.mark.parametrize("d_min", [0, 1000, 0.001])
def test_a_grid_without_pixels_or_without_end(folder, d_min):
    no_centre = "mask.d_max=8"  # else pixels near the beam see the voxel 0 0 0
    refuse("extract", *DATA["extract"], f"d_min={d_min}", no_centre, message=r"d_min")


# Reflections


def test_reflections_of_other_experiments(folder):
    for name in ("mask", "extract"):
        refuse(
            name, "refined_1.expt", "refined_2.refl", message=r"refined_2\.refl .*other experiments.*refined_1\.expt"
        )


def test_reflections_without_identifiers_for_two_sweeps(folder):
    table = flex.reflection_table.from_file("refined_1.refl")
    del table.experiment_identifiers()[0]
    table.as_file("refined_1.refl")
    refuse("mask", "refined_1.expt", "refined_2.expt", "refined_1.refl", message=r"refined_1\.refl .*other experiments")


@pytest.mark.parametrize("column", [None, "miller_index"])
def test_unindexed_reflections(folder, column):
    table = flex.reflection_table.from_file("refined_1.refl")
    table["miller_index"] = flex.miller_index(len(table))
    if column:
        del table[column]
    table.as_file("strong.refl")
    refuse(
        "extract", "refined_1.expt", "strong.refl", message=r"No reflection of .*sweep_1_.* is indexed.*refined\.refl"
    )


@pytest.mark.parametrize(
    ("column", "mode"),
    [("bbox", "shoebox"), ("bbox", "ellipsoid"), ("intensity.sum.value", "ellipsoid"), ("id", "none")],
)
def test_reflections_without_a_column(folder, column, mode):
    table = flex.reflection_table.from_file("refined_1.refl")
    del table[column]
    table.as_file("refined_1.refl")
    refuse("mask", *DATA["mask"], f"bragg_mask.mode={mode}", message=r"refined\.refl or integrated\.refl")


def test_reflections_on_panels_that_are_none(folder):
    table = flex.reflection_table.from_file("refined_1.refl")
    table["panel"] += 1
    table.as_file("refined_1.refl")
    refuse("mask", *DATA["mask"], "bragg_mask.mode=shoebox", message=r"sweep_1_.* on panels that its detector has not")


def test_fewer_reflection_files_than_experiments(folder):
    both = ["refined_1.expt", "refined_2.expt", "refined_1.refl"]
    refuse("extract", *both, message=r"none of .*sweep_2_####\.cbf.*give the \.refl file")
    for name in BEFORE:
        refuse(
            name, DATA[name][0], message=rf"1 experiment files but 0 reflection files.*dials\.diffuse_{BEFORE[name]}"
        )


@pytest.mark.parametrize("name", DATA)
def test_one_experiment_twice(folder, name):
    for i, source in enumerate(DATA[name][:2]):
        shutil.copyfile(source, f"again{Path(DATA[name][i]).suffix}")
    refuse(name, *DATA[name], "again.expt", "again.refl", message="given twice|belongs to")


def test_experiments_without_identifiers(folder):
    for i in (1, 2):
        edit(f"refined_{i}.expt", lambda content: content["experiment"][0].update(identifier=""))
    both = ["refined_1.expt", "refined_2.expt", "bragg_mask.mode=none"]
    refuse("extract", *both, message=r"refined_1|refined_2.*assign_experiment_identifiers")


# Masks


@pytest.mark.parametrize("parameter", [("pixel_mask={}",), ("bragg_mask.mode=file", "bragg_mask.file={}")])
class TestMask:
    def refuse(self, parameter, name, message):
        refuse("extract", *DATA["extract"], *(text.format(name) for text in parameter), message=message)

    def test_of_another_detector(self, folder, parameter):
        Path("other.mask").write_bytes(pickle.dumps((flex.bool(flex.grid(195, 400), True),)))
        self.refuse(parameter, "other.mask", r"other\.mask is the mask of another detector.*400 x 195.*487 x 195")

    def test_malicious_pickle(self, folder, parameter):
        class Malicious:
            def __reduce__(self):
                return os.system, ("touch it_ran",)

        Path("evil.mask").write_bytes(pickle.dumps((Malicious(), flex.bool(flex.grid(195, 487), True))))
        self.refuse(parameter, "evil.mask", r"evil\.mask is not a pixel mask.*dials\.generate_mask")
        assert not Path("it_ran").exists()

    @pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(3), pickle.dumps((1.0,))])
    def test_not_a_mask(self, folder, parameter, content):
        Path("wrong.mask").write_bytes(content)
        self.refuse(parameter, "wrong.mask", r"wrong\.mask is not a pixel mask.*dials\.generate_mask")

    def test_no_such_file(self, folder, parameter):
        self.refuse(parameter, "no_such.mask", r"Cannot read the mask no_such\.mask: No such file")

    def test_masks_everything(self, folder, parameter):
        Path("all.mask").write_bytes(pickle.dumps((flex.bool(flex.grid(195, 487), False),)))
        self.refuse(parameter, "all.mask", r"No pixel fell into the grid: check the masks")


def test_shapes_that_mask_everything(folder):
    everything = "untrusted.circle=240,100,1000"
    for name in ("mask", "extract"):
        refuse(name, *DATA[name], everything, message=r"The masks leave no pixel: check mask\.\*")


def test_no_bragg_mask_file(folder):
    refuse("extract", *DATA["extract"], "bragg_mask.mode=file", message=r"needs bragg_mask\.file")


def test_no_such_image_for_bragg_frame(folder):
    refuse("mask", *DATA["mask"], "bragg_frame=7", message="no image 7.*1 to 6")


# The wrong files


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("number", [0, 1])
def test_no_such_file(folder, name, number):
    files = list(DATA[name])
    files[number] = "no_such" + Path(files[number]).suffix
    refuse(name, *files, message=rf"{files[number]} does not exist")


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("content", [b"", b"hello", b"[1, 2]", b"{}", bytes(range(256))])
def test_files_that_hold_something_else(folder, name, content):
    expt, refl = DATA[name][:2]
    Path("wrong.expt").write_bytes(content)
    refuse(name, "wrong.expt", refl, message=r"wrong\.expt is not a list of experiments.*give an \.expt file")
    Path("wrong.refl").write_bytes(content)
    refuse(name, expt, "wrong.refl", message=r"wrong\.refl is not a table of reflections.*give a \.refl file")


def test_an_image_instead_of_experiments(folder):
    refuse("extract", "images/sweep_1_0001.cbf", message=r"sweep_1_0001\.cbf is of no use.*\.expt")


@pytest.mark.parametrize("name", BEFORE)
def test_output_of_an_earlier_program(folder, name):
    """refined.* and whatever does not come from the program just before."""
    previous = f"dials.diffuse_{BEFORE[name]}"
    refuse(
        name, "refined_1.expt", "refined_1.refl", message=rf"refined_1\.expt was not written by {previous}.*run that"
    )
    for other in list(DATA)[2 : list(DATA).index(name)]:
        refuse(name, *DATA[other], message=rf"{DATA[other][1]} has no column .*output of {previous}")


@pytest.mark.parametrize("name", BEFORE)
def test_experiments_and_observations_of_different_programs_or_sweeps(folder, name):
    other = flex.reflection_table.from_file(DATA[name][1])
    other.experiment_identifiers()[0] = "another"
    other.as_file("other.refl")
    refuse(name, DATA[name][0], "other.refl", message=rf"other\.refl belongs to {DATA[name][0]}.*one program wrote")


def test_data_sets_on_different_grids(folder):
    files = ["refined_2.expt", "refined_2.refl", "grid.ndiv=2,2,2", "d_min=2", "nproc=1", "bragg_mask.mode=none"]
    program("extract")([*files, "output.experiments=2.expt", "output.reflections=2.refl", "output.mask=2.mask"])
    program("correct")(["2.expt", "2.refl", "output.experiments=c2.expt", "output.reflections=c2.refl"])
    both = [*DATA["scale"], "c2.expt", "c2.refl"]
    refuse("scale", *both, message=r"sweep_1_.* and .*sweep_2_.* different grids.*same grid\.ndiv")


# Parameters and outputs


@pytest.mark.parametrize("name", ["simulate", *DATA])
def test_a_misspelt_parameter(folder, name):
    for wrong in ("output.lag=x", "no.such.thing=3"):
        refuse(name, *DATA.get(name, ()), wrong, message=rf"Unknown .*{wrong[-1]}.*dials\.diffuse_{name} -c -e2")


@pytest.mark.parametrize(
    "wrong", ["grid.ndiv=0,1,1", "grid.ndiv=3", "grid.ndiv=a,b,c", "nproc=0", "extract.mode=voxels"]
)
def test_a_value_that_cannot_be(folder, wrong):
    refuse("extract", *DATA["extract"], wrong, message=re.escape(wrong.split("=")[0]))


def test_a_parameter_file_that_is_wrong(folder):
    Path("wrong.phil").write_text("grid { ndiv = 1,1,1 \n no_such = 3 }\n")
    refuse("extract", *DATA["extract"], "wrong.phil", message="no_such")
    Path("wrong.phil").write_text("grid { ndiv = \n")
    refuse("extract", *DATA["extract"], "wrong.phil", message=r"wrong\.phil")
    refuse("extract", *DATA["extract"], "--phil=no_such.phil", message=r"Cannot read no_such\.phil")


@pytest.mark.parametrize("name", ["simulate", *DATA])
def test_an_output_folder_that_does_not_exist(folder, name):
    refuse(name, *DATA.get(name, ()), "output.log=no/x.log", message=r"output\.log=no/x\.log does not exist: make it")
    for output in {"simulate": ["truth"], "mask": ["mask"], "merge": ["map", "json"]}.get(name, ["reflections"]):
        refuse(name, *DATA.get(name, ()), f"output.{output}=no/x", message=rf"output\.{output}=no/x does not exist")


def test_two_outputs_of_one_name(folder):
    refuse("scale", *DATA["scale"], "output.reflections=x", "output.experiments=x", message="another output")


@pytest.mark.parametrize("name", DATA)
def test_an_output_that_is_an_input(folder, name):
    for source in DATA[name][:2]:
        refuse(name, *DATA[name], f"output.log=./{source}", message=rf"output\.log=\./{source} is an input, too")
    if name == "extract":
        refuse(name, *DATA[name], "pixel_mask=extracted.mask", message=r"output\.mask=extracted\.mask is an input, too")


@pytest.mark.parametrize(
    ("name", "limit", "args"),
    [
        ("extract", 4_000, ["nproc=2"]),  # the parts, by other processes
        ("extract", 150_000, ["nproc=2"]),  # the table
        ("correct", 100_000, []),
        ("scale", 100_000, []),
        ("merge", 20_000, []),  # the table
        ("merge", 60_000, []),  # the map, by HDF5
    ],
)
def test_a_full_disk(folder, name, limit, args):
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    with nothing_changes():
        process = run_apart(name, *DATA[name], *args, before=before)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert re.search(r"Sorry: Cannot write .* Make room .*(nothing was|was not) written", errors), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("limit", [1_000, 30_000, 100_000])
def test_a_full_disk_amid_partitions(folder, limit):
    """Of the temporary files of sorting, of what is kept with partitions, of the output."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    Dataset.from_files("corrected.expt", "corrected.refl").write("corrected.expt", "corrected.parts")
    process = run_apart("scale", "corrected.expt", "corrected.parts", "output.reflections=scaled.parts", before=before)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert re.search(r"Sorry: Cannot write .* Make room", errors), errors
    assert "Traceback" not in errors
    assert not Path("scaled.parts").exists()


# Interruptions


@pytest.fixture
def extraction(folder):
    """Start dials.diffuse_extract on many frames and wait until it is at work: the process and its workers."""
    make_long_sweep(folder, 1500)
    for name in ("extracted.expt", "extracted.refl", "extracted.mask"):
        Path(name).unlink()
    args = ["long.expt", "bragg_mask.mode=none", "mask.bad_pixels.find=False", "grid.ndiv=1,1,1", "d_min=1.5"]
    started = []

    def start(nproc, *more):
        command = ["extract", *args, "extract.batch_width=0.001", f"nproc={nproc}", *more]
        process = run_apart(*command, start_new_session=True)
        started.append(process)
        deadline = time.monotonic() + 60
        while len(list(folder.glob(".diffuse.*/parts/*.h5"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        return process, workers(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def workers(process):
    """The forks of a process. (Python's own resource tracker is a child, too, but no fork.)"""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == command]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("nproc", "number", "to", "older"),
    [
        (1, signal.SIGINT, os.kill, True),
        (1, signal.SIGTERM, os.kill, False),
        (2, signal.SIGINT, os.killpg, False),  # as a terminal does
        (2, signal.SIGTERM, os.kill, True),
        (2, signal.SIGTERM, os.killpg, False),  # as batch systems do
    ],
)
def test_an_interrupted_run(extraction, nproc, number, to, older):
    if older:
        for name in ("extracted.expt", "extracted.refl", "extracted.mask"):
            Path(name).write_text("older")
    with nothing_changes():
        process, children = extraction(nproc)
        assert len(children) == (nproc if nproc > 1 else 0)
        to(process.pid, number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert f"Stopped by {number.name}: the outputs are as they were" in errors and "Traceback" not in errors, errors
    assert not any(is_alive(pid) for pid in children)


def test_a_worker_killed(extraction):
    with nothing_changes():
        process, children = extraction(2)
        os.kill(children[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert re.search("Sorry: A process died.*smaller nproc", errors) and "Traceback" not in errors, errors
    assert not any(is_alive(pid) for pid in children)


def test_the_program_itself_killed(extraction):
    """Nobody is left to clean up, but its workers end."""
    process, children = extraction(2)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
