"""What all programs have in common."""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from dials.array_family import flex
from dxtbx import flumpy
from iotbx.phil import parse
from small_session import EXTRACTION, copy_session, make_session, program

from dials_diffuse import __version__
from dials_diffuse.arguments import Arguments
from dials_diffuse.dataset import read_diffuse_header
from dials_diffuse.map_file import read_map

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem.removeprefix("diffuse_") for path in (ROOT / "command_line").glob("diffuse_*.py"))
INPUTS = {
    "simulate": ("frames=1", "sweeps=1", "detector.model=100K", "background.images=0", "nproc=1"),
    "mask": ("refined_1.expt", "refined_1.refl"),
    "extract": ("refined_1.expt", "refined_1.refl", *EXTRACTION),
    "correct": ("extracted.expt", "extracted.refl"),
    "scale": ("corrected.expt", "corrected.refl"),
    "merge": ("scaled.expt", "scaled.refl"),
    "absolute": ("scaled.expt", "scaled.refl", "composition.formula=C50H80N14O15", "absolute.b_factor=15"),
    "process": ("refined_1.expt", "refined_1.refl", "integration=False", *EXTRACTION),
    "map": ("merged.nxs", "operations=variational"),
    "view": ("merged.nxs", "browser=False", "output.png=merged.png"),
    "export": ("merged.nxs", "format=mtz"),
}
WITH_INPUTS = [name for name in PROGRAMS if name in INPUTS]  # without any, the others do their work at once


