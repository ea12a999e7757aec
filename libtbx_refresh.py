"""What ``libtbx.configure dials_diffuse`` and ``libtbx.refresh`` do for this module in a libtbx build.

An editable install, by which DIALS finds the plug-ins, and the dispatchers ``dials.diffuse_*``. libtbx runs the text of
this file among its own globals, hence the names; ``self`` is the module being configured. The conventions are those of
libtbx/env_config.py and of the files of this name in dials and dxtbx.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


def _diffuse_can_write(folder: str) -> bool:
    """Whether files can be made in a folder; permissions alone do not tell on network file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _diffuse_install(root: Path, lib: Path) -> None:
    """Make the entry points known: an editable install, or metadata in the build where the base is read-only.

    Every dispatcher has the build's ``lib`` and ``root`` on its PYTHONPATH: metadata are all that is needed there.
    """
    if _diffuse_can_write(sysconfig.get_path("purelib")):
        command = ["-m", "pip", "install", "--no-build-isolation", "--no-deps", "--editable", str(root)]
    else:
        command = ["setup.py", "--quiet", "egg_info", "--egg-base", str(lib)]
    subprocess.run([sys.executable, *command], cwd=root, check=True)


def _diffuse_dispatchers(root: Path) -> dict[str, Path]:
    """The file that each dispatcher starts, by the dispatcher's name.

    The installed script where there is one: older versions of libtbx write a dispatcher for it themselves (the entry
    points ``libtbx.dispatcher.script``) and stop if another file had the same one before. (Hence the programs do not
    set their dispatchers' names by comments either.)
    """
    scripts = Path(sysconfig.get_path("scripts"))
    programs = {f"dials.{path.stem}": path for path in sorted((root / "command_line").glob("diffuse_*.py"))}
    return {name: scripts / name if (scripts / name).is_file() else path for name, path in programs.items()}


def _diffuse_refresh(env, root: Path) -> None:
    _diffuse_install(root, Path(env.under_build("lib")))
    for name, source in _diffuse_dispatchers(root).items():
        env.write_dispatcher_in_bin(source_file=str(source), target_file=name)
    missing = [
        name
        for name in ("h5py", "jinja2", "numba", "plotly", "scipy", "tqdm")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        print(f"dials_diffuse needs {', '.join(missing)} in this Python: install them with conda.")


if "self" in globals():
    _diffuse_refresh(self.env, Path(self.env.dist_path("dials_diffuse")))  # noqa: F821
