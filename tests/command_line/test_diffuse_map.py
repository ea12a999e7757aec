"""The program: operations that compose, what is written of the result, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest
from smooth_maps import all_voxels, grid_of, map_of, voxels_of, waves

from dials_diffuse.command_line.diffuse_map import run
from dials_diffuse.map_file import read_map

GRID = grid_of("P 41", (2, 2, 2), 3.0)
INDEX = np.unique(GRID.map_to_asu(all_voxels(GRID)), axis=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    map_of(GRID).write("merged.nxs")
    map_of(GRID, 2 * waves(GRID, INDEX), errors=0.2).write("double.nxs")
    return tmp_path


def test_operations_follow_each_other(folder):
    """All at once, or one program after another, in the order given."""
    run(["merged.nxs", "operations=punch,fill,variational,symmetrise", "punch.hkl=0.3,0.3,0.3"])
    run(["merged.nxs", "operations=punch", "output.map=1.nxs", "punch.hkl=0.3,0.3,0.3"])
    run(["1.nxs", "operations=fill", "output.map=2.nxs"])
    run(["2.nxs", "operations=variational symmetrise", "output.map=3.nxs"])
    at_once, in_turn, original = (read_map(name) for name in ("map.nxs", "3.nxs", "merged.nxs"))
    np.testing.assert_allclose(at_once.intensity, in_turn.intensity, atol=1e-5)
    assert [record.program for record in in_turn.history] == ["dials.diffuse_map"] * 3
    assert at_once.history[-1].inputs.keys() == {"merged.nxs"} and "punch,fill" in at_once.history[-1].parameters
    assert at_once.fields["filled"].any() and at_once.units == original.units
    run(["merged.nxs", "operations=variational", "output.map=4.nxs"])
    common = voxels_of(at_once)
    difference = at_once.at(common) - read_map("4.nxs").at(common)
    assert np.sqrt((difference**2).mean()) < 0.1 * np.nanstd(original.intensity)


def test_what_is_written(folder, caplog):
    outputs = ("profile=p.csv", "delta_pdf=pdf.ccp4", "sections=plane", "map=None", "log=other.log")
    planes = ("sections.plane=hk0", "sections.plane=h,k,0.5", "sections.format=csv+png")
    run(["merged.nxs", "operations=variational", *planes, *(f"output.{name}" for name in outputs)])
    files = {path.name for path in folder.iterdir()} - {"merged.nxs", "double.nxs"}
    planes = {f"plane_{plane}.{kind}" for plane in ("hk0", "h_k_0.5") for kind in ("csv", "png")}
    assert files == {"p.csv", "pdf.ccp4", "other.log", *planes}
    log = Path("other.log").read_text()
    assert "Variational" in log and "photons/(s*sr)/A^3" in log and "Written: p.csv" in log
    cell = gemmi.read_ccp4_map("pdf.ccp4").grid.unit_cell
    assert (cell.a, cell.b, cell.c) == pytest.approx((40, 40, 50))


def test_two_maps(folder):
    run(["merged.nxs", "double.nxs", "operations=difference", "output.correlation=cc.csv"])
    assert np.nanmax(np.abs(read_map("map.nxs").intensity)) < 1e-3
    assert "First map = 0.5 " in Path("dials.diffuse_map.log").read_text()
    assert read_map("map.nxs").history[-1].inputs.keys() == {"merged.nxs", "double.nxs"}
    run(["merged.nxs", "double.nxs", "output.correlation=cc.csv", "output.map=None"])
    assert np.genfromtxt("cc.csv", delimiter=",", names=True)["cc"] == pytest.approx(1)


@pytest.mark.parametrize(
    "args, message",
    [
        (["merged.nxs", "operations=fill,smooth"], "there is no operation smooth, but punch, fill, "),
        (["merged.nxs", "operations=difference"], "need two maps"),
        (["merged.nxs", "output.correlation=c.csv"], "need two maps"),
        (["merged.nxs", "double.nxs"], "double.nxs is of no use: ask for operations=difference"),
        (["merged.nxs", "double.nxs", "merged.nxs", "operations=difference"], "3 maps were given"),
        (["merged.nxs", "operations=fill", "sections.plane=h,k,0.3"], "does not go through voxels"),
        (["merged.nxs", "operations=total", "total.bragg=no.mtz"], "no.mtz"),
        (["merged.nxs", "operations=symmetrise", "symmetrise.group=P23"], "does not fit symmetrise.group=P 2 3"),
        (["merged.nxs", "output.map=merged.nxs"], "would be overwritten"),
        (["merged.nxs", "output.profile=no/p.csv"], "does not exist"),
        (["empty.nxs"], "empty.nxs holds no intensity"),
        (["double.nxs", "no.nxs", "operations=difference"], "no.nxs does not exist"),
        (["text.nxs"], "text.nxs cannot be read as a map"),
    ],
)
def test_refusals(folder, args, message):
    Path("text.nxs").write_text("text")
    map_of(GRID, np.full(len(INDEX), np.nan), index=INDEX).write("empty.nxs")
    with pytest.raises(SystemExit, match=message):
        run(args)
    assert not Path("map.nxs").exists()


def test_nothing_is_left_behind_if_an_output_fails(folder, monkeypatch):
    monkeypatch.setattr("dials_diffuse.algorithms.maps.delta_pdf.DeltaPdf.write", fail)
    with pytest.raises(SystemExit, match="Cannot write map.nxs, pdf.ccp4: no room"):
        run(["merged.nxs", "output.delta_pdf=pdf.ccp4"])
    assert {path.name for path in folder.iterdir()} == {"merged.nxs", "double.nxs", "dials.diffuse_map.log"}


def fail(self, filename, centred):
    raise OSError(28, "no room", str(filename))
