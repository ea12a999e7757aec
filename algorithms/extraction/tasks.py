"""The division of extraction into pieces of work, each of which makes one partition of observations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from dxtbx.model import Experiment

from dials_diffuse.grid import GlobalGrid
from dials_diffuse.partitioned_table import GOOD_SIZE
from dials_diffuse.stills import is_still

#: Pieces of work that there are at least, if there are as many batches: they keep many processes at work.
PIECES = 128


class Batch(NamedTuple):
    """Frames that are summed: ``start`` to ``stop``, counted from 0, the end excluded."""

    experiment: int
    batch: int
    start: int
    stop: int


def batches(experiment: Experiment, width: float) -> list[tuple[int, int]]:
    """Divide the frames of an experiment into batches of at most about ``width`` degrees, as even as can be.

    Returns
    -------
    list of (int, int)
        First frame and last frame + 1 of each batch, frames counted from 0.
    """
    frames = len(experiment.imageset)
    if is_still(experiment):
        return [(i, i + 1) for i in range(frames)]
    size = max(1, int(width / abs(experiment.scan.get_oscillation()[1]) + 0.5))
    edges = np.linspace(0, frames, -(-frames // size) + 1).round().astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist()))


def pieces_of_work(experiments: dict[int, Experiment], grid: GlobalGrid, width: float) -> list[list[Batch]]:
    """Runs of batches, of one sweep or of stills, that make partitions of a good size.

    They depend on the data alone, not on the number of processes, so that an interrupted extraction finds its
    partitions again.

    Parameters
    ----------
    experiments : dict of int to Experiment
        By their numbers.
    grid : GlobalGrid
    width : float
        Of a batch in degrees.
    """
    expected = {
        Batch(number, i, *frames): expected_observations(experiment, grid, frames[1] - frames[0])
        for number, experiment in experiments.items()
        for i, frames in enumerate(batches(experiment, width))
    }
    good_size = min(GOOD_SIZE, sum(expected.values()) / PIECES)
    pieces: list[list[Batch]] = []
    size = 0.0
    for batch, rows in expected.items():
        joins = bool(pieces) and (
            pieces[-1][-1].experiment == batch.experiment
            or (is_still(experiments[batch.experiment]) and is_still(experiments[pieces[-1][-1].experiment]))
        )
        if joins and size + rows <= good_size:
            pieces[-1].append(batch)
            size += rows
        else:
            pieces.append([batch])
            size = rows
    return pieces


def expected_observations(experiment: Experiment, grid: GlobalGrid, frames: int) -> float:
    """About how many observations a batch gives; right within a factor of two if the detector reaches d_min all round.

    The Ewald sphere's part within the grid has the area pi q^2 (q = 1 / d_min). It cuts 1.5 voxels for the area of one
    side of a voxel, a plane's mean over all directions, and sweeps over about 0.4 q times its area a radian.
    """
    q, voxel = 1 / grid.d_min, 1 / grid.supercell.volume()
    area = np.pi * q**2
    turn = 0.0 if is_still(experiment) else np.radians(abs(experiment.scan.get_oscillation()[1])) * frames
    return float(1.5 * area / voxel ** (2 / 3) + 0.4 * q * area * turn / voxel)
