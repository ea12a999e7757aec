"""The Python in the documents runs as it stands, on the real images."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_readme_and_tutorial(snase):
    names: dict = {}
    for document in ("README.md", "docs/tutorial.md"):
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
        assert blocks
        for block in blocks:
            exec(compile(block, document, "exec"), names)
    assert names["intensity"].shape == names["merged"].intensity.shape
    assert {path.name for path in snase.glob("*.png")} == {"snase_hk0.png", "snase_h0l.png"}
