"""Sweeps in files, for processes that do not share memory with the one that made their masks."""

from __future__ import annotations

import os
import pickle
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from dials.util import Sorry

from dials_diffuse.algorithms.extraction.sweep import Sweep
from dials_diffuse.algorithms.masking.masks import ExperimentMasks
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.rays import detector_rays


def save_sweeps(masks: Sequence[ExperimentMasks], grid: GlobalGrid, work: Path) -> str:
    """Save what extraction needs of every experiment.

    Pixel masks that experiments have in common are saved once.

    Parameters
    ----------
    masks : sequence of ExperimentMasks
    grid : GlobalGrid
    work : Path
        The work folder, which all processes see.

    Returns
    -------
    str
        The folder in it that holds them, of a new name: processes remember what they have loaded.

    Raises
    ------
    Sorry
        If it cannot be written.
    """
    folder = work / f"sweeps-{uuid.uuid4().hex}"
    numbers: dict[int, int] = {}
    try:
        for old in work.glob("sweeps-*"):
            shutil.rmtree(old)
        folder.mkdir()
        for number, mask in enumerate(masks):
            pixels = numbers.setdefault(id(mask.pixels), number)
            if pixels == number:
                (folder / f"pixels-{number}.pickle").write_bytes(pickle.dumps(mask.pixels))
            content = pickle.dumps((pixels, replace(mask, pixels=()), grid))
            (folder / f"sweep-{number}.pickle").write_bytes(content)
    except OSError as error:
        raise Sorry(
            f"Cannot write to {folder}: {error.strerror or error}. Make room or choose another place."
        ) from error
    return os.fspath(folder)


@lru_cache(maxsize=1)
def load_sweep(folder: str, number: int) -> Sweep:
    """A sweep that :func:`save_sweeps` saved; the last one is kept."""
    pixels, masks, grid = pickle.loads((Path(folder) / f"sweep-{number}.pickle").read_bytes())
    masks.pixels = _load_pixels(folder, pixels)
    return Sweep(number, masks, detector_rays(masks.experiment.detector), grid)


@lru_cache(maxsize=1)
def _load_pixels(folder: str, number: int):
    return pickle.loads((Path(folder) / f"pixels-{number}.pickle").read_bytes())
