"""Packages with plug-ins, as pip would leave them, and programs that see them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXTENDING = Path(__file__).parents[2] / "docs" / "extending.md"


def documented_plugin(group: str) -> tuple[str, str]:
    """The code and the entry point that docs/extending.md prints for a group of entry points."""
    text = EXTENDING.read_text()
    entry = re.search(rf'entry-points."{group}"\]\n(.*)\n', text).group(1).replace('"', "")
    module = entry.split("=")[1].split(":")[0].strip()
    before = text[: text.index(entry.split("=")[1].strip())]
    code = re.findall(r"```python\n(.*?)```", before, re.S)[-1]
    assert f"`{module}.py`" in before
    return code, entry


def install_plugin(folder: Path, group: str, code: str, entry: str) -> Path:
    """A distribution ``<module>`` 1.0 of one module in a folder of its own."""
    module = entry.split("=")[1].split(":")[0].strip()
    folder.mkdir()
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    return folder


def run_with_plugin(folder: Path, program: str, *args: str) -> subprocess.CompletedProcess:
    """dials.diffuse_<program> in a Python of its own, with the plug-in's folder on its path."""
    command = f"from dials_diffuse.command_line.diffuse_{program} import run; run()"
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", command, *args], env=environment, capture_output=True, text=True)
