"""Merged voxels of two runs that should not differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dials.array_family import flex


def assert_same_map(folder: Path, other: Path) -> None:
    """In two folders' merged.refl, the same voxels with the same numbers: within 1e-6 of their errors."""
    one, two = (flex.reflection_table.from_file(str(path / "merged.refl")) for path in (folder, other))
    assert list(one["miller_index"]) == list(two["miller_index"])
    assert list(one["multiplicity"]) == list(two["multiplicity"])
    error = np.sqrt(np.array(one["intensity.scale.variance"]))
    for name in ("intensity.scale.value", "half_1.value", "half_2.value"):
        deviation = (np.array(one[name]) - np.array(two[name])) / error
        np.testing.assert_array_less(np.abs(deviation[np.isfinite(deviation)]), 1e-6)
        assert (np.isnan(np.array(one[name])) == np.isnan(np.array(two[name]))).all()
    np.testing.assert_allclose(np.sqrt(np.array(two["intensity.scale.variance"])), error, rtol=1e-6)
