"""Masks of the Bragg peaks that follow the lattice points through reciprocal space."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import libtbx.phil
import numpy as np
from cctbx import miller
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import Crystal, Experiment
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.masking.bragg import BraggMask
from dials_diffuse.algorithms.masking.bragg_ellipsoids import BraggEllipsoids
from dials_diffuse.algorithms.masking.peak_shape import PeakShape, measure_peak_shape
from dials_diffuse.algorithms.masking.shared_images import kind_of_still
from dials_diffuse.geometry import resolution
from dials_diffuse.grid import lattice_group, miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.images import sweep_name
from dials_diffuse.log_levels import experiments_name, level_of

logger = logging.getLogger("dials.diffuse.masking")


class EllipsoidBraggMask(BraggMask):
    """Pixels whose fractional Miller indices lie within an ellipsoid of a lattice point, shaped and sized as the peaks.

    Parameters
    ----------
    experiment, reflections, d_min, params
        See :class:`BraggMask`.
    ellipsoids : BraggEllipsoids, optional
        Taken instead of measuring the reflections: stills of one kind have theirs in common.
    """

    name = "ellipsoid"
    phil_scope = parse(
        """
  n_sigma = 3.5
    .type = float(value_min=0)
    .help = "Smallest radius of the ellipsoid in standard deviations of the measured peaks."
  residual = 0.02
    .type = float(value_min=0)
    .help = "The ellipsoid grows with the strength of the peak until what a Gaussian tail leaves outside is below this"
            "share of the mean count a pixel."
  max_spots = 3000
    .type = int(value_min=10)
    .help = "How many of the spots, drawn at random, serve to measure the shape of the peaks."
  seed = 42
    .type = int
    .help = "Seed of that draw."
