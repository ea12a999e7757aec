from __future__ import annotations

import numpy as np
import pytest
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export import text
from dials_diffuse.algorithms.export.symmetry import asymmetric_unit
from dials_diffuse.algorithms.export.text import export_text


@pytest.mark.parametrize("symbol", CELLS)
@pytest.mark.parametrize("expand", [False, True])
def test_numpy_reads_the_same_voxels(tmp_path, monkeypatch, symbol, expand):
    monkeypatch.setattr(text, "LINES_AT_ONCE", 7)
    made = random_map(symbol, ndiv=(3, 3, 3), d_min=7)
    export_text(made, tmp_path / "m.hkl", expand)
    read = np.loadtxt(tmp_path / "m.hkl")
    index = np.rint(3 * read[:, :3]).astype(int)
    np.testing.assert_allclose(3 * read[:, :3], index, atol=1e-5)
    found = dict(zip(map(tuple, index.tolist()), read[:, 3]))
    expected = voxels(made if expand else asymmetric_unit(made))
    assert len(found) == len(read) and found == expected
    np.testing.assert_allclose(read[:, 4], made.at(index, "intensity_errors"), rtol=1e-4)


def test_header(tmp_path):
    export_text(random_map("P 65"), tmp_path / "m.hkl", True)
    lines = (tmp_path / "m.hkl").read_text().splitlines()
    assert lines[:3] == [
        "# unit cell 20.0 20.0 25.0 90.0 90.0 120.0",
        "# Laue group 6/m, all equivalent voxels",
        "# h k l intensity sigma (photons/(s*sr))",
    ]
    assert len(lines[3].split()) == 5


def test_digits(tmp_path):
    """Seven of intensities, as single precision has them; small and large ones alike."""
    made = random_map("P 1", d_min=10)
    made.fields["intensity"] *= np.float32(1.2345678e-9)
    export_text(made, tmp_path / "m.hkl", True)
    read = np.loadtxt(tmp_path / "m.hkl")
    np.testing.assert_allclose(read[:, 3], made.intensity[np.isfinite(made.intensity)], rtol=1e-6)
