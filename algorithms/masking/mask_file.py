"""Pixel-mask files as everywhere in DIALS: a pickled tuple of flex.bool, one a panel, True where a pixel is good."""

from __future__ import annotations

import os
import pickle

import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import Detector

PixelMask = tuple[np.ndarray, ...]


class _MaskUnpickler(pickle.Unpickler):
    """Makes flex.bool and flex.grid and nothing else: unpickling somebody's file must not run code."""

    ALLOWED = {
        ("scitbx_array_family_flex_ext", "bool"),
        ("scitbx_array_family_flex_ext", "grid"),
        ("scitbx.array_family.flex", "bool"),
        ("scitbx.array_family.flex", "grid"),
    }

    def find_class(self, module: str, name: str):
        if (module, name) in self.ALLOWED:
            return getattr(flex, name)
        raise pickle.UnpicklingError(f"a pixel mask holds no {module}.{name}")


def read_mask(filename: str | os.PathLike, detector: Detector) -> PixelMask:
    """Read a pixel mask.

    Parameters
    ----------
    filename : path
    detector : dxtbx.model.Detector
        The mask must have its panels.

    Returns
    -------
    tuple of ndarray, shape (slow, fast), bool
        One a panel, True where a pixel is good.

    Raises
    ------
    Sorry
        If it cannot be read, holds anything but a tuple of flex.bool, or belongs to another detector.
    """
    cure = "Give a mask as dials.diffuse_mask or dials.generate_mask write it."
    try:
        with open(filename, "rb") as handle:
            panels = _MaskUnpickler(handle).load()
    except OSError as error:
        raise Sorry(f"Cannot read the mask {filename}: {error.strerror}.") from error
    except Exception as error:  # whatever bytes that are no pickle provoke
        raise Sorry(f"{filename} is not a pixel mask ({error}). {cure}") from error
    if isinstance(panels, flex.bool):
        panels = (panels,)
    if not isinstance(panels, (tuple, list)) or not all(isinstance(panel, flex.bool) for panel in panels):
        raise Sorry(f"{filename} is not a pixel mask (a tuple of flex.bool). {cure}")
    shapes = [tuple(panel.focus()) for panel in panels]
    expected = [tuple(reversed(panel.get_image_size())) for panel in detector]
    if shapes != expected:
        raise Sorry(
            f"{filename} is the mask of another detector: it has {_describe(shapes)}, these images have "
            f"{_describe(expected)}. {cure}"
        )
    return tuple(flumpy.to_numpy(panel) for panel in panels)


def write_mask(mask: PixelMask, filename: str | os.PathLike) -> None:
    """Write a pixel mask so that every DIALS program reads it."""
    with open(filename, "wb") as handle:
        pickle.dump(as_flex(mask), handle)


def as_flex(mask: PixelMask) -> tuple[flex.bool, ...]:
    """A pixel mask as DIALS has it."""
    return tuple(flumpy.from_numpy(np.ascontiguousarray(panel)) for panel in mask)


def _describe(shapes: list[tuple[int, ...]]) -> str:
    first = " x ".join(str(n) for n in reversed(shapes[0])) if shapes else "no"
    return f"{len(shapes)} panel{'s' * (len(shapes) != 1)} of {first} pixels"
