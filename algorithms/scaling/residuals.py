"""Where and when observations deviate from the refined model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.error_model import scatter
from dials_diffuse.algorithms.scaling.expectation import RadialPrior, merge_with_prior, radial_prior
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.panel_tiles import PanelTiles
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions, total
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.stills import is_still

#: Tiles along the longest edge of a detector; bins of rotation of a sweep; bins of |q|.
TILES, ROTATIONS, SHELLS = 32, 40, 40
#: Observations that are worked on at once.
CHUNK = 50_000


def residual_report(partitions: VoxelPartitions, grid: GlobalGrid, experiments: ExperimentList) -> dict:
    """Mean residuals in units of their standard deviation, and reduced chi-squared, over places, rotation and |q|.

    Parameters
    ----------
    partitions : VoxelPartitions
        Looked at as scaled, and the voxels that were observed more than once.
    grid : GlobalGrid
    experiments : ExperimentList

    Returns
    -------
    dict
        JSON-ready: ``detector`` (``panels``: edges ``fast`` and ``slow`` of tiles in pixels, and rows of tiles),
        ``phi`` (an entry for each sweep, degrees), ``q``; each with ``mean``, ``chi_squared``, ``observations``. Empty
        if there are no observations.
    """
    bins = _Bins.of(experiments, grid)
    with np.errstate(divide="ignore", invalid="ignore"):  # there may be no observations
        prior = radial_prior(partitions, grid)
    n, deviate, squares, freedom = total(partitions.map(partial(_sums, bins, prior), "Residuals"))
    if not n.any():
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {"mean": deviate / n, "chi_squared": squares / freedom, "observations": n}
    tiles, rotations, shells = ({name: bins.of_kind(v, kind) for name, v in values.items()} for kind in range(3))
    panels = [
        {"panel": panel, "fast": fast.tolist(), "slow": slow.tolist()}
        | {name: _jsonable(bins.tiles.of_panel(v, panel)) for name, v in tiles.items()}
        for panel, (fast, slow) in enumerate(bins.tiles.edges)
    ]
    by_phi = []
    for number, i in enumerate(bins.sweeps.tolist()):
        of_sweep = {name: v[number * ROTATIONS : (number + 1) * ROTATIONS] for name, v in rotations.items()}
        if not of_sweep["observations"].any():
            continue
        start, stop = experiments[i].scan.get_oscillation_range()
        phi = start + (stop - start) * (np.arange(ROTATIONS) + 0.5) / ROTATIONS
        by_phi.append({"experiment": i, "phi": phi.tolist(), **{name: _jsonable(v) for name, v in of_sweep.items()}})
    q = (np.arange(SHELLS) + 0.5) / SHELLS / grid.d_min
    by_q = {"q": q.tolist(), **{name: _jsonable(v) for name, v in shells.items()}}
    return {"detector": {"panels": panels}, "phi": by_phi, "q": by_q}


@dataclass
class _Bins:
    """Bins of three kinds, numbered one kind after the other: tiles of the detector, rotations of the sweeps, shells.

    Attributes
    ----------
    tiles : PanelTiles
    sweeps : ndarray, shape (sweeps,), int
        The experiments that rotate.
    begin, end : ndarray, shape (sweeps,)
        Their array ranges.
    experiments : int
        Number of all.
    grid : GlobalGrid
    """

    tiles: PanelTiles
    sweeps: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    experiments: int
    grid: GlobalGrid

    @classmethod
    def of(cls, experiments: ExperimentList, grid: GlobalGrid) -> _Bins:
        sweeps = [i for i, experiment in enumerate(experiments) if not is_still(experiment)]
        ranges = np.array([experiments[i].scan.get_array_range() for i in sweeps]).reshape(-1, 2).T
        tiles = PanelTiles.of(experiments[0].detector, TILES)
        return cls(tiles, np.array(sweeps, dtype=np.int64), *ranges, len(experiments), grid)

    @property
    def first(self) -> np.ndarray:
        """Where each kind begins, and where the last one ends."""
        return np.cumsum([0, len(self.tiles) + 1, len(self.sweeps) * ROTATIONS + 1, SHELLS])

    def of_kind(self, values: np.ndarray, kind: int) -> np.ndarray:
        """Values of one kind of bins."""
        return values[self.first[kind] : self.first[kind + 1]]

    def numbers(self, observations: GroupedObservations, q: np.ndarray) -> np.ndarray:
        """Of each observation, shape (3, n); ``q`` is that of the voxels."""
        sweep = np.full(self.experiments, -1)
        sweep[self.sweeps] = np.arange(len(self.sweeps))
        sweep = sweep[observations.experiment]
        rotation = np.full(len(sweep), len(self.sweeps) * ROTATIONS)  # of stills
        chosen = sweep >= 0
        sweep = sweep[chosen]
        turn = (observations.position[chosen, 2] - self.begin[sweep]) / (self.end - self.begin)[sweep] * ROTATIONS
        rotation[chosen] = sweep * ROTATIONS + np.clip(turn.astype(np.int64), 0, ROTATIONS - 1)
        shell = np.minimum((q * self.grid.d_min * SHELLS).astype(np.int64), SHELLS - 1)
        kinds = np.stack([self.tiles.number(observations), rotation, observations.spread(shell)])
        return kinds + self.first[:3, None]


def _sums(bins: _Bins, prior: RadialPrior, partition: Partition, observations: GroupedObservations) -> np.ndarray:
    """Sums in the bins of 1, deviates, their squares, and degrees of freedom; shape (4, bins)."""
    sums = np.zeros((4, bins.first[-1]))
    for _, _, part in observations.parts(CHUNK):
        q = bins.grid.q(part.voxels)
        numbers = bins.numbers(part, q).ravel()
        for found in scatter(part, q, merge_with_prior(part, q, prior)):
            deviate = found.residual / np.sqrt(found.variance)
            values = (np.ones(len(deviate)), deviate, found.chi_squared, found.degrees_of_freedom)
            for row, value in zip(sums, values):
                row += np.bincount(numbers, np.tile(value, 3), bins.first[-1])
    return sums


def _jsonable(values: np.ndarray) -> list:
    """Lists with None for what is no number, rounded."""
    rounded = np.round(values.astype(float), 5).astype(object)
    rounded[~np.isfinite(values.astype(float))] = None
    return rounded.tolist()