@pytest.fixture
def folder(make_once, tmp_path, monkeypatch):
    copy_session(make_once("small-session", make_session), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scope(name):
    """The PHIL scope of a program, as its parser has it: with the input files."""
    module = importlib.import_module(f"dials_diffuse.command_line.diffuse_{name}")
    phil = module.phil_scope if hasattr(module, "phil_scope") else parse(module.phil, process_includes=True)
    reads = name not in ("simulate", "process", "plugins", "view", "export", "map")
    return Arguments(check_format=False, phil=phil, read_experiments=reads, read_reflections=reads).system_phil


def sha256(name):
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


# Help


@pytest.mark.parametrize("name", WITH_INPUTS)
def test_help_without_arguments(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program(name)([])
    printed = capsys.readouterr().out
    assert f"usage: dials.diffuse_{name} [options]" in printed
    assert f"  dials.diffuse_{name} " in printed  # an example
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PROGRAMS)
def test_options(name, capsys):
    printed = {}
    for options in ("-h", "-h -h", "-c -e2", "-c -e2 -a1", "--version"):
        stopped = None
        try:
            program(name)(options.split())
        except SystemExit as stop:
            stopped = stop.code
        assert not stopped
        printed[options] = capsys.readouterr().out
    assert "usage:" in printed["-h"] and "output {" in printed["-h"]
    assert len(printed["-h -h"]) >= len(printed["-h"])
    for definition in scope(name).all_definitions():
        assert f"{definition.object.name} =" in printed["-c -e2"]
    assert printed["-c -e2 -a1"].count("help =") >= len(scope(name).all_definitions())
    assert f"dials_diffuse {__version__}, DIALS " in printed["--version"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_parameter_says_what_it_is(name):
    definitions = [definition.object for definition in scope(name).all_definitions()]
    assert len(definitions) > 3 or name not in INPUTS
    for definition in definitions:
        assert definition.help, definition.full_path()
        assert definition.type is not None, definition.full_path()


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_light(name, tmp_path):
    """Compiled kernels, plots and HDF5 are for the work; what DIALS itself imports does not count."""
    code = f"""
import sys
import dials_diffuse
import dials.util.options
heavy = {{"numba", "matplotlib", "plotly", "h5py"}} - set(sys.modules)
from dials_diffuse.command_line.diffuse_{name} import run
try:
    run(["-h"])
finally:
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_unknown_arguments(name, folder):
    for wrong in ("--no-such-option", "no_such_file", "no_such_parameter=3"):
        with pytest.raises(SystemExit, match="Sorry: .*no.such"):
            program(name)([*INPUTS.get(name, ()), wrong])


def test_console_scripts():
    points = distribution("dials-diffuse").entry_points
    scripts = {point.name: point for point in points if point.group == "console_scripts"}
    assert set(scripts) == {f"dials.diffuse_{name}" for name in PROGRAMS}
    assert {point.name for point in points if point.group == "libtbx.dispatcher.script"} == set(scripts)
    for name in PROGRAMS:
        assert scripts[f"dials.diffuse_{name}"].load() is program(name)


# Log and provenance


@pytest.mark.parametrize("name", WITH_INPUTS)
def test_log(name, folder):
    program(name)([*INPUTS[name], f"output.log={name}.log"])
    program("simulate")(INPUTS["simulate"])  # one program's log is over when the next runs
    lines = Path(f"{name}.log").read_text().rstrip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"dials.diffuse_{name}: "))
    assert start <= 2
    for package in ("dials_diffuse", "DIALS", "Python", "numpy", "numba"):
        assert f"{package} " in lines[start]
    assert lines[start + 1] == "The following parameters have been modified:"
    assert f'  log = "{name}.log"' in lines
    assert lines[-1].startswith("Written: ")
    for written in lines[-1].removeprefix("Written: ").split(", "):
        assert Path(written).exists()


def test_every_output_tells_its_history(folder):
    """Each program's record, with hashes of inputs that are those of the files."""
    chain = ["extract", "correct", "scale", "merge"]
    for name in chain:
        program(name)(INPUTS[name])
    _, scaled = read_diffuse_header("scaled.expt", "dials.diffuse_scale")
    merged = read_map("merged.nxs").history
    assert [record.program for record in scaled] == [f"dials.diffuse_{name}" for name in chain[:3]]
    assert [record.program for record in merged] == [f"dials.diffuse_{name}" for name in chain]
    assert merged[:3] == scaled
    for name, record in zip(chain, merged):
        assert record.inputs == {file: sha256(file) for file in INPUTS[name][:2]}
        assert f"dials_diffuse {__version__}" in record.version
        parameters = scope(name).fetch(parse(record.parameters)).extract()  # the record can be run again
        assert parameters.output.log == f"dials.diffuse_{name}.log"
    assert json.loads(Path("truth.json").read_text())["history"][0]["program"] == "dials.diffuse_simulate"


# The order of things


def outputs(name, args, tag):
    """Run extract, correct or scale; its observations and the names of its outputs."""
    files = [f"{tag}.expt", f"{tag}.refl"]
    more = [f"output.mask={tag}.mask"] if name == "extract" else []
    program(name)([*args, f"output.experiments={files[0]}", f"output.reflections={files[1]}", *more])
    return files


def columns(name):
    table = flex.reflection_table.from_file(name)
    plain = {key: table[key] for key in table.keys() if key != "miller_index"}
    return {**{key: flumpy.to_numpy(values) for key, values in plain.items()}, "h": list(table["miller_index"])}


@pytest.mark.parametrize("name", ["extract", "correct", "scale"])
def test_experiments_and_reflections_in_any_order(folder, name):
    expt, refl, *rest = INPUTS[name]
    first = outputs(name, [expt, refl, *rest], "first")
    second = outputs(name, [*rest, refl, expt], "second")
    assert sha256(first[1]) == sha256(second[1])


@pytest.fixture
def two_data_sets(folder):
    """corrected.* of both sweeps."""
    extracted = outputs("extract", ["refined_2.expt", "refined_2.refl", *EXTRACTION], "extracted_2")
    return [*INPUTS["scale"], *outputs("correct", extracted, "corrected_2")]


def test_data_sets_in_any_order_give_the_same_map(two_data_sets):
    expt_1, refl_1, expt_2, refl_2 = two_data_sets
    maps = []
    for files in (two_data_sets, [expt_1, refl_2, expt_2, refl_1], [expt_2, refl_2, expt_1, refl_1]):
        program("merge")(outputs("scale", [*files, "scaling.tolerance=1e-10"], "both"))
        maps.append(read_map("merged.nxs").intensity)
    assert np.array_equal(maps[0], maps[1], equal_nan=True)
    # the mean scale of the first sweep is 1, so that the unit of the map is that of the first sweep's intensities
    measured = np.isfinite(maps[0])
    assert np.array_equal(measured, np.isfinite(maps[2]))
    factor = np.vdot(maps[2][measured], maps[0][measured]) / np.vdot(maps[2][measured], maps[2][measured])
    assert factor == pytest.approx(1.25, rel=0.05)  # the simulated scales: 1 and 0.8
    np.testing.assert_allclose(maps[2][measured] * factor, maps[0][measured], rtol=1e-4, atol=1e-4 * np.nanmax(maps[0]))


def test_both_sweeps_at_once_or_one_after_the_other(two_data_sets):
    """Extraction of two sweeps, given in either order of files, holds what extraction of each alone holds."""
    grid, _ = read_diffuse_header("extracted.expt", "")
    Path("grid.phil").write_text(grid.as_phil())
    files = ["refined_2.refl", "refined_1.expt", "refined_1.refl", "refined_2.expt"]
    together = columns(outputs("extract", [*files, "grid.phil", "nproc=2"], "both")[1])
    alone = [columns(name) for name in ("extracted.refl", "extracted_2.refl")]
    for i, one in enumerate(alone):
        rows = together["id"] == i
        assert np.array_equal(together["counts"][rows], one["counts"])
        assert list(itertools.compress(together["h"], rows)) == one["h"]


@pytest.mark.parametrize("mode", ["voxel", "pixel"])
def test_the_number_of_processes_makes_no_difference(folder, mode):
    args = [*INPUTS["extract"][:4], f"extract.mode={mode}", "extract.batch_width=2"]
    names = [outputs("extract", [*args, f"nproc={nproc}"], f"with_{nproc}")[1] for nproc in (1, 2)]
    assert sha256(names[0]) == sha256(names[1])


def test_the_same_again(folder):
    for name, before in (("extract", "extracted.refl"), ("correct", "corrected.refl"), ("scale", "scaled.refl")):
        assert sha256(outputs(name, INPUTS[name], "again")[1]) == sha256(before)
    program("merge")([*INPUTS["merge"], "output.map=again.nxs", "output.reflections=again.refl"])
    assert sha256("again.refl") == sha256("merged.refl")


def test_parameters_from_a_file_and_from_standard_input(folder, monkeypatch):
    Path("my.phil").write_text("grid.ndiv=2,2,2\n")
    expt, refl, *_ = INPUTS["extract"]
    first = outputs("extract", [expt, refl, "my.phil", "d_min=2", "nproc=1"], "first")
    monkeypatch.setattr(sys, "stdin", io.StringIO("grid.ndiv=2,2,2\nd_min=2\n"))
    second = outputs("extract", [expt, refl, "--phil=-", "nproc=1"], "second")
    assert read_diffuse_header(first[0], "")[0].ndiv == (2, 2, 2)
    assert sha256(first[1]) == sha256(second[1])
