from __future__ import annotations

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from cctbx import miller
from dials.util import Sorry
from grids import make_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from dials_diffuse import map_file
from dials_diffuse.map_file import ABSOLUTE_UNITS, FIELDS, INTENSITY_UNITS, DiffuseMap, read_map, write_map
from dials_diffuse.provenance import ProcessRecord

SETTINGS = {
    "P 1": (20, 21, 22, 85, 95, 100),
    "C 2": (20, 21, 22, 90, 100, 90),
    "P 4": (20, 20, 25, 90, 90, 90),
    "P 31 2 1": (20, 20, 25, 90, 90, 120),
    "P 6": (20, 20, 25, 90, 90, 120),
    "F 2 3": (30, 30, 30, 90, 90, 90),
}
HISTORY = [
    ProcessRecord("dials.diffuse_extract", "1", "2026-01-01", "d_min = 2\n", {"a.expt": "ab", "b µ.refl": "cd"}),
    ProcessRecord("dials.diffuse_merge", "2", "2026-01-02", "", {}),
]


def make(symbol, count=200, seed=0):
    grid = make_grid(SETTINGS[symbol], symbol, d_min=4.0)
    rng = np.random.default_rng(seed)
    index = rng.integers(-grid.n_max[0], grid.n_max[0] + 1, (count, 3)).astype(np.int32)
    index = np.unique(grid.map_to_asu(index[grid.contains(index)]), axis=0)
    columns = {}
    for name, dtype, _, _ in FIELDS:
        numbers = rng.integers(1, 1000, len(index))
        columns[name] = {"i": numbers, "f": numbers / 8}[dtype[0]] if name != "filled" else numbers % 2
    columns["half_1"][0] = np.nan
    return grid, index, columns


def write(path, grid, index, columns, **options):
    write_map(path, grid, index, columns, wavelengths=np.array([0.97]), history=HISTORY, **options)
    return read_map(path)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(SETTINGS)), st.integers(1, 60), st.integers(0, 10**6), st.booleans())
def test_round_trip(tmp_path_factory, symbol, count, seed, expand):
    grid, index, columns = make(symbol, count + 5, seed)
    if len(index) == 0:
        return
    read = write(tmp_path_factory.mktemp("map") / "m.nxs", grid, index, columns, expand=expand)
    assert read.grid == grid
    assert read.history == HISTORY
    assert read.wavelengths.tolist() == [0.97] and read.units == INTENSITY_UNITS
    in_memory = DiffuseMap.from_voxels(grid, index, columns, wavelengths=0.97, history=HISTORY, expand=expand)
    for name, values in columns.items():
        np.testing.assert_array_equal(read.at(index, name), values)
        np.testing.assert_array_equal(in_memory.fields[name], read.fields[name])
        assert in_memory.fields[name].dtype == read.fields[name].dtype
    assert (in_memory.lowest == read.lowest).all() and in_memory.shape == read.shape
    measured = len(index) if not expand else sum(len(set(mates(grid, voxel))) for voxel in index)
    assert np.isfinite(read.intensity).sum() == measured == (read.fields["observations"] > 0).sum()


def mates(grid, voxel):
    """Equivalent voxels, as cctbx has them."""
    group = grid.laue_group.build_derived_point_group()
    return [mate.h() for mate in miller.sym_equiv_indices(group, tuple(int(n) for n in voxel)).indices()]


@pytest.mark.parametrize("symbol", SETTINGS)
def test_laue_mates_are_equal(tmp_path, symbol):
    grid, index, columns = make(symbol)
    read = write(tmp_path / "m.nxs", grid, index, columns)
    for voxel, value in zip(index[::7], columns["intensity"][::7]):
        assert set(read.at(np.array(mates(grid, voxel)))) == {value}
    position = [np.flatnonzero(np.isclose(axis, n / 2))[0] for axis, n in zip((read.h, read.k, read.l), index[0])]
    assert read.intensity[tuple(position)] == columns["intensity"][0]


