"""The program: every format re-read by a reader that is not ours, with the right cell, axes and values."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import gemmi
import h5py
import iotbx.mtz
import mrcfile
import numpy as np
import pytest
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.cut import cut
from dials_diffuse.algorithms.export.resample import resample
from dials_diffuse.algorithms.export.symmetry import asymmetric_unit, asymmetric_voxels, expand
from dials_diffuse.command_line.diffuse_export import run
from dials_diffuse.map_file import ABSOLUTE_UNITS, read_map


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A map in merged.nxs, absolute units."""
    monkeypatch.chdir(tmp_path)
    made = cut(replace(random_map("P 65", ndiv=(4, 4, 4), d_min=8), units=ABSOLUTE_UNITS), d_min=8)
    made.write("merged.nxs")
    return made


def test_ccp4(made):
    run(["merged.nxs", "output.map=m.map"])
    read = gemmi.read_ccp4_map("m.map")
    read.setup(0.0)
    for voxel, value in list(voxels(made).items())[::50]:
        assert read.grid.get_value(*voxel) == value
    with mrcfile.open("m.map") as file:
        np.testing.assert_array_equal(file.data, np.nan_to_num(made.intensity.T))
        assert "intensity, electrons^2; unmeasured voxels: 0" in file.get_labels()


def test_mtz(made):
    run(["merged.nxs", "format=mtz"])
    array = iotbx.mtz.object("merged.mtz").as_miller_arrays()[0]
    assert array.space_group_info().symbol_and_number() == "P 6 (No. 168)"
    np.testing.assert_allclose(array.unit_cell().parameters(), (80, 80, 100, 90, 90, 120), rtol=1e-5)
    assert {n: value for n, value, _ in array.expand_to_p1().generate_bijvoet_mates()} == voxels(made)


def test_yell(made):
    run(["merged.nxs", "output.map=m.h5", "field=intensity_errors", "unmeasured=-1"])
    with h5py.File("m.h5") as handle:
        np.testing.assert_array_equal(handle["data"], np.nan_to_num(made.intensity_errors, nan=-1))
        np.testing.assert_array_equal(handle["step_sizes"], (0.25, 0.25, 0.25))
        np.testing.assert_array_equal(handle["lower_limits"], (made.h[0], made.k[0], made.l[0]))
        np.testing.assert_array_equal(handle["unit_cell"], CELLS["P 65"])


def test_npz(made):
    run(["merged.nxs", "output.map=m.npz"])
    with np.load("m.npz") as read:
        np.testing.assert_array_equal(read["intensity"], made.intensity)
        np.testing.assert_array_equal(read["pixels"], made.fields["pixels"])
        np.testing.assert_array_equal(read["l"], made.l)
        assert str(read["units"]) == "electrons^2"


def test_text(made):
    run(["merged.nxs", "output.map=m.txt"])
    read = np.loadtxt("m.txt")
    index, columns = asymmetric_voxels(made)
    np.testing.assert_allclose(read[:, :3], index / 4)
    np.testing.assert_allclose(read[:, 3], columns["intensity"])
    run(["merged.nxs", "output.map=m.txt", "expand=True"])
    assert len(np.loadtxt("m.txt")) == len(voxels(made))


def test_nexus(made):
    """All fields, units and history; axes as h5py finds them by the attributes."""
    run(["merged.nxs", "output.map=m.nxs", "range.d_min=9", "range.k=-1,0.5"])
    read = read_map("m.nxs")
    expected = cut(made, (None, (-1, 0.5), None), d_min=9)
    for name, values in expected.fields.items():
        np.testing.assert_array_equal(read.fields[name], values)
    assert read.units == ABSOLUTE_UNITS and read.grid == expected.grid
    assert [record.program for record in read.history] == ["dials.diffuse_export"]
    assert list(read.history[0].inputs) == ["merged.nxs"]
    with h5py.File("m.nxs") as handle:
        data = handle["entry/data"]
        assert data[data.attrs["axes"][1]][0] == -1 and data[data.attrs["axes"][1]][-1] == 0.5


