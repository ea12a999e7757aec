"""Maps of diffuse X-ray scattering from a DIALS session."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__version__ = "0.1.0"

# libtbx looks for its build under sys.prefix and does not find it from a virtual environment over a system DIALS
# (Debian, Ubuntu): point it at the base interpreter's, before anything of cctbx is imported.
if sys.prefix != sys.base_prefix and "LIBTBX_BUILD" not in os.environ:
    _build = Path(sys.base_prefix) / "lib" / "cctbx" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if _build.is_dir():
        os.environ["LIBTBX_BUILD"] = str(_build)

# In a source checkout command_line, phil_scope and algorithms stand beside this folder (see setup.py).
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.py").is_file() and (_checkout / "algorithms").is_dir():
    __path__.append(str(_checkout))
