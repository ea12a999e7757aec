from __future__ import annotations

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy

from dials_diffuse.grid import miller_index_from_numpy
from dials_diffuse.partitioned_table import PartitionedTable, save_part, write_manifest
from dials_diffuse.table_file import write_refl, write_table


def columns_of(rng, n):
    return {
        "id": np.zeros(n, dtype=np.int32),
        "panel": rng.integers(0, 60, n).astype(np.uint64),
        "miller_index": rng.integers(-99, 99, (n, 3)).astype(np.int32),
        "counts": rng.random(n).astype(np.float32).astype(float),
        "good": rng.random(n) > 0.5,
        "xyzobs.px.value": rng.random((n, 3)).astype(np.float32).astype(float),
    }


def test_file_is_byte_for_byte_what_dials_writes(tmp_path):
    rng = np.random.default_rng(1)
    made = [columns_of(rng, n) for n in (5, 0, 300)]
    write_manifest(tmp_path, [save_part(tmp_path, str(i), part) for i, part in enumerate(made)], {0: "abc"}, {})
    parts = PartitionedTable(tmp_path)
    write_refl(parts, tmp_path / "ours.refl")

    whole = {name: np.concatenate([columns[name] for columns in made]) for name in made[0]}
    table = flex.reflection_table()
    table["id"] = flex.int(305, 0)
    table["panel"] = flumpy.from_numpy(whole["panel"])
    table["miller_index"] = miller_index_from_numpy(whole["miller_index"])
    table["counts"] = flumpy.from_numpy(whole["counts"])
    table["good"] = flumpy.from_numpy(whole["good"])
    table["xyzobs.px.value"] = flumpy.vec_from_numpy(whole["xyzobs.px.value"])
    table.experiment_identifiers()[0] = "abc"
    table.as_file(str(tmp_path / "dials.refl"))
    write_table(table, tmp_path / "same.refl")
    parts.whole_table().as_file(str(tmp_path / "whole.refl"))
    for name in ("same.refl", "whole.refl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "dials.refl").read_bytes()
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("ours.refl", "dials.refl"))
    # byte 29 is the version of the format, which DIALS has raised since without a change for these columns
    assert (ours[:29], ours[30:]) == (theirs[:29], theirs[30:])
    read = flex.reflection_table.from_file(str(tmp_path / "ours.refl"))
    assert len(read) == 305 and read.experiment_identifiers()[0] == "abc"
