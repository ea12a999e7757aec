"""libtbx_refresh.py in a real libtbx build, made of this machine's cctbx and a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import libtbx.env_config
import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIGURE = """
import os, sys
import libtbx.env_config
sys.argv[0] = os.path.join(os.path.dirname(libtbx.env_config.__file__), "configure.py")
libtbx.env_config.cold_start(sys.argv)
"""


@pytest.mark.skipif(sys.base_prefix != "/usr", reason="needs a cctbx in /usr")
def test_configure_makes_dispatchers_and_plugins(tmp_path):
    pytest.importorskip("setuptools")
    module, build = tmp_path / "modules" / "dials_diffuse", tmp_path / "build"
    skipped = shutil.ignore_patterns(".*", "demo", "bench", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, module, ignore=skipped)
    build.mkdir()
    base = os.path.join(sys.base_prefix, "bin", os.path.basename(sys._base_executable))
    subprocess.run([base, "-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    if subprocess.run([python, "-c", "import setuptools, pip"], capture_output=True).returncode:
        pytest.skip("the base Python has no setuptools")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LIBTBX", "PYTHON"))}
    packages = Path(libtbx.env_config.__file__).parent.parent
    environment["PYTHONPATH"] = str(packages)
    command = [python, "-c", CONFIGURE, f"--repository={module.parent}", "--no_bin_python", "dials_diffuse"]
    for _ in range(2):  # the second finds the entry points of the first
        done = subprocess.run(command, cwd=build, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    names = {f"dials.{path.stem}" for path in (ROOT / "command_line").glob("diffuse_*.py")}
    assert names <= set(os.listdir(build / "bin"))
    shown = subprocess.run([build / "bin" / "dials.diffuse_mask", "--version"], capture_output=True, text=True)
    assert shown.stdout.startswith("dials_diffuse"), shown.stderr
    (tmp_path / "show.py").write_text(
        "from importlib.metadata import entry_points\n"
        "import dials.algorithms.scaling.model.model\n"
        "import dials_diffuse\n"
        "print(dials_diffuse.__file__)\n"
        "print('diffuse' in entry_points(group='dxtbx.scaling_model_ext').names)\n"
    )
    run = [build / "bin" / "libtbx.python", tmp_path / "show.py"]
    shown = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout.split() == [str(module / "dials_diffuse" / "__init__.py"), "True"], shown.stderr
