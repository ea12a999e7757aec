"""Packaging of dials_diffuse.

``command_line``, ``phil_scope`` and ``algorithms`` stand at the top of the repository because libtbx looks for
dispatchers in ``<module>/command_line``; here they are mapped into the one package ``dials_diffuse``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
FOLDERS = ("command_line", "phil_scope", "algorithms")

programs = sorted(path.stem for path in (ROOT / "command_line").glob("diffuse_*.py"))

packages = ["dials_diffuse"]
for folder in FOLDERS:
    packages.append(f"dials_diffuse.{folder}")
    packages += [f"dials_diffuse.{folder}.{package}" for package in find_packages(str(ROOT / folder))]

# dials, dxtbx, h5py: README.md, "Installation", says why they are not listed here. Debian's xraylib has no metadata, so
# DIALS 3.12, which looks for all requirements when it loads our plug-in, would not find it; pip's has.
dependencies = ["jinja2", "mrcfile", "numba>=0.56", "numpy", "plotly", "scipy", "tqdm"]
if find_spec("xraylib") is None:
    dependencies.append("xraylib")

setup(
    install_requires=dependencies,
    packages=packages,
    package_data={"dials_diffuse": ["templates/*.html"]},
    package_dir={"dials_diffuse": "dials_diffuse", **{f"dials_diffuse.{folder}": folder for folder in FOLDERS}},
    entry_points={
        "console_scripts": [f"dials.{name} = dials_diffuse.command_line.{name}:run" for name in programs],
        "libtbx.dispatcher.script": [f"dials.{name} = dials.{name}" for name in programs],
        "dxtbx.scaling_model_ext": ["diffuse = dials_diffuse.algorithms.scaling.model:DiffuseScalingModel"],
    },
)