def test_coarser_grid_of_the_asymmetric_unit(made):
    """Its voxels at the border are whole, though the file has the asymmetric unit alone."""
    unit = asymmetric_unit(made)
    unit.write("unit.nxs")
    run(["unit.nxs", "output.map=coarse.nxs", "ndiv=2,2,2"])
    expected = cut(resample(made, (2, 2, 2)), d_min=8)
    read = read_map("coarse.nxs")
    assert read.grid.ndiv == (2, 2, 2) and voxels(read) == pytest.approx(voxels(expected))
    for mate in ((1, 0, 1), (0, 1, 1), (-1, 1, -1)):  # equivalent in 6/m
        assert read.at(np.array([mate])) == pytest.approx(read.at(np.array([[1, 0, 1]])), rel=1e-5)
    run(["unit.nxs", "output.map=part.nxs", "ndiv=2,2,2", "expand=False"])
    assert voxels(expand(read_map("part.nxs"))) == pytest.approx(voxels(read), rel=1e-5)


def test_expand(made):
    asymmetric_unit(made).write("unit.nxs")
    run(["unit.nxs", "output.map=whole.nxs"])
    assert voxels(read_map("whole.nxs")) == voxels(made)
    run(["merged.nxs", "output.map=part.nxs", "expand=False"])
    assert voxels(read_map("part.nxs")) == voxels(asymmetric_unit(made))
    run(["unit.nxs", "output.map=whole.mtz", "expand=True"])
    array = iotbx.mtz.object("whole.mtz").as_miller_arrays()[0]
    assert array.space_group_info().symbol_and_number() == "P 1 (No. 1)"
    assert {n: value for n, value, _ in array.generate_bijvoet_mates()} == voxels(made)


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "needs a map"),
        (["merged.nxs"], "Say what to write: output.map=merged.mtz"),
        (["merged.nxs", "output.map=a.xyz"], r"a.xyz does not tell the format: end it with .nxs, .ccp4"),
        (["merged.nxs", "format=nexus"], "is an input, too, and would be overwritten"),
        (["merged.nxs", "output.map=merged.nxs"], "is an input, too, and would be overwritten"),
        (["merged.nxs", "output.map=no/folder.mtz"], "does not exist: make it"),
        (["merged.nxs", "merged.nxs", "output.map=a.mtz"], "several maps"),
        (["merged.nxs", "output.map=a.mtz", "ndiv=3,3,3"], "cannot be resampled to ndiv=3,3,3"),
        (["merged.nxs", "output.map=a.mtz", "range.h=50,60"], "No measured voxel lies within"),
        (["merged.nxs", "output.map=a.mtz", "range.d_max=2"], "No measured voxel lies within"),
        (["none.nxs", "output.map=a.mtz"], "none.nxs does not exist"),
        (["text.nxs", "output.map=a.mtz"], "text.nxs cannot be read as a map"),
        (["empty.nxs", "output.map=a.mtz"], "empty.nxs is empty"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(made, tmp_path, args, message):
    (tmp_path / "text.nxs").write_text("no map")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if "empty.nxs" in args:
        nothing = {
            name: np.full_like(values, np.nan if values.dtype.kind == "f" else 0)
            for name, values in made.fields.items()
        }
        replace(made, fields=nothing).write("empty.nxs")
    with pytest.raises(SystemExit, match=f"Sorry: .*{message}"):
        run([*args, "output.log=x.log"])
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in after if name not in before} <= {"x.log", "empty.nxs"}
    assert all(after[name] == content for name, content in before.items())


def test_full_disk_leaves_nothing(made, tmp_path):
    """In a process of its own, whose files may not grow."""
    code = """
import contextlib, os, resource, signal
from dials_diffuse.algorithms.export.export import FORMATS
from dials_diffuse.command_line.diffuse_export import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
for format in FORMATS:
    try:
        run(["merged.nxs", f"output.map={format}", f"format={format}", "output.log=x.log"])
    except SystemExit as error:
        print(error)
"""
    before = sorted(os.listdir())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("Sorry")]
    assert len(said) == 6 and all("nothing was written" in line for line in said), done.stdout
    assert sorted(os.listdir()) == sorted([*before, "x.log"])
