"""From scaled observations to the map."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dxtbx import flumpy

from dials_diffuse.algorithms.merging.statistics import ShellStatistics, shell_statistics
from dials_diffuse.algorithms.scaling import observations as scaling_observations
from dials_diffuse.algorithms.scaling.expectation import merge_part, merge_voxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations, scaled_observations
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy, miller_index_to_numpy

logger = logging.getLogger("dials.diffuse.merging")

#: What the observations must have, see docs/data_model.md.
COLUMNS = (*scaling_observations.COLUMNS, *scaling_observations.SCALED_COLUMNS, "num_pixels.valid")


@dataclass
class MergedMap:
    """Merged voxels of the asymmetric unit; every array has one entry for each of the m voxels.

    Attributes
    ----------
    grid : GlobalGrid
    index : ndarray, shape (m, 3), int32
    intensity, variance : ndarray
        Photons / (s sr), and squared.
    multiplicity, pixels : ndarray, int64
        Observations and pixel measurements merged.
    half_1, half_1_variance, half_2, half_2_variance : ndarray
        The same from two random halves of the observations; NaN where a half is empty.
    statistics : ShellStatistics
    wavelengths : ndarray
        The different wavelengths of the experiments, Angstrom.
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
    statistics: ShellStatistics
    wavelengths: np.ndarray

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


def merge(dataset: Dataset, params: libtbx.phil.scope_extract) -> MergedMap:
    """Merge scaled observations over the Laue group.

    Parameters
    ----------
    dataset : Dataset
        With the columns :data:`COLUMNS`.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.command_line.diffuse_merge.phil_scope`.

    Returns
    -------
    MergedMap

    Raises
    ------
    Sorry
        If there are no observations.
    """
    table = dataset.observations
    observations = scaled_observations(dataset)
    pixels = flumpy.to_numpy(table["num_pixels.valid"])[observations.rows].astype(np.int64)
    q = dataset.grid.q(observations.voxels)
    whole = merge_voxels(observations, q)
    generator = np.random.default_rng(params.merging.seed)
    in_first = (generator.random(len(table)) < 0.5)[observations.rows]
    halves = [merge_part(observations, q, whole, part) for part in (in_first, ~in_first)]
    mates_in_first = split_mates(dataset, observations)
    mates = [merge_part(observations, q, whole, part)[0] for part in (mates_in_first, ~mates_in_first)]
    isotropic = whole.prior.mean_at(q)
    statistics = shell_statistics(
        dataset.grid,
        q,
        (whole.intensity, whole.variance, observations.multiplicity),
        isotropic,
        (halves[0][0], halves[1][0]),
        (mates[0], mates[1]),
        params.merging.n_shells,
    )
    logger.info(
        "Merged %d observations into %d voxels (%s)\n\n%s", len(observations.rows), len(q), dataset.grid, statistics
    )
    return MergedMap(
        dataset.grid,
        observations.voxels,
        whole.intensity,
        whole.variance,
        observations.multiplicity,
        observations.sum(pixels),
        *halves[0],
        *halves[1],
        statistics,
        np.unique([round(experiment.beam.get_wavelength(), 9) for experiment in dataset.experiments]),
    )


def split_mates(dataset: Dataset, observations: GroupedObservations) -> np.ndarray:
    """Split observations by the voxel they saw before symmetry was applied, equivalent voxels falling into both parts.

    Returns
    -------
    ndarray, shape (n,), bool
        The distinct equivalents of a voxel, in random order, are in the first part and not, in turns; all observations
        of one of them are together.
    """
    own = np.empty(len(observations.rows), dtype=np.int64)
    indices = dataset.observations["miller_index"].select(flumpy.from_numpy(observations.rows.astype(np.uint64)))
    for _, chosen in observations.chunks():
        own[chosen] = dataset.grid.index2key(miller_index_to_numpy(indices[chosen]))
    own = _scatter(own)
    voxel = observations.spread(np.arange(len(observations.voxels)))
    order = np.lexsort((own, voxel))
    own = own[order]
    new = np.concatenate([[True], own[1:] != own[:-1]])  # an own voxel belongs to one asymmetric-unit voxel only
    number = np.cumsum(new)
    number -= number[observations.first[voxel]]
    part = np.empty(len(order), dtype=bool)
    part[order] = number % 2 == 0
    return part


def _scatter(keys: np.ndarray) -> np.ndarray:
    """Different numbers for different keys, without their order: the finaliser of SplitMix64 (Steele et al. (2014)).

    In the order of the keys, equivalents would fall into the parts by rules that hide broken symmetry (for 4/m, the
    mates by the fourfold axis evenly).
    """
    z = keys.astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
