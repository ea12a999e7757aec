"""CCP4 maps, read by gemmi, mrcfile and cctbx."""

from __future__ import annotations

import gemmi
import iotbx.mrcfile
import mrcfile
import numpy as np
import pytest
from cctbx import uctbx
from hypothesis import given, settings
from hypothesis import strategies as st
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.ccp4 import export_ccp4, write_ccp4
from dials_diffuse.algorithms.export.cut import cut


@pytest.mark.parametrize("symbol", CELLS)
def test_gemmi_finds_voxels_where_they_are(tmp_path, symbol):
    """Their values, and |q| from their places in the file's cell: 1 A there is 0.01 1/A."""
    made = random_map(symbol, ndiv=(2, 2, 2), d_min=6)
    export_ccp4(made, tmp_path / "m.ccp4", "intensity", -1)
    read = gemmi.read_ccp4_map(str(tmp_path / "m.ccp4"))
    read.setup(float("nan"))
    assert read.grid.spacegroup.hm == "P 1"
    assert (read.grid.nu, read.grid.nv, read.grid.nw) == made.shape
    assert read.grid.unit_cell.volume == pytest.approx(
        1e6 * np.prod(made.shape) / 8 / made.grid.unit_cell.volume(), rel=1e-5
    )
    known = voxels(made)
    for voxel in [(0, 0, 1), (1, 0, 0), (0, -1, 0), *list(known)[::37]]:
        assert read.grid.get_value(*voxel) == known.get(voxel, -1)
        place = gemmi.Fractional(*(n / size for n, size in zip(voxel, made.shape)))
        length = read.grid.unit_cell.orthogonalize(place).length()
        assert length / 100 == pytest.approx(made.grid.q(np.array([voxel]))[0], rel=1e-5)
    values = np.array(read.grid, copy=False)
    assert (values != -1).sum() == len(known)


def test_axes_are_those_of_the_reciprocal_cell(tmp_path):
    made = random_map("P 1")
    export_ccp4(made, tmp_path / "m.ccp4", "intensity", 0)
    read = gemmi.read_ccp4_map(str(tmp_path / "m.ccp4"))
    cell = made.grid.unit_cell.reciprocal_parameters()
    found = read.grid.unit_cell
    np.testing.assert_allclose((found.alpha, found.beta, found.gamma), cell[3:], rtol=1e-5)
    edges = [100 * edge * size / 2 for edge, size in zip(cell, made.shape)]
    np.testing.assert_allclose((found.a, found.b, found.c), edges, rtol=1e-5)


def test_header_is_right_for_mrcfile_and_cctbx(tmp_path):
    made = cut(random_map("P 21 21 21"), ((-1, 2), (0, 1.5), None))
    path = str(tmp_path / "m.mrc")
    export_ccp4(made, path, "intensity_errors", 0)
    assert mrcfile.validate(path)
    errors = np.nan_to_num(made.intensity_errors)
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, errors.T)
        header = file.header
        assert (header.nxstart, header.nystart, header.nzstart) == tuple(made.lowest)
        assert (header.mapc, header.mapr, header.maps, header.ispg) == (1, 2, 3, 1)
        assert header.dmax == errors.max() and header.dmean == pytest.approx(errors.mean(), rel=1e-5)
        assert "intensity_errors, photons/(s*sr); unmeasured voxels: 0" in file.get_labels()
    reader = iotbx.mrcfile.map_reader(file_name=path)
    assert reader.map_data().origin() == tuple(made.lowest)
    assert tuple(reader.unit_cell_grid) == made.shape
    place = np.argwhere(errors)[5]
    assert reader.map_data()[tuple(int(n) for n in place + made.lowest)] == errors[tuple(place)]


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.integers(-9, 9)] * 3),
    st.tuples(*[st.integers(6, 12)] * 3),
    st.integers(0, 1000),
)
def test_round_trip(tmp_path_factory, shape, start, sampling, seed):
    """Any part of any cell comes back from gemmi at the same grid points."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    path = str(tmp_path_factory.mktemp("ccp4") / "m.ccp4")
    write_ccp4(path, values, uctbx.unit_cell((10, 11, 12, 80, 90, 100)), start=start, sampling=sampling)
    read = gemmi.read_ccp4_map(path)
    read.setup(float("nan"))
    assert (read.grid.nu, read.grid.nv, read.grid.nw) == sampling
    for place in np.ndindex(*shape):
        assert read.grid.get_value(*(int(n) for n in np.add(start, place))) == values[place]


def test_nan_if_it_is_asked_for(tmp_path):
    made = random_map("P 1")
    with pytest.warns(RuntimeWarning, match="NaN"):
        export_ccp4(made, tmp_path / "m.ccp4", "intensity", float("nan"))
    with mrcfile.open(tmp_path / "m.ccp4") as file:
        np.testing.assert_array_equal(file.data, made.intensity.T)
