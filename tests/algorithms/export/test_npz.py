from __future__ import annotations

import numpy as np
from map_data import CELLS, random_map

from dials_diffuse.algorithms.export.npz import export_npz


def test_numpy_reads_everything(tmp_path):
    made = random_map("P 65", ndiv=(3, 3, 2))
    export_npz(made, tmp_path / "m.other")  # the name as it is
    with np.load(tmp_path / "m.other") as read:
        for name, values in made.fields.items():
            np.testing.assert_array_equal(read[name], values)
            assert read[name].dtype == values.dtype
        for name in "hkl":
            np.testing.assert_array_equal(read[name], getattr(made, name))
        np.testing.assert_array_equal(read["unit_cell"], CELLS["P 65"])
        assert read["ndiv"].tolist() == [3, 3, 2]
        assert str(read["space_group"]) == "P 65" and str(read["units"]) == "photons/(s*sr)"
        place = np.searchsorted(read["h"], 1 - 1e-9), np.searchsorted(read["k"], 0), np.searchsorted(read["l"], -0.5)
        assert np.array_equal(read["intensity"][place], made.at(np.array([[3, 0, -1]]))[0], equal_nan=True)
