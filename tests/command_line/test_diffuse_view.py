"""The page as a reader uses it, and the picture of a plane, on lattices that are not orthogonal."""

from __future__ import annotations

import csv
import io
import re
import time

import matplotlib.image
import numpy as np
import pytest
from browser import browser
from example_maps import example_map

from dials_diffuse.algorithms.view.colours import NOT_MEASURED, colour_table
from dials_diffuse.command_line.diffuse_view import run
from dials_diffuse.map_file import ABSOLUTE_UNITS

pytestmark = pytest.mark.xdist_group("diffuse_view")  # one browser
MONOCLINIC = "C 1 2 1"
OPTIONS = ["merged.nxs", "browser=False", "rings=None", "colour.limits=-100,100000"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as reader:
        yield reader
        assert reader.console == []


@pytest.fixture
def diffuse_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diffuse_map, *_ = example_map(MONOCLINIC)
    diffuse_map.write("merged.nxs")
    return diffuse_map


@pytest.fixture
def page(diffuse_map, reader, tmp_path):
    """The open page, and where its drawing is in the window: left, top, side."""
    run([*OPTIONS, "plane.zone=0,1,0", "plane.level=1.5"])
    reader.open(tmp_path / "merged.html")
    box = reader.evaluate("(() => { const b = canvas.getBoundingClientRect(); return [b.left, b.top, side]; })()")
    return box[0] + 70, box[1] + 56, box[2]


def places(diffuse_map, hkl, area):
    """Where voxels of a plane h k const of a monoclinic lattice are drawn, from the cell alone; shape (n, 2)."""
    left, top, side = area
    cell = diffuse_map.grid.unit_cell
    a_star, _, c_star, _, beta_star, _ = cell.reciprocal_parameters()
    x = hkl[:, 0] * a_star + hkl[:, 2] * c_star * np.cos(np.radians(beta_star))
    y = hkl[:, 2] * c_star * np.sin(np.radians(beta_star))
    measured = np.argwhere(np.isfinite(diffuse_map.intensity)) + diffuse_map.lowest
    half = 1.05 * diffuse_map.grid.q(measured).max()
    return np.stack([left + side * (0.5 + x / half / 2), top + side * (0.5 - y / half / 2)], axis=1)


def voxels_of_plane(diffuse_map, k):
    """h k l of the voxels within the sphere, and their intensities."""
    h, l = np.meshgrid(diffuse_map.h, diffuse_map.l, indexing="ij")
    hkl = np.stack([h, np.full(h.shape, k), l], axis=-1).reshape(-1, 3)
    index = np.rint(2 * hkl).astype(int)
    inside = diffuse_map.grid.q(index) < 0.97 / diffuse_map.grid.d_min
    return hkl[inside], diffuse_map.at(index[inside])


def assert_colours(seen, intensity):
    """Colours, shape (n, 3), against viridis from -100 to 100 000."""
    measured = np.isfinite(intensity)
    number = np.clip((np.nan_to_num(intensity) + 100) / 100100 * 256, 0, 255).astype(int)
    expected = colour_table("viridis")[number].astype(int)
    assert np.abs(seen[measured] - expected[measured]).max() <= 6  # rounding: a step of the table or two
    stripes = {tuple(colour) for colour in NOT_MEASURED}
    assert {tuple(colour) for colour in seen[~measured]} == stripes
    assert not stripes & {tuple(colour) for colour in seen[measured]}
    assert (intensity == 0).sum() > 3 and (~measured).sum() > 20


def test_voxels_have_their_colours_where_they_belong(diffuse_map, page, reader):
    hkl, intensity = voxels_of_plane(diffuse_map, 1.5)
    assert len(hkl) > 500
    # off the voxels' centres, where the dashed axes are
    x, y = np.floor(places(diffuse_map, hkl + [0.12, 0, 0.12], page)).astype(int).T
    assert_colours(reader.screenshot()[y, x].astype(int), intensity)


def test_the_picture_is_the_same_as_the_page(diffuse_map):
    run([*OPTIONS, "plane.zone=0,1,0", "plane.level=1.5", "output.png=plane.png", "output.html=None", "width=1020"])
    image = matplotlib.image.imread("plane.png")
    assert image.shape[:2] == (910, 1020)
    hkl, intensity = voxels_of_plane(diffuse_map, 1.5)
    x, y = np.floor(places(diffuse_map, hkl + [0.12, 0, 0.12], (70, 56, 800))).astype(int).T
    assert_colours(np.rint(255 * image[y, x, :3]).astype(int), intensity)


def read_out(reader, x, y):
    reader.mouse("mouseMoved", x, y)
    names = ("hkl", "intensity", "error", "q", "d")
    return [reader.evaluate(f"document.getElementById('at-{name}').textContent") for name in names]


def number(text):
    return float(re.match(r"-?[\d.]+(e-?\d+)?", text)[0])


def test_what_is_at_the_pointer(diffuse_map, page, reader):
    hkl, intensity = voxels_of_plane(diffuse_map, 1.5)
    named = hkl[np.isfinite(intensity)][[7, 100, 400]]
    cell = diffuse_map.grid.unit_cell
    for hkl, (x, y) in zip(named, places(diffuse_map, named, page)):
        where, intensity, error, q, d = read_out(reader, x, y)
        assert [float(n) for n in where.split(", ")] == hkl.tolist()
        index = np.rint([2 * hkl]).astype(int)
        assert number(intensity) == pytest.approx(diffuse_map.at(index)[0], rel=0.01, abs=50)
        assert number(error) == pytest.approx(diffuse_map.at(index, "intensity_errors")[0], rel=0.06)
        assert intensity.endswith(" photons / (s sr)")
        reciprocal = cell.reciprocal().length(tuple(hkl))
        assert (number(q), number(d)) == (pytest.approx(reciprocal, abs=1e-4), pytest.approx(1 / reciprocal, abs=1e-3))
    reader.choose("level", "1")
    bragg = np.array([[3.0, 1, -4]])
    where, intensity, error, *_ = read_out(reader, *places(diffuse_map, bragg, page)[0])
    assert where == "3, 1, -4" and intensity == "not measured" and error == "–"
    assert read_out(reader, 5, 5)[0] == "–"


def test_profile_along_a_line(diffuse_map, page, reader, tmp_path):
    ends = np.array([[-6.0, 1.5, -3], [5, 1.5, 4.5]])
    for x, y in places(diffuse_map, ends, page):
        reader.click(x, y)
    rows = list(csv.DictReader(io.StringIO(reader.evaluate("profileCsv()"))))
    hkl = np.array([[float(row[name]) for name in "hkl"] for row in rows])
    assert len(hkl) >= 22 and len(np.unique(hkl, axis=0)) == len(hkl)
    length = diffuse_map.grid.unit_cell.reciprocal().length(tuple(ends[1] - ends[0]))
    distance = np.array([float(row["distance"]) for row in rows])
    assert (np.diff(distance) > 0).all() and distance[-1] < length < distance[-1] + 0.05
    along = ends[0] + (ends[1] - ends[0]) * distance[:, None] / length
    assert np.abs(along - hkl).max() < 0.5  # voxels are half a unit wide; the ends are as fine as pixels
    intensity = np.array([float(row["intensity"] or "nan") for row in rows])
    truth = diffuse_map.at(np.rint(2 * hkl).astype(int))
    np.testing.assert_allclose(intensity, truth, rtol=0.01, atol=50)
    red, _, blue = reader.screenshot(tmp_path / "page.png")[:, -350:].astype(int).T
    assert (blue > red + 100).sum() > 100  # the curve
    reader.click(page[0] + 50, page[1] + 50)
    assert reader.evaluate("view.line.length") == 1


def test_controls(diffuse_map, page, reader, tmp_path):
    reader.choose("plane", "zone")
    reader.choose("zone", "0 0 0")
    assert reader.evaluate("document.getElementById('zone').className") == "wrong"
    reader.choose("zone", "1 1 0")
    reader.choose("slider", 3)
    assert reader.evaluate("labels()") == [
        "x (0 0 1)",
        "y (1 -1 0)",
        "h + k = 1.5: (0.75 0.75 0) + x (0 0 1) + y (1 -1 0)",
    ]
    reader.choose("zone", "1 1 0, 0 0 1")
    assert reader.evaluate("[view.zone, view.vectors]") == [[1, -1, 0], [[1, 1, 0], [0, 0, 1]]]
    reader.choose("plane", "2")
    assert reader.evaluate("labels()") == ["h", "k", "h, k, 0"]
    points = reader.evaluate("[...braggPoints()]")
    assert [2, 0, 0] in points and [1, 1, 0] in points and [1, 0, 0] not in points  # C-centred
    reader.choose("scale", "log")
    low, high = reader.evaluate("[view.low, view.high]")
    assert 0 < low < 100 and 9e4 < high < 1e5
    reader.choose("low", "-5")
    assert reader.evaluate("document.getElementById('low').className") == "wrong"
    reader.choose("scale", "percentile")
    shown = reader.screenshot()[int(page[1]) :, int(page[0]) : int(page[0] + page[2])].reshape(-1, 3)
    few, many = np.percentile(np.unique(shown @ [1, 256, 65536], return_counts=True)[1], [30, 70])
    assert many < 8 * few  # colours are used evenly
    x, y = page[0] + 100, page[1] + 150
    before = read_out(reader, x, y)
    reader.mouse("mouseWheel", x, y, deltaX=0, deltaY=-600)
    assert reader.evaluate("view.half / map.reach") == pytest.approx(1.05 * 1.0015**-600)
    assert read_out(reader, x, y) == before  # zoomed about the pointer
    reader.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    reader.mouse("mouseMoved", x + 40, y + 30, button="left", buttons=1)
    reader.mouse("mouseReleased", x + 40, y + 30, button="left", clickCount=1)
    assert read_out(reader, x + 40, y + 30) == before and reader.evaluate("view.line.length") == 0  # dragged along
    reader.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
    reader.evaluate("document.getElementById('save').click()")
    for _ in range(100):
        if saved := list((tmp_path / "saved").glob("*.png")):
            break
        time.sleep(0.05)
    assert [path.name for path in saved] == ["merged_h_k_0.png"]


def test_what_the_page_shows_first(diffuse_map, reader, tmp_path):
    diffuse_map.units = ABSOLUTE_UNITS
    diffuse_map.fields["intensity"] -= 20000
    diffuse_map.write("merged.nxs")
    run(["merged.nxs", "browser=False", "plane.vectors=1,1,0,0,0,1", "plane.level=0.5", "rings=5,3", "lattice=True"])
    reader.open(tmp_path / "merged.html")
    shown = reader.evaluate("[view.zone, view.level, view.colours, view.low + view.high, map.rings, map.units]")
    assert shown == [[1, -1, 0], 0.5, "RdBu_r", 0, [5, 3], "e² per unit cell"]
    assert reader.evaluate("[element('plane').value, element('lattice').checked]") == ["zone", True]
    image = reader.screenshot()
    assert (image == image[0, 0]).all(axis=-1).mean() < 0.8


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["merged.nxs", "merged.nxs"], "more than one map"),
        (["merged.nxs", "output.html=None"], "Nothing is to be written"),
        (["merged.nxs", "field=half_1"], "no half_1"),
        (["merged.nxs", "colour.limits=2,1"], "must be larger"),
        (["merged.nxs", "rings=0,1"], "above 0"),
        (["output.log=None"], "needs a map"),
    ],
)
def test_user_errors(diffuse_map, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=f"Sorry: .*{message}"):
        run([*arguments, "browser=False"])
    assert not list(tmp_path.glob("*.html"))
