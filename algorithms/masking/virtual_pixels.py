"""Pixels between the readout chips of hybrid pixel modules.

The pixels at the edge of a chip are larger than the others; the detector's firmware shares their counts out among
"virtual" pixels of the normal size. The shares are right on average, but neighbouring values are correlated and their
noise is not Poisson's, so they are masked.

Sources: Dectris, PILATUS and EIGER user manuals, "Modules and chips"; Kraft et al. (2009) J. Synchrotron
Rad. 16, 368-375.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dxtbx.model import Panel


@dataclass(frozen=True)
class Module:
    """One kind of module and how modules tile a panel; lengths in pixels as (fast, slow)."""

    pixel_size: float  # mm
    size: tuple[int, int]
    gap: tuple[int, int]
    chip: tuple[int, int]  # pixels of normal readout a chip
    seam: tuple[int, int]  # virtual pixels between two chips
    affected: int  # pixels on each side of a seam that share counts with it


MODULES = (
    Module(0.172, (487, 195), (7, 17), (60, 97), (1, 1), 1),  # Pilatus 1, 2, 3
    Module(0.075, (1030, 514), (10, 37), (256, 256), (2, 2), 1),  # Eiger 1
)


def virtual_pixel_mask(panel: Panel) -> np.ndarray:
    """Mask of the pixels that share their counts, if the panel is made of modules that are known.

    Returns
    -------
    ndarray, shape (slow, fast), bool
        True where a pixel is good; all True for an unknown panel.
    """
    size = panel.get_image_size()
    good = np.ones((size[1], size[0]), dtype=bool)
    for module in MODULES:
        if np.allclose(panel.get_pixel_size(), module.pixel_size, atol=1e-4) and all(
            (size[i] + module.gap[i]) % (module.size[i] + module.gap[i]) == 0 for i in (0, 1)
        ):
            good[:, _seams(module, 0, size[0])] = False
            good[_seams(module, 1, size[1]), :] = False
    return good


def _seams(module: Module, axis: int, length: int) -> np.ndarray:
    """Which of ``length`` pixels along an axis are in or beside a seam; bool."""
    chip, seam = module.chip[axis], module.seam[axis]
    position = np.arange(length) % (module.size[axis] + module.gap[axis])
    within = position % (chip + seam)
    beside = (within >= chip - module.affected) | (within < module.affected)
    inner = (position >= module.affected) & (position < module.size[axis] - module.affected)
    return beside & inner
