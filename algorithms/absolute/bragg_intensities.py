"""Integrals of the Bragg peaks over reciprocal space, in the units of the diffuse intensities.

A peak whose integral over reciprocal space is J, photons / (s sr A^3), gives while the crystal turns at dphi / t

    N = (t / dphi) lambda^3 L P E A a d b J,    L = 1 / |s1 . (m2 x s0)|   (unit vectors, rotation axis m2)

photons: a solid angle dOmega of the Ewald sphere is dOmega / lambda^2, and moves along its normal by dphi / (lambda L)
(Kabsch (1988) J. Appl. Cryst. 21, 916, for L). There is no solid angle of a pixel in it, for all pixels of the peak are
summed. In electrons^2 per unit cell J is |F|^2 / V: a crystal of n cells scatters |F|^2 n / V in a peak, n I elsewhere.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from cctbx import miller
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.absolute.bragg_outliers import find_outliers, on_masked_pixels
from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.correct import panels
from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.expectation import radial_bins
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.images import exposure_times
from dials_diffuse.stills import is_still

logger = logging.getLogger("dials.diffuse.absolute")

#: Columns of integrated reflections.
COLUMNS = (
    "id",
    "panel",
    "bbox",
    "miller_index",
    "xyzcal.px",
    "partiality",
    "intensity.sum.value",
    "intensity.sum.variance",
    "flags",
)
#: Of reflections fitted by profiles.
PROFILE_COLUMNS = "intensity.prf.value", "intensity.prf.variance"
#: Where the mean of I / sigma in a shell is less, profiles are taken.
WEAK = 10.0
#: Reflections of which a smaller part was recorded are left out.
LEAST_PARTIALITY = 0.95
#: A setting of the crystal is the same up to whole Miller indices if it is so within this.
TOLERANCE = 0.05


@dataclass
class BraggIntensities:
    """Unique reflections; every array has one entry for each of the m reflections.

    Attributes
    ----------
    index : ndarray, shape (m, 3), int32
        Miller indices in the asymmetric unit of the Laue group.
    integral, variance : ndarray
        J, photons / (s sr A^3), and its variance.
    multiplicity : ndarray, int
        Measurements merged.
    """

    index: np.ndarray
    integral: np.ndarray
    variance: np.ndarray
    multiplicity: np.ndarray

    def as_reflections(self, grid: GlobalGrid, factor: float) -> flex.reflection_table:
        """A table of |F|^2 in electrons^2 per unit cell: columns of docs/data_model.md.

        Parameters
        ----------
        grid : GlobalGrid
        factor : float
            Electrons^2 per unit cell for a photon / (s sr).
        """
        scale = factor * grid.unit_cell.volume()
        table = flex.reflection_table()
        table["miller_index"] = miller_index_from_numpy(self.index)
        table["d"] = grid.unit_cell.d(table["miller_index"])
        table["intensity.scale.value"] = flex.double(scale * self.integral)
        table["intensity.scale.variance"] = flex.double(scale**2 * self.variance)
        table["multiplicity"] = flex.int(self.multiplicity.astype(np.int32))
        return table


def bragg_intensities(
    dataset: Dataset,
    experiments: ExperimentList,
    reflections: flex.reflection_table,
    correction: libtbx.phil.scope_extract,
) -> BraggIntensities:
    """Put integrated reflections on the scale of the diffuse intensities, and merge them.

    Parameters
    ----------
    dataset : Dataset
        Scaled.
    experiments : ExperimentList
        Those that were integrated: of the same sweeps as the scaled ones, told by identifiers or, where these differ,
        by the images.
    reflections : flex.reflection_table
        With the columns :data:`COLUMNS`; ``id`` counts ``experiments``.
    correction : libtbx.phil.scope_extract
        The scope ``correction`` with which the diffuse intensities were corrected.

    Returns
    -------
    BraggIntensities

    Raises
    ------
    Sorry
        If the experiments do not belong together, or no reflection is of use.
    """
    chosen = _usable(reflections)
    ids = flumpy.to_numpy(reflections["id"])
    own = [_own_experiment(dataset.experiments, experiment) for experiment in experiments]
    table = flex.reflection_table()
    table["id"] = flex.int(np.array([*own, -1], dtype=np.int32)[ids])  # of reflections of none, -1, the last
    for name in (*COLUMNS[1:], *PROFILE_COLUMNS):
        if name in reflections:
            table[name] = reflections[name]
    table["xyzobs.px.value"] = reflections["xyzcal.px"]
    table["miller_index"] = _reindexed(dataset.experiments, experiments, own, ids, reflections["miller_index"])
    chosen &= flumpy.to_numpy(table["id"]) >= 0
    chosen &= ~on_masked_pixels(dataset.experiments, table)
    table = table.select(flumpy.from_numpy(chosen))
    if len(table) == 0:
        raise Sorry("No Bragg reflection was integrated in whole: give integrated.expt and integrated.refl of sweeps.")
    index = miller_index_to_numpy(table["miller_index"])
    response = _response(dataset, table, index, correction)
    q = dataset.grid.q(index * np.array(dataset.grid.ndiv))
    return _merge(dataset.grid, index, *_photons(table, q), response)


def _usable(reflections: flex.reflection_table) -> np.ndarray:
    """Which reflections were integrated by summation, and in whole, shape (n,), bool."""
    missing = [name for name in COLUMNS if name not in reflections]
    if missing:
        raise Sorry(f"The Bragg reflections have no column {missing[0]}: give integrated.refl of dials.integrate.")
    integrated = flumpy.to_numpy(reflections.get_flags(reflections.flags.integrated_sum))
    whole = flumpy.to_numpy(reflections["partiality"]) > LEAST_PARTIALITY
    measured = flumpy.to_numpy(reflections["intensity.sum.variance"]) > 0
    indexed = miller_index_to_numpy(reflections["miller_index"]).any(axis=1)
    return integrated & whole & measured & indexed


def _photons(table: flex.reflection_table, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photons of reflections and their variance: summed, or where they are weak fitted by profiles, if they were.

    The sum of a weak peak is spoilt by the least error of its background, the fit of a strong one by that of its
    profile (as in dials/algorithms/scaling/combine_intensities.py). Which it is goes by the mean of the shell, for a
    choice by the reflection's own intensity would be a bias.
    """
    partiality = flumpy.to_numpy(table["partiality"])
    counts = flumpy.to_numpy(table["intensity.sum.value"]) / partiality
    variance = flumpy.to_numpy(table["intensity.sum.variance"]) / partiality**2
    if not all(name in table for name in PROFILE_COLUMNS):
        return counts, variance
    fitted = flumpy.to_numpy(table.get_flags(table.flags.integrated_prf))
    fitted &= flumpy.to_numpy(table["intensity.prf.variance"]) > 0
    shell = radial_bins(q, 30, 200)
    number = np.bincount(shell)
    is_weak = np.bincount(shell, counts / np.sqrt(variance)) / number < WEAK
    weak = is_weak[shell] & fitted
    for mine, profile in zip((counts, variance), PROFILE_COLUMNS):
        mine[weak] = flumpy.to_numpy(table[profile])[weak]
    return counts, variance


