from __future__ import annotations

import pickle
import resource

import numpy as np
import pytest
from dials.util import Sorry
from dxtbx import flumpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.partitioned_table import PartitionedTable, finished_part, read_part, save_part, write_manifest
from dials_diffuse.table_file import columns_of

FLOATS = st.floats(width=32, allow_nan=True)
INTEGERS = st.integers(-(2**31), 2**31 - 1)


@st.composite
def columns(draw):
    """Columns as programs make them, any number of rows."""
    n = draw(st.integers(0, 50))
    return {
        "id": draw(arrays(np.int32, n, elements=st.integers(0, 3))),
        "panel": draw(arrays(np.uint64, n, elements=st.integers(0, 255))),
        "miller_index": draw(arrays(np.int32, (n, 3), elements=INTEGERS)),
        "counts": draw(arrays(np.float64, n, elements=FLOATS)),
        "xyzobs.px.value": draw(arrays(np.float64, (n, 3), elements=FLOATS)),
        "flags": draw(arrays(np.uint64, n, elements=st.integers(0, 2**27))),
        "good": draw(arrays(bool, n)),
    }


def some_columns(n, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "id": np.full(n, seed, dtype=np.int32),
        "miller_index": rng.integers(-99, 99, (n, 3)).astype(np.int32),
        "counts": rng.random(n),
    }


def make_table(folder, sizes=(1000, 0, 10)):
    folder.mkdir()
    parts = [save_part(folder, f"part-{i}", some_columns(n, i)) for i, n in enumerate(sizes)]
    write_manifest(folder, parts, {i: f"name-{i}" for i in range(len(sizes))}, {"order": "frame"})
    return PartitionedTable(folder)


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(columns(), min_size=1, max_size=3))
def test_round_trip(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("table")
    written = [save_part(folder, str(i), part) for i, part in enumerate(parts)]
    assert [save_part(folder, str(i), part) for i, part in enumerate(parts)] == written  # the same bytes
    assert [finished_part(folder, str(i)) for i in range(len(parts))] == [(part, None) for part in written]
    write_manifest(folder, written, {0: "abc"}, {"order": "frame"})
    table = pickle.loads(pickle.dumps(PartitionedTable(folder)))
    parts = [part for part in parts if len(part["id"])]
    assert [part.rows for part in table.parts] == [len(part["id"]) for part in parts]
    assert table.rows == sum(len(part["id"]) for part in parts)
    for number, part in enumerate(parts):
        read, refl = table.read(number), table.table(number)
        assert set(read) == set(part) == set(refl.keys()) == set(table.columns)
        assert refl.experiment_identifiers()[0] == "abc"
        again = columns_of(refl)
        for name, values in part.items():
            assert np.array_equal(read[name], values, equal_nan=values.dtype.kind == "f")
            assert np.array_equal(again[name], values, equal_nan=values.dtype.kind == "f")
            assert again[name].dtype == read[name].dtype and read[name].dtype in (np.float32, np.int32, bool)
        assert type(refl["panel"]).__name__ == type(refl["flags"]).__name__ == "size_t"
        assert set(table.read(number, ("counts",))) == {"counts"}
    if parts:
        whole = flumpy.to_numpy(table.whole_table()["panel"])
        assert np.array_equal(whole, np.concatenate([part["panel"] for part in parts]))


def test_floats_are_rounded_to_single_precision_and_notes_are_not(tmp_path):
    part = save_part(tmp_path, "a", {"counts": np.array([1 / 3, 1e-30])}, {"x": [1 / 3, None]})
    assert finished_part(tmp_path, "a") == (part, {"x": [1 / 3, None]})
    assert (read_part(tmp_path / "a.h5")["counts"] == np.array([1 / 3, 1e-30]).astype(np.float32)).all()


def test_several_as_one(tmp_path):
    tables = [make_table(tmp_path / f"{i}.parts") for i in range(2)]
    one = PartitionedTable.joined(tables, [0, 3])
    assert one.rows == 2020 and one.attributes == {"order": "frame"}
    assert one.identifiers == {i: f"name-{i % 3}" for i in range(6)}
    ids = [np.unique(one.read(number)["id"]).tolist() for number in range(4)]
    assert ids == [[0], [2], [3], [5]]
    again = PartitionedTable.joined([one, tables[0]], [0, 6])
    assert again.rows == 3030 and again.read(4)["id"][0] == 6 and again.read(2)["id"][0] == 3
    expected = miller_index_to_numpy(tables[1].table(0)["miller_index"])
    assert (miller_index_to_numpy(one.table(2)["miller_index"]) == expected).all()


def test_an_unfinished_folder(tmp_path):
    with pytest.raises(Sorry, match="is not a folder of partitions"):
        PartitionedTable(tmp_path / "no.parts")
    save_part(tmp_path, "a", some_columns(5))
    with pytest.raises(Sorry, match="is unfinished"):
        PartitionedTable(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "par')
    with pytest.raises(Sorry, match=r"manifest\.json is damaged"):
        PartitionedTable(tmp_path)


def test_a_missing_or_shortened_partition(tmp_path):
    table = make_table(tmp_path / "a.parts")
    path = table.path(0)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(Sorry, match=r"part-0\.h5 has .* bytes instead of"):
        PartitionedTable(table.folder)
    with pytest.raises(Sorry, match=r"part-0\.h5 is damaged"):
        table.read(0)
    assert finished_part(table.folder, "part-0") is None
    path.unlink()
    with pytest.raises(Sorry, match=r"part-0\.h5 is missing"):
        PartitionedTable(table.folder)
    with pytest.raises(Sorry, match=r"part-0\.h5 is damaged or cannot be read"):
        table.read(0)
    assert finished_part(table.folder, "part-0") is None


def test_damage_of_the_data_is_noticed(tmp_path):
    table = make_table(tmp_path / "a.parts")
    content = table.path(0).read_bytes()
    before = table.read(0)
    unnoticed = 0
    for position in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        table.path(0).write_bytes(damaged)
        try:
            read = table.read(0)
        except Sorry:
            continue
        unnoticed += 1  # in the gaps of the file
        assert all((read[name] == before[name]).all() for name in before)
    assert unnoticed < 0.25 * len(content) / 41


def test_a_full_disk(tmp_path):
    save_part(tmp_path, "a", some_columns(5))
    old = read_part(tmp_path / "a.h5")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(Sorry, match=r"Cannot write .*a\.h5: .*Make room"):
            save_part(tmp_path, "a", some_columns(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (read_part(tmp_path / "a.h5")["counts"] == old["counts"]).all()
