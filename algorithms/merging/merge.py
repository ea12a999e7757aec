"""From scaled observations to the map.

Observations are looked at by partitions of whole voxels (scaling/partitions.py), a few times: for what is known of all
voxels together (scaling/expectation.py), then to merge the voxels of each, to divide them into half sets and to see how
they scatter. What comes back of a partition is a record a voxel (:func:`voxel_record`, 88 to 100 bytes) and sums over
the voxels of each shell. So memory is that of some partitions, of about 250 bytes for every merged voxel while
statistics are made, and of one slab of the map (map_file.py); observations on disk add nothing to it, but for the
sample that the symmetry is tested on (symmetry.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.merging.groups import check_kind, group_of_observations, possible_kinds
from dials_diffuse.algorithms.merging.halves import half_sets, sweeps_in_first_half
from dials_diffuse.algorithms.merging.scaled import column_of, scaled_partitions
from dials_diffuse.algorithms.merging.scatter import scatter
from dials_diffuse.algorithms.merging.statistics import MergingStatistics, Regions, merging_statistics
from dials_diffuse.algorithms.merging.symmetry import SymmetryTest, test_symmetry
from dials_diffuse.algorithms.scaling import observations as scaling_observations
from dials_diffuse.algorithms.scaling.expectation import RadialPrior, merge_part, merge_with_prior, radial_prior
from dials_diffuse.algorithms.scaling.observations import NOTHING, GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy

logger = logging.getLogger("dials.diffuse.merging")

#: What the observations must have, see docs/data_model.md.
COLUMNS = (*scaling_observations.COLUMNS, *scaling_observations.SCALED_COLUMNS, "num_pixels.valid")

#: Observations of a partition that are worked on at a time: what fits into a processor's cache.
AT_A_TIME = 60_000

#: What is put with a partition.
MERGED = "merged"


@dataclass
class MergedMap:
    """Merged voxels of the asymmetric unit; every array has one entry for each of the m voxels.

    Attributes
    ----------
    grid : GlobalGrid
        With ``friedel_apart`` if the mates were not merged.
    index : ndarray, shape (m, 3), int32
    intensity, variance : ndarray
        Photons / (s sr), and squared.
    multiplicity, pixels : ndarray, int64
        Observations and pixel measurements merged.
    half_1, half_1_variance, half_2, half_2_variance : ndarray
        The same from two half sets of the observations; NaN where a half is empty.
    statistics : MergingStatistics
    wavelengths : ndarray
        The different wavelengths of the experiments, Angstrom.
    symmetry : SymmetryTest or None
        Which Laue group the data support.
    """

    grid: GlobalGrid
    index: np.ndarray
    intensity: np.ndarray
    variance: np.ndarray
    multiplicity: np.ndarray
    pixels: np.ndarray
    half_1: np.ndarray
    half_1_variance: np.ndarray
    half_2: np.ndarray
    half_2_variance: np.ndarray
    statistics: MergingStatistics
    wavelengths: np.ndarray
    symmetry: SymmetryTest | None

    def report(self) -> dict:
        """The statistics, and the symmetry test, JSON-ready."""
        return {**self.statistics.to_dict(), "symmetry": self.symmetry.to_dict() if self.symmetry else None}

    def as_reflections(self) -> flex.reflection_table:
        """As a table with the columns of docs/data_model.md."""
        table = flex.reflection_table()
        table["miller_index"] = miller_index_from_numpy(self.index)
        with np.errstate(divide="ignore"):
            table["d"] = flex.double(1 / self.grid.q(self.index))
        table["intensity.scale.value"] = flex.double(self.intensity)
        table["intensity.scale.variance"] = flex.double(self.variance)
        table["multiplicity"] = flex.int(self.multiplicity.astype(np.int32))
        table["num_pixels.valid"] = flex.int(self.pixels.astype(np.int32))
        for half in ("half_1", "half_2"):
            table[f"{half}.value"] = flex.double(getattr(self, half))
            table[f"{half}.variance"] = flex.double(getattr(self, f"{half}_variance"))
        return table

    def map_columns(self) -> dict[str, np.ndarray]:
        """What the map file holds of each voxel, by the names of :func:`dials_diffuse.map_file.write_map`."""
        return {
            "intensity": self.intensity,
            "intensity_errors": np.sqrt(self.variance),
            "observations": self.multiplicity,
            "pixels": self.pixels,
            "half_1": self.half_1,
            "half_1_errors": np.sqrt(self.half_1_variance),
            "half_2": self.half_2,
            "half_2_errors": np.sqrt(self.half_2_variance),
        }


#: Reduced chi-squared between equivalent voxels from which there is a warning.
MUCH = 1.5


def merge(dataset: Dataset, params: libtbx.phil.scope_extract) -> MergedMap:
    """Merge scaled observations over the Laue group, or the point group.

    Parameters
    ----------
    dataset : Dataset
        With the columns :data:`COLUMNS`.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.command_line.diffuse_merge.phil_scope`. Temporary files are beside ``output.map``.

    Returns
    -------
    MergedMap

    Raises
    ------
    Sorry
        If there are no observations, or they can not be divided into the half sets that were asked for.
    """
    grid = replace(dataset.grid, friedel_apart=params.merging.friedel == "apart")
    dataset = replace(dataset, grid=grid)
    with scaled_partitions(dataset, params.mp, Path(params.output.map).parent) as partitions:
        return _merge(partitions, grid, dataset.experiments, params.merging)


def _merge(
    partitions: VoxelPartitions, grid: GlobalGrid, experiments: ExperimentList, options: libtbx.phil.scope_extract
) -> MergedMap:
    response = sum(partitions.map(partial(_response_of_sweeps, len(experiments)), "Sweeps"))
    n_sweeps = np.count_nonzero(response)
    if not n_sweeps:
        raise Sorry(NOTHING)
    check_kind(options.halves, grid, n_sweeps)
    merging = _Merging(
        Regions(grid, options.n_shells, options.halo_radius),
        radial_prior(partitions, grid),
        tuple(possible_kinds(grid, n_sweeps)),
        options.halves,
        sweeps_in_first_half(response, options.seed),
        options.seed,
    )
    numbers, agreements = zip(*partitions.map(merging, "Merging"))
    voxels = _gathered(partitions, grid, sum(numbers), voxel_record(merging.kinds))
    statistics = merging_statistics(
        merging.regions,
        voxels["index"],
        (voxels["intensity"], voxels["variance"], voxels["multiplicity"]),
        merging.prior.mean_at(grid.q(voxels["index"])),
        {kind: voxels.pop(f"variance_{kind}") for kind in merging.kinds},
        dict(zip(merging.kinds, sum(agreements))),
        options.halves,
    )
    n = voxels["multiplicity"].sum()
    logger.info("Merged %d observations into %d voxels (%s)\n\n%s", n, sum(numbers), grid, statistics)
    _warn_of_mates(statistics)
    tested = test_symmetry(partitions, grid, experiments) if options.test_symmetry else None
    wavelengths = np.unique([round(experiment.beam.get_wavelength(), 9) for experiment in experiments])
    return MergedMap(grid=grid, **voxels, statistics=statistics, wavelengths=wavelengths, symmetry=tested)


def _response_of_sweeps(n: int, partition: Partition, observations: GroupedObservations) -> np.ndarray:
    """Total response of each experiment, shape (n,)."""
    return np.bincount(observations.experiment, observations.response, n)


def voxel_record(kinds: tuple[str, ...]) -> np.dtype:
    """What is kept of a voxel: attributes of :class:`MergedMap`, and the variances by kinds of groups.

    Those are for statistics alone, and rough: single precision is enough.
    """
    names = ("intensity", "variance", "half_1", "half_1_variance", "half_2", "half_2_variance")
    return np.dtype(
        [("index", "i4", 3), ("multiplicity", "i8"), ("pixels", "i8")]
        + [(name, "f8") for name in names]
        + [(f"variance_{kind}", "f4") for kind in kinds]
    )


@dataclass(frozen=True)
class _Merging:
    """Merges partitions.

    Attributes
    ----------
    regions : Regions
    prior : RadialPrior
    kinds : tuple of str
        Of groups.
    halves : str
        The kind that half sets are of.
    sweeps : ndarray, shape (experiments,), bool
        Those in the first half set, if whole sweeps are divided.
    seed : int
    """

    regions: Regions
    prior: RadialPrior
    kinds: tuple[str, ...]
    halves: str
    sweeps: np.ndarray
    seed: int

    def __call__(self, partition: Partition, observations: GroupedObservations) -> tuple[int, np.ndarray]:
        """Put records of the voxels with the partition.

        Returns
        -------
        int
            Number of voxels.
        ndarray, shape (kinds, 5, n_shells, 2)
            By kind, what :meth:`Regions.sums` gives of them.
        """
        found = np.zeros(len(observations.voxels), voxel_record(self.kinds))
        agreements = np.zeros((len(self.kinds), *self.regions.sums_shape))
        own, pixels = (column_of(partition, name) for name in ("miller_index", "num_pixels.valid"))
        for voxels, rows, part in observations.parts(AT_A_TIME):
            agreements += self._part(part, own[rows], pixels[rows], found[voxels])
        partition.put(MERGED, found)
        return len(found), agreements

    def _part(self, part: GroupedObservations, own: np.ndarray, pixels: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Fill in records; the sums of these voxels."""
        grid = self.regions.grid
        q = grid.q(part.voxels)
        whole = merge_with_prior(part, q, self.prior)
        found["index"], found["multiplicity"] = part.voxels, part.multiplicity
        found["pixels"] = part.sum(pixels.astype(np.int64))
        found["intensity"], found["variance"] = whole.intensity, whole.variance
        agreements = []
        for kind in self.kinds:
            groups = group_of_observations(kind, grid, part, own)
            scattered = scatter(part, q, whole, groups)
            found[f"variance_{kind}"] = scattered.variance
            agreements.append(self.regions.sums(part.voxels, scattered))
            if kind == self.halves:
                first = half_sets(kind, grid, part, groups, self.sweeps, self.seed)
        for name, chosen in (("half_1", first), ("half_2", ~first)):
            found[name], found[f"{name}_variance"] = merge_part(part, q, whole, chosen)
        return np.array(agreements)


def _gathered(partitions: VoxelPartitions, grid: GlobalGrid, m: int, record: np.dtype) -> dict[str, np.ndarray]:
    """The records of all partitions as arrays, shape (m,) or (m, 3), in the order of the voxels' keys."""
    columns = {name: np.empty((m, *record[name].shape), record[name].base) for name in record.names}
    begin = 0
    for partition in partitions.partitions:
        found = partition.get(MERGED)
        partition.drop(MERGED)
        for name, values in columns.items():
            values[begin : begin + len(found)] = found[name]
        begin += len(found)
    keys = grid.index2key(columns["index"])
    if (keys[1:] > keys[:-1]).all():
        return columns
    order = np.argsort(keys)  # partitions are of the Laue group, the voxels of the point group
    return {name: columns.pop(name)[order] for name in record.names}


def _warn_of_mates(statistics: MergingStatistics) -> None:
    """Say so if what was merged as equivalent differs by more than its errors."""
    causes = {
        "sweep": "Sweeps",
        "laue": "Voxels that Laue symmetry makes equivalent",
        "friedel": "Friedel mates",
    }
    for kind, what in causes.items():
        agreement = statistics.overall.agreements.get(kind)
        if agreement is not None and agreement.chi_squared > MUCH:
            logger.warning(
                "%s differ by more than their errors: reduced chi-squared %.2f, %.2f for single observations.",
                what,
                agreement.chi_squared,
                statistics.overall.chi_squared,
            )