def test_asymmetric_unit_alone_is_smaller(tmp_path):
    grid, index, columns = make("P 4")
    whole = write(tmp_path / "a.nxs", grid, index, columns)
    part = write(tmp_path / "b.nxs", grid, index, columns, expand=False)
    assert part.intensity.size < whole.intensity.size / 2
    assert part.intensity.shape == tuple(np.ptp(index, axis=0) + 1)
    with pytest.raises(IndexError):
        part.at(np.array([[-99, 0, 0]]))


def test_slabs_make_the_same_file(tmp_path, monkeypatch):
    grid, index, columns = make("P 4", 3000)
    whole = write(tmp_path / "a.nxs", grid, index, columns)
    monkeypatch.setattr(map_file, "SLAB", 500)
    monkeypatch.setattr(map_file, "CHUNK", 4)
    sliced = write(tmp_path / "b.nxs", grid, index, columns)
    for name in whole.fields:
        np.testing.assert_array_equal(whole.fields[name], sliced.fields[name])


def test_structure_is_nexus(tmp_path):
    """What NeXus asks of a file, and the layout of the design: a reader finds the map without being told."""
    grid, index, columns = make("P 4")
    write(tmp_path / "m.nxs", grid, index, columns)
    with h5py.File(tmp_path / "m.nxs") as handle:
        assert handle.attrs["NX_class"] == "NXroot"
        entry = handle[handle.attrs["default"]]
        assert entry.name == "/entry" and entry.attrs["NX_class"] == "NXentry"
        assert "definition" not in entry
        data = entry[entry.attrs["default"]]
        for group, signal in ((data, "intensity"), (entry["halves"], "half_1")):
            assert group.attrs["NX_class"] == "NXdata"
            assert group.attrs["signal"] == signal
            assert list(group.attrs["axes"]) == ["h", "k", "l"]
            for number, axis in enumerate("hkl"):
                assert group.attrs[f"{axis}_indices"] == number
                assert group[axis].shape == (group[signal].shape[number],)
                assert group[axis].dtype == np.float64
            for name in [signal, *group.attrs.get("auxiliary_signals", [])]:
                assert group[f"{name}_errors"].shape == group[name].shape
                assert group[name].attrs["units"]
        assert {name: data[name].dtype.str[1:] for name, _, _, where in FIELDS if where == "data"} == {
            "intensity": "f4",
            "intensity_errors": "f4",
            "observations": "i4",
            "pixels": "i8",
            "filled": "i1",
        }
        assert data["intensity"].compression == "gzip" and data["intensity"].shuffle
        sample = entry["sample"]
        assert sample.attrs["NX_class"] == "NXsample"
        np.testing.assert_allclose(sample["unit_cell"], SETTINGS["P 4"])
        assert sample["unit_cell_volume"][()] == pytest.approx(20 * 20 * 25)
        assert sample["space_group"].asstr()[()] == "P 4"
        assert sample["laue_group"].asstr()[()] == "4/m"
        assert entry["instrument"].attrs["NX_class"] == "NXinstrument"
        assert entry["instrument/beam"].attrs["NX_class"] == "NXbeam"
        assert entry["instrument/beam/incident_wavelength"][()] == 0.97
        processes = [entry[name] for name in entry if entry[name].attrs.get("NX_class") == "NXprocess"]
        assert [p["program"].asstr()[()] for p in processes] == ["dials.diffuse_extract", "dials.diffuse_merge"]
        assert processes[0]["sequence_index"][()] == 1
        assert processes[0]["phil"].asstr()[()] == "d_min = 2\n"
        assert dict(zip(processes[0]["input_files"].asstr(), processes[0]["input_sha256"].asstr())) == HISTORY[0].inputs


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.nxs").write_text("no map")
    with pytest.raises(Sorry, match="cannot be read"):
        read_map(tmp_path / "text.nxs")
    with h5py.File(tmp_path / "other.nxs", "w") as handle:
        handle.create_group("entry")
    with pytest.raises(Sorry, match="holds no map"):
        read_map(tmp_path / "other.nxs")


