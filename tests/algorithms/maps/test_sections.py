from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from smooth_maps import grid_of, map_of, waves

from dials_diffuse.algorithms.maps.sections import section


@pytest.mark.parametrize(
    "plane, place",
    [
        ("hk0", lambda x, y: (x, y, 0)),
        ("h1l", lambda x, y: (x, 1, y)),
        ("-2kl", lambda x, y: (-2, x, y)),
        ("h, k, 0.5", lambda x, y: (x, y, 0.5)),
        ("h,k,-1.5", lambda x, y: (x, y, -1.5)),
        ("hhl", lambda x, y: (x, x, y)),
        ("h,-h,l", lambda x, y: (x, -x, y)),
        ("-h,h,l", lambda x, y: (x, -x, y)),
        ("hkh", lambda x, y: (x, y, x)),
    ],
)
def test_values(plane, place):
    grid = grid_of("P 1")
    found = section(map_of(grid), plane)
    hkl = np.array([[place(x, y) for y in found.y] for x in found.x])
    if plane == "-h,h,l":
        hkl = hkl * [-1, -1, 1] * [1, 1, 1]
        hkl = np.array([[(-x, x, y) for y in found.y] for x in found.x])
    np.testing.assert_allclose(found.hkl, hkl)
    inside = grid.contains(grid.hkl2index(hkl.reshape(-1, 3)))
    expected = np.where(inside, waves(grid, grid.hkl2index(hkl.reshape(-1, 3))), np.nan)
    np.testing.assert_allclose(found.intensity.ravel(), expected, rtol=1e-5)
    assert found.errors[np.isfinite(found.intensity)] == pytest.approx(0.1)
    # lengths and angle of a picture
    a = np.array(grid.unit_cell.fractionalization_matrix()).reshape(3, 3)
    steps = (hkl[1, 0] - hkl[0, 0]) / (found.x[1] - found.x[0]), (hkl[0, 1] - hkl[0, 0]) / (found.y[1] - found.y[0])
    vectors = np.array(steps) @ a
    np.testing.assert_allclose(found.basis @ found.basis.T, vectors @ vectors.T, rtol=1e-6)


def test_files(tmp_path):
    grid = grid_of("P 6", d_min=5.0)
    found = section(map_of(grid), "hk0")
    found.filled[3, 3] = True
    for kind in ("csv", "npz", "png"):
        found.write(tmp_path / f"s.{kind}", kind)
    table = np.genfromtxt(tmp_path / "s.csv", delimiter=",", names=True)
    assert len(table) == np.isfinite(found.intensity).sum() and (table["l"] == 0).all()
    hkl = np.stack([table["h"], table["k"], table["l"]], axis=1)
    assert table["intensity"] == pytest.approx(waves(grid, grid.hkl2index(hkl)), rel=1e-4)
    arrays = np.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(arrays["intensity"], found.intensity)
    assert arrays["axes"].tolist() == ["h", "k"] and arrays["units"] == "photons/(s*sr)"
    assert (tmp_path / "s.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    "plane, message",
    [
        ("hkl", "two of h, k, l must vary"),
        ("h00", "two of h, k, l must vary"),
        ("hk", "give three entries"),
        ("hk0.5", "give three entries"),
        ("h,k,x", "x is neither h, k, l nor a number"),
        ("h,k,0.3", "they are 1/4 apart in l"),
        ("h,k,99", "outside the map"),
        ("hkk", "ndiv differs"),
    ],
)
def test_no_planes(plane, message):
    with pytest.raises(Sorry, match=message):
        section(map_of(grid_of("P 1", (2, 2, 4), 5.0)), plane)
