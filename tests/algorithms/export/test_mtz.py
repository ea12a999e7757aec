"""MTZ files, read by gemmi and cctbx."""

from __future__ import annotations

import gemmi
import iotbx.mtz
import numpy as np
import pytest
from cctbx import sgtbx, uctbx
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.mtz import export_mtz, mtz_group
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import DiffuseMap


def columns(mtz):
    """Rows of a gemmi.Mtz by label."""
    data = np.array(mtz, copy=False)
    return {column.label: data[:, i] for i, column in enumerate(mtz.columns)}


@pytest.mark.parametrize("symbol", CELLS)
@pytest.mark.parametrize("expand", [False, True])
def test_gemmi_and_cctbx_read_the_same_voxels(tmp_path, symbol, expand):
    made = random_map(symbol, ndiv=(3, 3, 3), d_min=7)
    path = str(tmp_path / "m.mtz")
    export_mtz(made, path, expand)
    known = voxels(made)

    read = gemmi.read_mtz_file(path)
    data = columns(read)
    assert list(data) == ["H", "K", "L", "I", "SIGI", "N"]
    assert [column.type for column in read.columns] == list("HHHJQI")
    supercell = made.grid.supercell.parameters()
    np.testing.assert_allclose(read.cell.parameters, supercell, rtol=1e-5)
    np.testing.assert_allclose(read.datasets[0].cell.parameters, supercell, rtol=1e-5)
    assert read.datasets[-1].wavelength == pytest.approx(0.97)
    group = sgtbx.space_group_info("P 1" if expand else symbol).group().build_derived_point_group()
    operations = {sgtbx.rt_mx(operation.triplet()).as_xyz() for operation in read.spacegroup.operations()}
    assert operations == {operation.as_xyz() for operation in group}
    asu = gemmi.ReciprocalAsu(read.spacegroup)
    index = np.column_stack([data[label] for label in "HKL"]).astype(int)
    assert len(set(map(tuple, index))) == len(index)
    orbits = set()
    for n, intensity, error, number in zip(index, data["I"], data["SIGI"], data["N"]):
        assert asu.is_in(n.tolist())
        assert intensity == known[tuple(n)]
        assert error == made.at(n[None], "intensity_errors")[0]
        assert number == made.at(n[None], "observations")[0]
        for operation in read.spacegroup.operations():
            mate = operation.apply_to_hkl(n.tolist())
            orbits |= {tuple(mate), tuple(-m for m in mate)}
    assert orbits == set(known)  # all voxels, and no more

    array = next(a for a in iotbx.mtz.object(path).as_miller_arrays() if a.is_xray_intensity_array())
    assert array.space_group() == group
    assert array.is_in_asu() and array.is_unique_set_under_symmetry() and not array.anomalous_flag()
    assert {h: (i, s) for h, i, s in array} == {
        tuple(n): (i, s) for n, i, s in zip(index.tolist(), data["I"], data["SIGI"])
    }
    np.testing.assert_allclose(array.unit_cell().parameters(), supercell, rtol=1e-5)
    inner = index[:20]
    q = [array.unit_cell().d_star_sq(tuple(n)) ** 0.5 for n in inner.tolist()]
    np.testing.assert_allclose(q, made.grid.q(inner), rtol=1e-5)


@pytest.mark.parametrize("symbol", ["P 1", "C 1 2 1", "P 31 2 1", "F 4 3 2"])
@pytest.mark.parametrize("expand", [False, True])
def test_friedel_mates_apart(tmp_path, symbol, expand):
    """I(+) and I(-) where cctbx looks for them; one of them alone has no row of its own."""
    made = random_map(symbol, d_min=6, friedel_apart=True, share=0.6)
    path = str(tmp_path / "m.mtz")
    export_mtz(made, path, expand)
    assert [column.label for column in gemmi.read_mtz_file(path).columns[3:]] == [
        *("I(+)", "SIGI(+)", "I(-)", "SIGI(-)", "N(+)", "N(-)")
    ]
    array = next(a for a in iotbx.mtz.object(path).as_miller_arrays() if a.is_xray_intensity_array())
    assert array.anomalous_flag()
    known = voxels(made)
    found = {}
    for n, intensity, _ in array.expand_to_p1():
        found[n] = intensity
    assert found == known


def test_settings_that_have_no_name_are_written_in_p1(tmp_path):
    group = sgtbx.space_group_info("P 4 (a+b,c,a-b)").group()
    cell = group.average_unit_cell(uctbx.unit_cell((20, 21, 22, 90, 90, 90)))
    grid = GlobalGrid(cell, group, (1, 1, 1), 6.0)
    assert mtz_group(grid) is None
    index = grid.key2index(np.arange(np.prod(grid.shape)))
    values = np.unique(grid.map_to_asu(index), axis=0, return_inverse=True)[1].reshape(grid.shape).astype(np.float32)
    fields = {"intensity": values, "intensity_errors": values, "observations": values.astype(int)}
    axes = (np.arange(-n, n + 1.0) for n in grid.n_max)
    export_mtz(DiffuseMap(grid, *axes, fields, np.ones(1), []), tmp_path / "m.mtz", False)
    read = gemmi.read_mtz_file(str(tmp_path / "m.mtz"))
    assert read.spacegroup.hm == "P 1" and read.nreflections == (values.size + 1) / 2


def test_every_point_group_has_the_asymmetric_unit_of_ccp4():
    """That gemmi's, too, of every space group in every tabulated setting."""
    done = set()
    index = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), axis=-1).reshape(-1, 3)
    for symbols in sgtbx.space_group_symbol_iterator():
        space_group = sgtbx.space_group(symbols.hall())
        group = space_group.build_derived_point_group()
        operations = tuple(sorted(operation.as_xyz() for operation in group))
        if operations in done:
            continue
        done.add(operations)
        grid = GlobalGrid(group.info().any_compatible_unit_cell(1000), space_group, (2, 2, 2), 5.0)
        assert mtz_group(grid) == group
        named = gemmi.find_spacegroup_by_ops(gemmi.GroupOps([gemmi.Op(xyz) for xyz in operations]))
        asu = gemmi.ReciprocalAsu(named)
        mapped = grid.map_to_asu(index)
        assert all(asu.is_in(n) for n in np.unique(mapped, axis=0).tolist())
    assert len(done) == 50
