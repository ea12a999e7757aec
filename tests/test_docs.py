"""The Python in the documents runs as it stands, on the real images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_blocks(document: str, names: dict) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, document, "exec"), names)


def test_readme_and_tutorial(snase):
    names: dict = {}
    for document in ("README.md", "docs/tutorial.md"):
        run_blocks(document, names)
    assert names["intensity"].shape == names["merged"].intensity.shape
    assert {path.name for path in snase.glob("*.png")} == {"snase_hk0.png", "snase_h0l.png"}


def test_scripting(snase):
    names: dict = {}
    run_blocks("docs/scripting.md", names)
    q = (names["edges"][1:] + names["edges"][:-1]) / 2
    profile = names["profile"]
    assert 2.5 < 1 / q[np.argmax(profile * (q > 0.2))] < 4  # the ring of water
    merged, grid = names["merged"], names["merged"].grid
    shell = np.digitize(grid.q(merged.index), names["edges"]) - 1
    shells = [shell == i for i in range(15, 30)]
    means = [np.average(merged.intensity[chosen], weights=merged.pixels[chosen]) for chosen in shells]
    assert means == pytest.approx(profile[15:30], rel=0.05)  # two frames of ten, and voxels for pixels
    assert np.isfinite(names["smooth"].at(names["voxels"])).all()
    assert len(names["first_frames"].index) < len(merged.index)
    assert names["again"].grid == grid and (snase / "again.nxs").exists()
