"""From scaled observations to the map."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dxtbx import flumpy

from dials_diffuse.algorithms.merging import symmetry
from dials_diffuse.algorithms.merging.groups import check_kind, group_of_observations, possible_kinds
from dials_diffuse.algorithms.merging.halves import half_sets
from dials_diffuse.algorithms.merging.scatter import scatter
from dials_diffuse.algorithms.merging.statistics import MergingStatistics, merging_statistics
from dials_diffuse.algorithms.merging.symmetry import SymmetryTest
from dials_diffuse.algorithms.scaling import observations as scaling_observations
from dials_diffuse.algorithms.scaling.expectation import merge_part, merge_voxels
from dials_diffuse.algorithms.scaling.observations import scaled_observations
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy

logger = logging.getLogger("dials.diffuse.merging")

#: What the observations must have, see docs/data_model.md.
COLUMNS = (*scaling_observations.COLUMNS, *scaling_observations.SCALED_COLUMNS, "num_pixels.valid")


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
        Of :data:`dials_diffuse.command_line.diffuse_merge.phil_scope`.

    Returns
    -------
    MergedMap

    Raises
    ------
    Sorry
        If there are no observations, or they can not be divided into the half sets that were asked for.
    """
    options = params.merging
    dataset = replace(dataset, grid=replace(dataset.grid, friedel_apart=options.friedel == "apart"))
    observations = scaled_observations(dataset)
    check_kind(options.halves, dataset, observations)
    pixels = flumpy.to_numpy(dataset.observations["num_pixels.valid"])[observations.rows].astype(np.int64)
    q = dataset.grid.q(observations.voxels)
    whole = merge_voxels(observations, q)
    scatters = {}
    for kind in possible_kinds(dataset, observations):
        groups = group_of_observations(kind, dataset, observations)
        scatters[kind] = scatter(observations, q, whole, groups)
        if kind == options.halves:
            in_first = half_sets(kind, observations, groups, options.seed)
    halves = [merge_part(observations, q, whole, part) for part in (in_first, ~in_first)]
    statistics = merging_statistics(
        dataset.grid,
        observations.voxels,
        (whole.intensity, whole.variance, observations.multiplicity),
        whole.prior.mean_at(q),
        scatters,
        options.halves,
        options.n_shells,
        options.halo_radius,
    )
    logger.info(
        "Merged %d observations into %d voxels (%s)\n\n%s", len(observations.rows), len(q), dataset.grid, statistics
    )
    _warn_of_mates(statistics)
    tested = symmetry.test_symmetry(dataset) if options.test_symmetry else None
    if tested is not None:
        logger.info("\n%s", tested)
        if tested.warning:
            logger.warning("%s", tested.warning)
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
        tested,
    )


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