def _own_experiment(scaled: ExperimentList, integrated: Experiment) -> int:
    """Number of the scaled experiment that is an integrated one, -1 if none is."""
    for number, experiment in enumerate(scaled):
        if experiment.identifier and experiment.identifier == integrated.identifier:
            return number
    same = [number for number, experiment in enumerate(scaled) if _images(experiment) == _images(integrated)]
    return same[0] if len(same) == 1 and not is_still(integrated) else -1


def _images(experiment: Experiment) -> tuple:
    imageset = experiment.imageset
    return () if imageset is None else tuple(imageset.paths())


def _reindexed(
    scaled: ExperimentList, integrated: ExperimentList, own: list[int], ids: np.ndarray, indices: flex.miller_index
) -> flex.miller_index:
    """Miller indices in the settings of the scaled experiments, by the crystals' setting matrices."""
    index = miller_index_to_numpy(indices)
    for number, target in enumerate(own):
        if target < 0:
            continue
        old, new = (np.array(e.crystal.get_A()).reshape(3, 3) for e in (integrated[number], scaled[target]))
        change = np.linalg.inv(new) @ old
        whole = np.rint(change)
        if np.abs(change - whole).max() > TOLERANCE or abs(np.linalg.det(whole)) < 0.5:
            raise Sorry(
                "The crystal of the integrated reflections is oriented otherwise than that of the scaled data: "
                "integrate with the models that dials.diffuse_extract was given."
            )
        index[ids == number] = np.rint(index[ids == number] @ whole.T).astype(np.int32)
    return miller_index_from_numpy(index)


