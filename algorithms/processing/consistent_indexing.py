"""One setting for all sweeps, where the lattice allows several.

Why not dials.cosym: it changes the setting and the space group of the reference as well, gives one file for all sweeps,
and loses the orientations of scan-varying crystals (it calls ``crystal.set_unit_cell``); dials.reindex keeps them. And
not its reference path (dials/algorithms/symmetry/reindex_to_reference.py): that compares with the first sweep alone,
with which a narrow wedge may share next to nothing, and by correlations to which the fall-off with resolution gives a
high value in the wrong setting, too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
from cctbx import crystal as cctbx_crystal
from cctbx import miller, sgtbx
from cctbx.crystal.reindex import reindexing_operators
from dials.array_family import flex
from dials.util.filter_reflections import filtered_arrays_from_experiments_reflections
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList
from scipy.stats import rankdata

from dials_diffuse.grid import miller_index_to_numpy

logger = logging.getLogger("dials.diffuse.processing")

#: How far the cells of two sweeps may differ, and a lattice from a higher symmetry: the defaults of dials.cosym.
LENGTH_TOLERANCE = 0.05
ANGLE_TOLERANCE = 2.0
MAX_DELTA = 5.0
PARTIALITY = 0.4

#: Common reflections below which a correlation means nothing.
MIN_COMMON = 10

#: Standard deviations by which the best setting must be better than the next.
MIN_SIGNIFICANCE = 3.0

#: Reflections of one shell of resolution in which intensities are normalised.
SHELL = 200

#: Miller indices lie within -BOX ... BOX.
BOX = 1 << 19


@dataclass(frozen=True)
class Reindexing:
    """How to bring one sweep into the setting of the first.

    Attributes
    ----------
    operator : str or None
        As ``dials.reindex change_of_basis_op=`` takes it; ``h,k,l`` if nothing is to be done. The setting after it is
        the reference's, whose space group belongs to it (``dials.reindex space_group=``). None if the cell does not
        fit the reference's in any setting: leave the sweep out.
    correlation : float
        Rank correlation of the normalised Bragg intensities with those of the sweeps already in the reference's
        setting; NaN without common reflections.
    alternatives : dict of str to (float, int)
        For every possible setting its correlation and the number of common reflections, best first.
    confident : bool
        Whether the setting is known: there is but one, or it is better by 3 standard deviations.
    reason : str
        One sentence: why this setting, or why none.
    """

    operator: str | None
    correlation: float = np.nan
    alternatives: dict[str, tuple[float, int]] = field(default_factory=dict)
    confident: bool = False
    reason: str = ""

    @property
    def ambiguous(self) -> bool:
        """Whether the lattice allows more than one setting."""
        return len(self.alternatives) > 1


def consistent_indexing(
    experiments: list[ExperimentList], reflections: list[flex.reflection_table]
) -> list[Reindexing]:
    """Find for every sweep the change of basis into the setting of the first.

    The settings that are possible are the double cosets of the Laue groups in the symmetry of the lattice, within
    tolerances (merohedral and pseudo-merohedral ones: cctbx.crystal.reindex). Their intensities, normalised in shells
    of resolution, are compared by rank with all sweeps whose setting is known: at first the first sweep, then round by
    round those that could be placed with certainty. So narrow wedges that share little with the first sweep are placed
    by way of others.

    Parameters
    ----------
    experiments : list of ExperimentList
        One a sweep, with crystals. All experiments of a sweep are taken to be in one setting: lattices that were
        indexed independently are sweeps of their own here.
    reflections : list of flex.reflection_table
        Their integrated reflections (``integrated.refl``; ``id`` counts the experiments of the sweep). Filtered and
        corrected as dials.cosym does.

    Returns
    -------
    list of Reindexing
        One a sweep, in order. An undecided sweep stays as it is if its cell allows that.
    """
    intensities = [Intensities.from_sweep(*sweep) for sweep in zip(experiments, reflections)]
    reference = intensities[0].symmetry
    candidates = [possible_settings(reference, sweep.symmetry) for sweep in intensities]
    laue_group = reference.space_group().build_derived_laue_group()
    settings = [
        {operator: sweep.merged(operator, laue_group) for operator in operators}
        for sweep, operators in zip(intensities, candidates)
    ]
    pool = Merged.of([settings[0]["h,k,l"]])
    results = {number: _no_setting(reference, intensities[number].symmetry) for number in range(len(settings))}
    waiting = [number for number, sweep in enumerate(settings) if sweep]
    while waiting:
        for number in waiting:
            results[number] = _choose(settings[number], pool)
        results[0] = replace(results[0], confident=True, reason="it is the reference.")
        placed = [number for number in waiting if results[number].confident]
        waiting = [number for number in waiting if number not in placed]
        if not placed:
            break
        pool = Merged.of([pool, *(settings[number][results[number].operator] for number in placed if number)])
    for number, result in sorted(results.items()):
        logger.info("Sweep %d: %s", number + 1, result.reason)
    return [results[number] for number in range(len(settings))]


def possible_settings(reference: cctbx_crystal.symmetry, other: cctbx_crystal.symmetry) -> list[str]:
    """Operators, one for each setting that can be told apart, that bring a crystal's cell to the reference's.

    Parameters
    ----------
    reference, other : cctbx.crystal.symmetry

    Returns
    -------
    list of str
        As h,k,l; ``h,k,l`` first if it is one of them. Empty if the cells differ.
    """
    found = reindexing_operators(
        reference,
        other,
        relative_length_tolerance=LENGTH_TOLERANCE,
        absolute_angle_tolerance=ANGLE_TOLERANCE,
        max_delta=MAX_DELTA,
        anomalous_flag=False,
    )
    operators = [
        operator.as_hkl()
        for operator in found.combined_cb_ops()
        if operator.apply(other.unit_cell()).is_similar_to(reference.unit_cell(), LENGTH_TOLERANCE, ANGLE_TOLERANCE)
    ]
    return sorted(operators, key=lambda operator: operator != "h,k,l")


@dataclass(frozen=True, eq=False)
class Merged:
    """Intensities of one or several sweeps, merged in the asymmetric unit.

    Attributes
    ----------
    key : ndarray, shape (n,), int64
        Of Miller indices; sorted, each once.
    total : ndarray, shape (n,), float
        Sum of normalised intensities.
    count : ndarray, shape (n,), float
        Their number.
    """

    key: np.ndarray
    total: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, parts: list[Merged]) -> Merged:
        """Several as one."""
        key, inverse = np.unique(np.concatenate([part.key for part in parts]), return_inverse=True)
        total = np.bincount(inverse, np.concatenate([part.total for part in parts]), len(key))
        count = np.bincount(inverse, np.concatenate([part.count for part in parts]), len(key))
        return cls(key, total, count)

    def correlation(self, other: Merged) -> tuple[float, int]:
        """Spearman's rank correlation over common reflections (NaN if there are none to speak of) and their number."""
        common, mine, yours = np.intersect1d(self.key, other.key, assume_unique=True, return_indices=True)
        if len(common) < MIN_COMMON:
            return np.nan, len(common)
        ranks = rankdata((self.total / self.count)[mine]), rankdata((other.total / other.count)[yours])
        return float(np.corrcoef(*ranks)[0, 1]), len(common)


