"""Observations as arrays, ordered by the voxel of the asymmetric unit that they saw."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy

logger = logging.getLogger("dials.diffuse.scaling")

#: What scaling and merging need besides ``miller_index``, see docs/data_model.md.
COLUMNS = (
    "id",
    "counts",
    "response",
    "background.sum.value",
    "background.sum.variance",
    "panel",
    "xyzobs.px.value",
)

#: What merging needs besides: the scaling model applied, see docs/data_model.md.
SCALED_COLUMNS = ("inverse_scale_factor", "offset.sum.value", "flags")

NOTHING = "There are no observations with a response above 0: nothing can be scaled or merged."

#: Attributes with an entry for each observation.
ARRAYS = ("rows", "signal", "response", "noise", "experiment", "panel", "position")

#: Observations in a chunk, where work is done in chunks to bound memory.
CHUNK = 500_000


@dataclass
class GroupedObservations:
    """Observations, ordered so that those of Laue-equivalent voxels are neighbours. n observations of m voxels.

    Attributes
    ----------
    rows : ndarray, shape (n,), int
        Rows of the reflection table that the observations come from.
    signal : ndarray, shape (n,)
        N - B, photons.
    response : ndarray, shape (n,)
        g, or u = g a d b once they are :meth:`scaled`: the expected signal is u I.
    noise : ndarray, shape (n,)
        B + var(B), photons^2: the part of the variance of N - B that does not come from the signal.
    experiment : ndarray, shape (n,), int32
    panel : ndarray, shape (n,), int32
    position : ndarray, shape (n, 3), float32
        Mean x, y and frame: ``xyzobs.px.value``.
    voxels : ndarray, shape (m, 3), int32
        The voxels, in the asymmetric unit of the Laue group.
    first : ndarray, shape (m + 1,), int64
        Observations of voxel v are ``first[v]`` to ``first[v + 1] - 1``.
    error_model : ErrorModel
        Gives the variances.
    """

    rows: np.ndarray
    signal: np.ndarray
    response: np.ndarray
    noise: np.ndarray
    experiment: np.ndarray
    panel: np.ndarray
    position: np.ndarray
    voxels: np.ndarray
    first: np.ndarray
    error_model: ErrorModel = ErrorModel()

    @classmethod
    def from_dataset(cls, dataset: Dataset, wanted: np.ndarray | None = None) -> GroupedObservations:
        """Group the observations of a data set.

        Parameters
        ----------
        dataset : Dataset
            In memory.
        wanted : ndarray, shape (rows,), bool, optional
            Rows to take; all if None.

        Left out are those without response, with values that are no numbers, and of voxels beyond the grid's d_min.
        How many of the wanted ones are, the log says.

        Raises
        ------
        Sorry
            If none is left.
        """
        table = dataset.observations
        columns = {name: flumpy.to_numpy(table[name]) for name in COLUMNS}
        key = _asu_keys(dataset.grid, table["miller_index"])
        grouped, left_out = cls._grouped(columns, key, dataset.grid, wanted)
        if not len(grouped.rows):
            raise Sorry(NOTHING)
        if left_out:
            logger.info("%d observations without response or beyond the grid are left out.", left_out)
        return grouped

    @classmethod
    def from_columns(
        cls, columns: dict[str, np.ndarray], grid: GlobalGrid, wanted: np.ndarray | None = None
    ) -> GroupedObservations:
        """As :meth:`from_dataset`, from :data:`COLUMNS` and ``miller_index`` as arrays; there may be none left."""
        return cls._grouped(columns, grid.asu_keys(columns["miller_index"]), grid, wanted)[0]

    @classmethod
    def _grouped(
        cls, columns: dict[str, np.ndarray], key: np.ndarray, grid: GlobalGrid, wanted: np.ndarray | None
    ) -> tuple[GroupedObservations, int]:
        """Observations, and how many of the wanted rows are left out."""
        valid = usable(columns, key)
        chosen = valid if wanted is None else valid & wanted
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(key[rows], kind="stable")]
        first, voxels = _boundaries(key[rows])
        left_out = (len(key) if wanted is None else np.count_nonzero(wanted)) - len(rows)
        return cls.of_rows(columns, rows, grid.key2index(voxels), first), left_out

    @classmethod
    def of_rows(
        cls, columns: dict[str, np.ndarray], rows: np.ndarray, voxels: np.ndarray, first: np.ndarray
    ) -> GroupedObservations:
        """Of rows of a table's :data:`COLUMNS` that are grouped already."""
        counts, response, background, variance = (columns[name][rows].astype(float) for name in COLUMNS[1:5])
        return cls(
            rows,
            signal=counts - background,
            response=response,
            noise=np.maximum(background + variance, 0),
            experiment=columns["id"][rows].astype(np.int32),
            panel=columns["panel"][rows].astype(np.int32),
            position=columns["xyzobs.px.value"][rows].astype(np.float32),
            voxels=voxels,
            first=first,
        )

    @classmethod
    def joined(cls, parts: Sequence[GroupedObservations]) -> GroupedObservations:
        """Parts of whole voxels, one after the other, as one."""
        if len(parts) == 1:
            return parts[0]
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        multiplicity = np.concatenate([part.multiplicity for part in parts])
        return replace(
            parts[0],
            **arrays,
            voxels=np.concatenate([part.voxels for part in parts]),
            first=np.concatenate([[0], np.cumsum(multiplicity)]),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def multiplicity(self) -> np.ndarray:
        """Observations of each voxel, shape (m,), int64."""
        return np.diff(self.first)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums over the observations of each voxel: shape (n,) to shape (m,)."""
        return np.add.reduceat(values, self.first[:-1]) if len(values) else values[:0]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of voxels, shape (m,), given to each of their observations, shape (n,)."""
        return np.repeat(values, self.multiplicity)

    def scaled(self, factor: np.ndarray, offset: np.ndarray, error_model: ErrorModel) -> GroupedObservations:
        """The same with the scaling model applied: N - B - o is expected to be u I.

        Parameters
        ----------
        factor : ndarray, shape (n,)
            a d b.
        offset : ndarray, shape (n,)
            o = g a d c, the expected photons of the excess background.
        error_model : ErrorModel
        """
        return replace(
            self,
            signal=self.signal - offset,
            response=self.response * factor,
            noise=np.maximum(self.noise + offset, 0),
            error_model=error_model,
        )

    def variance(self, intensity: np.ndarray) -> np.ndarray:
        """Expected variance of the signals, shape (n,), from the intensities of the voxels, shape (m,)."""
        return self.error_model.variance(self.response * self.spread(intensity), self.noise)

    def select(self, chosen: np.ndarray) -> GroupedObservations:
        """Those for which ``chosen``, shape (n,), bool, is true; voxels without any are left out."""
        n = self.sum(chosen.astype(np.int64))
        first = np.concatenate([[0], np.cumsum(n[n > 0])])
        return replace(
            self, **{name: getattr(self, name)[chosen] for name in ARRAYS}, voxels=self.voxels[n > 0], first=first
        )

    def repeated(self) -> GroupedObservations:
        """The voxels that were observed more than once."""
        return self.select(self.spread(self.multiplicity > 1))

    def chunks(self, n_observations: int = CHUNK, n_voxels: int = CHUNK) -> Iterator[tuple[slice, slice]]:
        """Slices of voxels and of their observations: about so many observations each, and not more voxels."""
        edges = np.searchsorted(self.first, np.arange(0, self.first[-1], n_observations))
        edges = np.unique(np.append(edges, len(self.voxels)))
        for begin, end in zip(edges[:-1], edges[1:]):
            for low in range(begin, end, n_voxels):
                high = min(low + n_voxels, end)
                yield slice(low, high), slice(self.first[low], self.first[high])

    def parts(self, n_observations: int = CHUNK) -> Iterator[tuple[slice, slice, GroupedObservations]]:
        """As :meth:`chunks`, each with its observations alone, as views."""
        for voxels, chosen in self.chunks(n_observations):
            arrays = {name: getattr(self, name)[chosen] for name in ARRAYS}
            first = self.first[voxels.start : voxels.stop + 1] - chosen.start
            yield voxels, chosen, replace(self, **arrays, voxels=self.voxels[voxels], first=first)


def scaled_observations(dataset: Dataset) -> GroupedObservations:
    """The observations of a scaled data set, without those that scaling rejected, with its error model.

    Raises
    ------
    Sorry
        If none is left.
    """
    table = dataset.observations
    rejected = flumpy.to_numpy(table.get_flags(table.flags.bad_for_scaling, all=False))
    if rejected.any():
        logger.info("%d observations that scaling rejected are left out.", rejected.sum())
    observations = GroupedObservations.from_dataset(dataset, ~rejected)
    factor, offset = (flumpy.to_numpy(table[column])[observations.rows] for column in SCALED_COLUMNS[:2])
    return observations.scaled(factor, offset, error_model_of(dataset.experiments))


def error_model_of(experiments: ExperimentList) -> ErrorModel:
    """That of scaled experiments, which have one in common."""
    model = experiments[0].scaling_model
    return ErrorModel(*(model.configdict.get("error_model_parameters", ()) if model is not None else ()))


def usable(columns: dict[str, np.ndarray], key: np.ndarray) -> np.ndarray:
    """Rows with a response, with values that are numbers, and of voxels within the grid (``key`` not below 0); bool."""
    counts, response, background, variance = (columns[name] for name in COLUMNS[1:5])
    with np.errstate(invalid="ignore"):
        return (response > 0) & np.isfinite(response * counts * background * variance) & (key >= 0)


def _asu_keys(grid: GlobalGrid, indices: flex.miller_index) -> np.ndarray:
    """Keys (see GlobalGrid.asu_keys) of voxels, in chunks: temporaries are of several times their size."""
    keys = np.empty(len(indices), dtype=np.int64)
    for begin in range(0, len(indices), CHUNK):
        keys[begin : begin + CHUNK] = grid.asu_keys(miller_index_to_numpy(indices[begin : begin + CHUNK]))
    return keys


def _boundaries(sorted_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal keys begin (with the end of the last), and their keys."""
    begin = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])[: len(sorted_keys)])
    return np.append(begin, len(sorted_keys)), sorted_keys[begin]