@pytest.mark.parametrize("limit", [100, 5_000, 50_000])
def test_full_disk_is_an_ordinary_error(tmp_path, limit):
    """In a process of its own, for HDF5 by itself ends in a segmentation fault here."""
    code = f"""
import resource, signal, sys
import dials_diffuse
from test_map_file import make, write
grid, index, columns = make("P 4", 3000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write({str(tmp_path / "m.nxs")!r}, grid, index, columns)
except OSError as error:
    sys.exit(error.errno)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.returncode == errno.EFBIG, process.stderr


def test_some_columns_will_do(tmp_path):
    grid, index, columns = make("P 4")
    write_map(tmp_path / "m.nxs", grid, index, {"intensity": columns["intensity"]}, wavelengths=np.ones(1))
    read = read_map(tmp_path / "m.nxs")
    np.testing.assert_array_equal(read.at(index), columns["intensity"])
    assert np.isnan(read.intensity_errors).all() and not read.fields["observations"].any() and read.history == []
    with pytest.raises(ValueError, match="no column Intensity: intensity, intensity_errors"):
        write_map(tmp_path / "n.nxs", grid, index, {"Intensity": columns["intensity"]}, wavelengths=np.ones(1))
    assert not (tmp_path / "n.nxs").exists()


@pytest.mark.parametrize("expand", [True, False])
def test_a_map_is_written_as_it_was_read(tmp_path, expand, monkeypatch):
    """Slabs, units, fields that are missing, and a box that is not about the origin."""
    monkeypatch.setattr(map_file, "SLAB", 500)
    monkeypatch.setattr(map_file, "CHUNK", 4)
    grid, index, columns = make("P 6")
    options = {"wavelengths": np.array([0.97]), "history": HISTORY, "expand": expand, "units": ABSOLUTE_UNITS}
    write_map(
        tmp_path / "a.nxs", grid, index[index[:, 2] > 2], {n: c[index[:, 2] > 2] for n, c in columns.items()}, **options
    )
    first = read_map(tmp_path / "a.nxs")
    first.write(tmp_path / "b.nxs")
    again = read_map(tmp_path / "b.nxs", ["intensity", "filled"])
    assert set(again.fields) == {"intensity", "filled"} and again.shape == first.shape
    assert again.units == ABSOLUTE_UNITS and again.grid == grid and again.history == HISTORY
    again.write(tmp_path / "c.nxs")
    third = read_map(tmp_path / "c.nxs")
    for name, values in first.fields.items():
        found = third.fields[name]
        if name in again.fields:
            np.testing.assert_array_equal(found, values)
        else:
            assert np.isnan(found).all() if found.dtype == np.float32 else not found.any()
    assert (third.lowest == first.lowest).all() and (expand or first.lowest[2] == 3)


def test_q_of_voxels(tmp_path):
    grid, index, columns = make("P 1")
    read = write(tmp_path / "m.nxs", grid, index, columns)
    read.fields["q"] = read.q()
    np.testing.assert_allclose(read.at(index, "q"), grid.q(index), rtol=1e-6)
    np.testing.assert_array_equal(read.q(slice(2, 4)), read.fields["q"][2:4])


def test_files_of_older_versions(tmp_path):
    """They have no field ``filled``."""
    grid, index, columns = make("P 4")
    write(tmp_path / "m.nxs", grid, index, columns)
    with h5py.File(tmp_path / "m.nxs", "r+") as handle:
        del handle["entry/data/filled"]
    read = read_map(tmp_path / "m.nxs")
    assert read.fields["filled"].shape == read.shape and not read.fields["filled"].any()