@dataclass(frozen=True, eq=False)
class Intensities:
    """Bragg intensities of one sweep.

    Attributes
    ----------
    symmetry : cctbx.crystal.symmetry
    indices : flex.miller_index
        As the sweep is indexed.
    values : ndarray, shape (n,), float
        Divided by their mean in shells of resolution.
    """

    symmetry: cctbx_crystal.symmetry
    indices: flex.miller_index
    values: np.ndarray

    @classmethod
    def from_sweep(cls, experiments: ExperimentList, table: flex.reflection_table) -> Intensities:
        """Filter and correct (Lorentz, polarisation, efficiency, partiality) integrated intensities, as DIALS does."""
        crystal = experiments[0].crystal
        symmetry = cctbx_crystal.symmetry(crystal.get_unit_cell(), space_group=crystal.get_space_group())
        parts = [table.select(table["id"] == number) for number in range(len(experiments))]
        try:  # without reflections it raises; experiments without any are taken out of the lists
            arrays = filtered_arrays_from_experiments_reflections(
                list(experiments), parts, partiality_threshold=PARTIALITY
            )
        except ValueError:
            return cls(symmetry, flex.miller_index(), np.empty(0))
        indices, values, q = flex.miller_index(), [], []
        for array in arrays:
            array = array.eliminate_sys_absent()
            indices.extend(array.indices())
            values.append(flumpy.to_numpy(array.data()))
            q.append(flumpy.to_numpy(symmetry.unit_cell().d_star_sq(array.indices())))
        return cls(symmetry, indices, normalised(np.concatenate(values), np.concatenate(q)))

    def merged(self, operator: str, laue_group: sgtbx.space_group) -> Merged:
        """In another setting, merged over the reference's Laue group (Friedel mates too)."""
        indices = sgtbx.change_of_basis_op(operator).apply(self.indices)
        miller.map_to_asu(laue_group.type(), False, indices)
        h, k, l = miller_index_to_numpy(indices).astype(np.int64).T + BOX
        return Merged.of([Merged((h * 2 * BOX + k) * 2 * BOX + l, self.values, np.ones(len(self.values)))])


