from __future__ import annotations

import resource

import pytest
from dials.util import Sorry

from dials_diffuse.output import whole_files


def test_both_files_or_none(tmp_path):
    old = tmp_path / "a.expt"
    old.write_text("old")
    with pytest.raises(ValueError), whole_files(old, tmp_path / "a.refl") as (expt, refl):
        expt.write_text("new")
        refl.write_text("new")
        raise ValueError
    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.expt"]
    with whole_files(old, tmp_path / "a.refl") as (expt, refl):
        expt.write_text("new")
        refl.write_text("new")
    assert old.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.expt", "a.refl"]


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(Sorry, match="Cannot write .*big.refl"), whole_files(tmp_path / "big.refl") as (part,):
            part.write_bytes(b"0" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_no_such_folder(tmp_path):
    with pytest.raises(Sorry, match="Cannot write"), whole_files(tmp_path / "nowhere" / "x.refl") as (part,):
        part.write_text("")