def _response(
    dataset: Dataset, table: flex.reflection_table, index: np.ndarray, correction: libtbx.phil.scope_extract
) -> np.ndarray:
    """N / J of reflections (the module's formula), s sr A^3, shape (n,); 0 where the Lorentz factor is not known."""
    correction = copy.deepcopy(correction)
    correction.solid_angle.use, correction.lorentz.use = False, True
    corrections = CombinedCorrection(correction)
    bragg = Dataset(dataset.experiments, table, dataset.grid)
    table["miller_index"] = miller_index_from_numpy(index * np.array(dataset.grid.ndiv))  # voxels, for |q|
    table["response"] = flex.double(len(table), 1)
    apply_models(bragg)
    response = flumpy.to_numpy(table["inverse_scale_factor"]).copy()
    frame = flumpy.to_numpy(table["xyzobs.px.value"])[:, 2]
    places = {name: flumpy.to_numpy(table[name]) for name in ("id", "panel", "xyzobs.px.value")}
    for number, rows, geometry in panels(places, dataset.experiments):
        experiment = dataset.experiments[number]
        if is_still(experiment):
            response[rows] = 0
            continue
        times = exposure_times(experiment)
        first, width = experiment.scan.get_array_range()[0], abs(experiment.scan.get_oscillation(deg=False)[1])
        at = np.clip(frame[rows].astype(np.int64) - first, 0, experiment.scan.get_num_images() - 1)
        seconds = np.ones(len(rows)) if times is None else times[at]
        response[rows] *= seconds / width * experiment.beam.get_wavelength() ** 3 * corrections.factor(geometry)
    return response


def _merge(
    grid: GlobalGrid, index: np.ndarray, counts: np.ndarray, variance: np.ndarray, response: np.ndarray
) -> BraggIntensities:
    """J = sum N / sum (N / J) over equivalent reflections: weights that do not depend on the counts bias nothing."""
    known = response > 0
    known &= ~flumpy.to_numpy(grid.space_group.is_sys_absent(miller_index_from_numpy(index)))
    if not known.any():
        raise Sorry("The Bragg reflections are of stills, which do not record them in whole: give absolute.b_factor.")
    indices = miller_index_from_numpy(index[known])
    miller.map_to_asu(grid.laue_group.type(), False, indices)
    unique, group = np.unique(miller_index_to_numpy(indices), axis=0, return_inverse=True)
    group, counts, variance, response = group.ravel(), counts[known], variance[known], response[known]
    kept = ~find_outliers(grid.q(unique * np.array(grid.ndiv)), group, counts, variance, response)
    logger.info("Bragg reflections: %d measurements, %d outliers left out", len(kept), np.sum(~kept))
    n = len(unique)
    multiplicity = np.bincount(group[kept], minlength=n)
    total = np.bincount(group[kept], response[kept], n)
    there = total > 0
    integral = np.bincount(group[kept], counts[kept], n)[there] / total[there]
    merged_variance = np.bincount(group[kept], variance[kept], n)[there] / total[there] ** 2
    logger.info("%d different ones", np.sum(there))
    return BraggIntensities(unique[there], integral, merged_variance, multiplicity[there])