def normalised(intensities: np.ndarray, d_star_sq: np.ndarray) -> np.ndarray:
    """Intensities divided by their mean in shells of :data:`SHELL` reflections; shape (n,)."""
    order = np.argsort(d_star_sq)
    shells = max(len(order) // SHELL, 1)
    shell = np.empty(len(order), dtype=np.int64)
    shell[order] = np.arange(len(order)) * shells // max(len(order), 1)
    mean = np.bincount(shell, intensities, shells) / np.maximum(np.bincount(shell, minlength=shells), 1)
    # A shell without signal is left with its noise, of order one.
    floor = np.sqrt(np.bincount(shell, intensities**2, shells) / np.maximum(np.bincount(shell, minlength=shells), 1))
    return intensities / np.maximum(np.maximum(mean, 0.1 * floor), np.finfo(float).tiny)[shell]


def _choose(settings: dict[str, Merged], pool: Merged) -> Reindexing:
    """The best of the possible settings of one sweep."""
    unsorted = {operator: pool.correlation(merged) for operator, merged in settings.items()}
    alternatives = dict(sorted(unsorted.items(), key=lambda item: -np.nan_to_num(item[1][0], nan=-2)))
    best, *others = alternatives
    correlation = alternatives[best][0]
    summary = ", ".join(f"{_shown(value)} as {operator}" for operator, value in alternatives.items())
    if not others:
        reason = f"there is one setting, {best}: {_shown(alternatives[best])}."
        return Reindexing(best, correlation, alternatives, True, reason)
    if all(significance(alternatives[best], alternatives[other]) >= MIN_SIGNIFICANCE for other in others):
        return Reindexing(best, correlation, alternatives, True, f"its setting is {best}: {summary}.")
    kept = next(iter(settings))  # h,k,l where that is possible
    reason = f"its setting is not known, {kept} is taken: {summary}."
    return Reindexing(kept, alternatives[kept][0], alternatives, False, reason)


def _shown(value: tuple[float, int]) -> str:
    correlation, common = value
    return "too few common reflections" if np.isnan(correlation) else f"CC {correlation:.3f} ({common} reflections)"


def significance(best: tuple[float, int], other: tuple[float, int]) -> float:
    """Difference of two correlations (each with its number of reflections) in standard deviations, by Fisher's z.

    0 if one of them is not known.
    """
    if np.isnan(best[0]) or np.isnan(other[0]):
        return 0.0
    z = [np.arctanh(np.clip(cc, -0.999999, 0.999999)) for cc, _ in (best, other)]
    return float((z[0] - z[1]) / np.sqrt(sum(1 / (n - 3) for _, n in (best, other))))


def _no_setting(reference: cctbx_crystal.symmetry, other: cctbx_crystal.symmetry) -> Reindexing:
    cells = [", ".join(f"{value:.2f}" for value in s.unit_cell().parameters()) for s in (other, reference)]
    return Reindexing(
        None,
        reason=f"its cell ({cells[0]}) fits the first sweep's ({cells[1]}) in no setting, within "
        f"{100 * LENGTH_TOLERANCE:.0f} % and {ANGLE_TOLERANCE:.0f} degrees.",
    )