"""
    )

    def __init__(
        self,
        experiment: Experiment,
        reflections: flex.reflection_table,
        d_min: float,
        params: libtbx.phil.scope_extract,
        ellipsoids: BraggEllipsoids | None = None,
    ) -> None:
        super().__init__(experiment, reflections, d_min, params)
        if ellipsoids is None:
            ellipsoids = measured_ellipsoids([experiment], [reflections], d_min, params)
        self.ellipsoids = ellipsoids

    @classmethod
    def for_experiments(
        cls,
        experiments: ExperimentList,
        reflections: flex.reflection_table | None,
        params: libtbx.phil.scope_extract,
    ) -> list[BraggMask]:
        """Sweeps one by one, stills of one kind together.

        A still has few spots, and each shows only where its peak meets the Ewald sphere; many stills show all of it.
        """
        for experiment in experiments:
            if experiment.crystal is None:
                raise Sorry(
                    f"{sweep_name(experiment)} has no crystal: index it first (dials.index), or set "
                    "bragg_mask.mode=none."
                )
        tables = cls.own_reflections(experiments, reflections)
        pools: dict[tuple, list[int]] = {}
        for number, experiment in enumerate(experiments):
            kind = kind_of_still(experiment)
            group = experiment.crystal.get_space_group().type().hall_symbol()
            pools.setdefault((number,) if kind is None else (kind, group), []).append(number)
        masks: dict[int, BraggMask] = {}
        for i, pool in enumerate(pools.values()):
            d_min = min(resolution(experiments[n]) for n in pool)
            members = [experiments[n] for n in pool], [tables[n] for n in pool]
            ellipsoids = measured_ellipsoids(*members, d_min, params, f"Bragg peaks of {experiments_name(pool)}", i)
            masks |= {n: cls(experiments[n], tables[n], d_min, params, ellipsoids) for n in pool}
        return [masks[number] for number in range(len(experiments))]


def measured_ellipsoids(
    experiments: Sequence[Experiment],
    tables: Sequence[flex.reflection_table],
    d_min: float,
    params: libtbx.phil.scope_extract,
    title: str = "Bragg peaks",
    number: int = 0,
) -> BraggEllipsoids:
    """The ellipsoids of a sweep, or of many stills together, by their reflections.

    Parameters
    ----------
    experiments : sequence of Experiment
        Their crystals have one space group and about the same cell.
    tables : sequence of flex.reflection_table
        The reflections of each.
    d_min : float
        Resolution limit in Angstrom.
    params : libtbx.phil.scope_extract
        Of :class:`EllipsoidBraggMask`.
    title, number
        What the log calls these peaks, and how many others it has told of before.

    Raises
    ------
    Sorry
        If no reflection is indexed, or there is nothing to measure.
    """
    shape = measure_peak_shape(experiments, tables, params)
    ellipsoids = ellipsoids_of(shape, [experiment.crystal for experiment in experiments], d_min, params)
    radii = np.sqrt(np.percentile(ellipsoids.radius_squared[ellipsoids.radius_squared > 0], (0, 100, 50)))
    logger.log(
        level_of(number),
        "%s: standard deviations %.3f, %.3f, %.3f in h, k, l at q = 0, %.0f %% more at %.2f A; ellipsoids of %.1f to "
        "%.1f of them (median %.1f)",
        title,
        *np.sqrt(np.diag(shape.covariance)),
        100 * (np.sqrt(1 + shape.growth / d_min**2) - 1),
        d_min,
        *radii,
    )
    return ellipsoids


def ellipsoids_of(
    shape: PeakShape, crystals: Sequence[Crystal], d_min: float, params: libtbx.phil.scope_extract
) -> BraggEllipsoids:
    """One ellipsoid round every lattice point where a peak can be, growing with the peak's strength."""
    edges = np.max([crystal.get_unit_cell().parameters()[:3] for crystal in crystals], axis=0)
    limits = [int(edge / d_min) + 1 for edge in edges]
    hkl = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limits), indexing="ij"), axis=-1).reshape(-1, 3)
    b = np.array(crystals[0].get_B()).reshape(3, 3)
    spread = 1 + shape.growth * ((hkl @ b.T) ** 2).sum(axis=1)
    radius_squared = spread * _radius_squared(shape, crystals[0], hkl, params)
    centring = lattice_group(crystals[0].get_space_group())
    if centring.order_z() > 1:
        radius_squared[flumpy.to_numpy(centring.is_sys_absent(miller_index_from_numpy(hkl)))] = 0
    return BraggEllipsoids.from_covariance(shape.covariance, radius_squared.reshape([2 * n + 1 for n in limits]))


def _radius_squared(
    shape: PeakShape, crystal: Crystal, hkl: np.ndarray, params: libtbx.phil.scope_extract
) -> np.ndarray:
    """Radius squared, in standard deviations of the peak, at which its tail fades; shape (n,).

    A Gaussian peak of height p leaves p exp(-r^2 / 2) photons a pixel at r. The strength of a reflection is the
    largest among those measured of its Laue mates; where none was, that of a weak measured one.
    """
    laue = crystal.get_space_group().build_derived_laue_group().type()

    def keys(indices: np.ndarray) -> np.ndarray:
        representatives = miller_index_from_numpy(indices)
        miller.map_to_asu(laue, False, representatives)
        shifted = miller_index_to_numpy(representatives).astype(np.int64) + 2**20
        return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]

    measured, inverse = np.unique(keys(shape.miller_index), return_inverse=True)
    strongest = np.zeros(len(measured))
    np.maximum.at(strongest, inverse, shape.strength)
    height = np.full(len(hkl), np.percentile(shape.strength, 10))
    wanted = keys(hkl)
    position = np.minimum(np.searchsorted(measured, wanted), len(measured) - 1)
    found = measured[position] == wanted
    height[found] = strongest[position[found]]
    background = shape.background if np.isfinite(shape.background) else 1.0
    tail = params.residual * max(background, 0.05)
    return np.maximum(params.n_sigma**2, 2 * np.log(np.maximum(height / tail, 1.0)))
