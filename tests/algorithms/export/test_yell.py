"""Yell's HDF5, read with h5py as Yell's DensityViewer and meerkat's users read it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.cut import cut
from dials_diffuse.algorithms.export.yell import export_yell


def test_fields_and_types_are_yells(tmp_path):
    made = random_map("P 1", ndiv=(3, 2, 4))
    export_yell(made, tmp_path / "m.h5", "intensity", np.nan)
    with h5py.File(tmp_path / "m.h5") as handle:
        assert set(handle) == {"format", "data", "lower_limits", "step_sizes", "unit_cell", "is_direct"}
        format = h5py.check_string_dtype(handle["format"].dtype)
        assert format.length is None and format.encoding == "ascii"  # what Yell's C++ asks for
        assert handle["format"].asstr()[()] == "Yell 1.0" and handle["format"].shape == ()
        assert handle["is_direct"][()] == False and handle["is_direct"].shape == ()  # noqa: E712
        assert handle["data"].dtype == np.float32 and handle["data"].chunks is None
        np.testing.assert_array_equal(handle["unit_cell"], CELLS["P 1"])
        np.testing.assert_array_equal(handle["data"], made.intensity)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(CELLS)), st.integers(0, 100), st.floats(-1.4, 0), st.floats(0, 1.4))
def test_voxels_by_limits_and_steps(tmp_path_factory, symbol, seed, low, high):
    part = cut(random_map(symbol, ndiv=(3, 3, 3), d_min=8, seed=seed, share=1), (None, (low, high), (low, 1)))
    path = tmp_path_factory.mktemp("yell") / "m.h5"
    export_yell(part, path, "intensity", np.nan)
    with h5py.File(path) as handle:
        data = handle["data"][()]
        lower, step = handle["lower_limits"][()], handle["step_sizes"][()]
    places = np.argwhere(np.isfinite(data))
    hkl = lower + step * places
    found = {tuple(n): value for n, value in zip(np.rint(3 * hkl).astype(int).tolist(), data[tuple(places.T)])}
    assert found == voxels(part)
    np.testing.assert_allclose(3 * hkl, np.rint(3 * hkl), atol=1e-9)


@pytest.mark.parametrize("field", ["observations", "half_1_errors"])
def test_other_fields_and_other_numbers_for_what_was_not_measured(tmp_path, field):
    made = random_map("P 1")
    export_yell(made, tmp_path / "m.h5", field, -5)
    with h5py.File(tmp_path / "m.h5") as handle:
        expected = made.fields[field] if field == "observations" else np.nan_to_num(made.fields[field], nan=-5)
        np.testing.assert_array_equal(handle["data"], expected)
