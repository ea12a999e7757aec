"""Scaled intensities put into electrons squared per unit cell."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import libtbx
import libtbx.phil
import numpy as np
from cctbx import miller
from dials.util import Sorry, tabulate
from iotbx.phil import parse

from dials_diffuse.algorithms.absolute import bragg_comparison
from dials_diffuse.algorithms.absolute.absolute_models import absolute_model
from dials_diffuse.algorithms.absolute.bragg_comparison import BraggComparison, compare
from dials_diffuse.algorithms.absolute.bragg_intensities import BraggIntensities, bragg_intensities
from dials_diffuse.algorithms.absolute.form_factors import coherent_intensity
from dials_diffuse.algorithms.absolute.incoherent import incoherent_intensity
from dials_diffuse.algorithms.absolute.interference import interference, known_pairs
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory, inventory_from_params
from dials_diffuse.algorithms.absolute.krogh_moe import KroghMoe, filled, krogh_moe
from dials_diffuse.algorithms.absolute.shells import Shells, bragg_shells, diffuse_shells
from dials_diffuse.algorithms.absolute.wilson import STRONG, Wilson, wilson
from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.observations import scaled_observations
from dials_diffuse.dataset import Dataset, models_and_reflections
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import ABSOLUTE_UNITS
from dials_diffuse.parameters import phil_scope
from dials_diffuse.program import Session

logger = logging.getLogger("dials.diffuse.absolute")

#: Factors that differ by more than this part get a warning.
DISAGREEMENT = 0.1
#: Measured and calculated Bragg intensities that correlate less are of different crystals.
CORRELATION = 0.3
#: The uncertainty of the interference, as a part of what it changes.
INTERFERENCE_ERROR = 0.3
#: What factors are called in the log.
NAMES = {"krogh_moe": "Krogh-Moe", "bragg": "Bragg, calculated", "wilson": "Wilson", "factor": "given"}
Scattering = dict[str, Callable[[np.ndarray], np.ndarray]]


@dataclass
class AbsoluteScale:
    """The factor, and all that speaks for it.

    Attributes
    ----------
    inventory : UnitCellInventory
    wavelength : float
        Angstrom.
    scattering : dict of str to callable
        ``coherent``, ``ordered`` (of the atoms that are no bulk solvent), ``interference``, ``incoherent``: electrons^2
        per unit cell of |q| in 1/Angstrom.
    shells : Shells
        All, as measured.
    used : Shells
        Those that were integrated.
    factors : dict of str to (float, float)
        Factor and standard deviation by ``krogh_moe``, ``bragg``, ``wilson``, ``factor``, as far as known.
    method : str
        Whose factor is taken.
    units_per_cell : int
        Asymmetric or formula units that intensities are divided by.
    krogh_moe : KroghMoe or None
    wilson : Wilson or None
    comparison : BraggComparison or None
    bragg : BraggIntensities or None
    remarks : list of str
    """

    inventory: UnitCellInventory
    wavelength: float
    scattering: Scattering
    shells: Shells
    used: Shells
    factors: dict[str, tuple[float, float]]
    method: str
    units_per_cell: int
    krogh_moe: KroghMoe | None
    wilson: Wilson | None
    comparison: BraggComparison | None
    bragg: BraggIntensities | None
    remarks: list[str] = field(default_factory=list)

    @property
    def factor(self) -> float:
        """Electrons^2 for a photon / (s sr), per unit cell (or whatever else was asked for)."""
        return self.factors[self.method][0] / self.units_per_cell

    @property
    def error(self) -> float:
        """Standard deviation of the factor."""
        return self.factors[self.method][1] / self.units_per_cell

    def incoherent(self, q: np.ndarray) -> np.ndarray:
        """Incoherent intensity in the units of the map."""
        return self.scattering["incoherent"](q) / self.units_per_cell

    def report(self) -> dict:
        """JSON-ready: docs/data_model.md."""
        return _report(self)


def absolute_scale(dataset: Dataset, session: Session) -> AbsoluteScale:
    """Find the absolute scale of a data set, and put it there.

    Parameters
    ----------
    dataset : Dataset
        Scaled observations. Changed in place: the experiments get scaling models that give coherent intensities in
        electrons^2, the observations the columns that follow from these.
    session : Session
        With the parameters of :data:`dials_diffuse.command_line.diffuse_absolute.phil_scope`, and what was integrated,
        if anything was.

    Raises
    ------
    Sorry
        If the data are on the absolute scale already, or what is needed is missing.
    """
    params = session.params
    if any(experiment.scaling_model is None for experiment in dataset.experiments):
        raise Sorry("The experiments have no scaling models: run dials.diffuse_scale first.")
    if dataset.units == ABSOLUTE_UNITS:
        raise Sorry("The data are in electrons squared already: give the output of dials.diffuse_scale.")
    inventory = inventory_from_params(params.composition, dataset.grid.unit_cell, dataset.grid.space_group)
    logger.info("\n%s", inventory.table())
    bragg = None
    if session.experiment_files:
        bragg = bragg_intensities(dataset, *models_and_reflections(session), _correction(dataset))
    found = _find(dataset, bragg, inventory, params)
    d_min = dataset.grid.d_min
    for experiment in dataset.experiments:
        experiment.scaling_model = absolute_model(experiment, found.factor, found.incoherent, d_min)
    apply_models(dataset)
    return found


def _find(
    dataset: Dataset, bragg: BraggIntensities | None, inventory: UnitCellInventory, params: libtbx.phil.scope_extract
) -> AbsoluteScale:
    """All factors that the data and the parameters allow."""
    grid, options = dataset.grid, params.absolute
    edges = np.linspace(0, 1 / grid.d_min, options.n_shells + 1)
    observations = scaled_observations(dataset)
    voxels = merge_voxels(observations, grid.q(observations.voxels))
    diffuse = diffuse_shells(grid, observations.voxels, voxels, edges)
    nothing = np.stack([np.zeros(options.n_shells)] * 2 + [np.ones(options.n_shells)] * 2)
    shells = Shells(edges, *diffuse, *(bragg_shells(grid, bragg, edges) if bragg else nothing))
    wavelength = float(np.mean([experiment.beam.get_wavelength() for experiment in dataset.experiments]))
    scattering, remarks = _scattering(dataset, inventory, wavelength, params)
    if bragg is None:
        remarks.append(_without_bragg(dataset, options))
    used, words = filled(_between(shells, options), options.completeness)
    remarks += words
    factors, sum_rule = {}, None
    if len(used.q) >= 4:
        sum_rule = _sum_rule(used, scattering, None if bragg else options.b_factor)
        factors["krogh_moe"] = sum_rule.factor, sum_rule.error
    else:
        remarks.append(f"Too few shells between {options.d_max:g} A and the limit of the data for the sum rule.")
    plot, comparison = _checks(grid, bragg, shells, scattering, params)
    if plot:
        factors["wilson"] = plot.factor, plot.error
    if comparison:
        factors["bragg"] = comparison.fit.factor, comparison.fit.error
    if options.factor is not None:
        factors["factor"] = options.factor, 0.0
    method = options.method if options.factor is None else "factor"
    found = AbsoluteScale(
        inventory, wavelength, scattering, shells, used, factors, method, _units_per_cell(inventory, options),
        sum_rule, plot, comparison, bragg, remarks,
    )  # fmt: skip
    _tell(found)
    return found


def _sum_rule(used: Shells, scattering: Scattering, b_factor: float | None) -> KroghMoe:
    """Krogh-Moe's factor; the uncertainty of the interference is in its error."""
    expected = used.mean_of(scattering["coherent"]) + used.mean_of(scattering["incoherent"])
    if b_factor is not None:
        expected -= used.mean_of(lambda q: scattering["ordered"](q) * np.exp(-b_factor * q**2 / 2))
    bonds = used.mean_of(scattering["interference"])
    change = abs(np.sum(used.volume * bonds) / np.sum(used.volume * expected))
    return krogh_moe(used, expected + bonds, float(INTERFERENCE_ERROR * change))


def _between(shells: Shells, options: libtbx.phil.scope_extract) -> Shells:
    """Those from d_max to d_min: their limits are moved to the next of a shell."""
    first = int(np.searchsorted(shells.edges, 1 / options.d_max - 1e-9)) if options.d_max else 0
    last = int(np.searchsorted(shells.edges, 1 / options.d_min + 1e-9)) - 1 if options.d_min else len(shells.q)
    return shells.select(slice(first, max(last, first)))


def _scattering(
    dataset: Dataset, inventory: UnitCellInventory, wavelength: float, params: libtbx.phil.scope_extract
) -> tuple[Scattering, list[str]]:
    """What the unit cell scatters, as functions of |q|, and what is to be said of it."""
    options = params.scattering
    table, anomalous = options.form_factors, options.anomalous
    ordered = UnitCellInventory(
        tuple(part for part in inventory.parts if part.name != "bulk solvent"), inventory.cell_volume
    )
    sensor = _sensor(dataset) if options.sensor_response else None
    functions: Scattering = {
        "coherent": lambda q: coherent_intensity(inventory, q, wavelength, table, anomalous),
        "ordered": lambda q: coherent_intensity(ordered, q, wavelength, table, anomalous),
        "incoherent": lambda q: incoherent_intensity(inventory, q, wavelength, options.recoil_exponent, sensor, table),
        "interference": np.zeros_like,
    }
    wanted, remarks = params.absolute.interference, []
    pairs, source = known_pairs(inventory, [name for name in params.composition.model if name])
    if wanted is True and not pairs:
        raise Sorry(
            "absolute.interference=True needs distances of atoms: give composition.model or composition.sequence."
        )
    if pairs and wanted in (True, libtbx.Auto):
        functions["interference"] = interference(pairs, inventory)
        remarks.append(f"Bonded atoms interfere: distances {source}.")
    return functions, remarks


def _sensor(dataset: Dataset) -> tuple[str, float] | None:
    """Material and thickness in mm of the sensor that data were corrected for; None if there is none."""
    panel = dataset.experiments[0].detector[0]
    known = panel.get_material() and panel.get_thickness() > 0
    if not known or not _correction(dataset).detector_efficiency.use:
        return None
    return panel.get_material(), panel.get_thickness()


def _correction(dataset: Dataset) -> libtbx.phil.scope_extract:
    """The scope ``correction`` with which the data were corrected, or the default if the history does not tell."""
    records = [record for record in dataset.history if record.program == "dials.diffuse_correct"]
    scope = phil_scope("correct")
    return (scope.fetch(source=parse(records[-1].parameters)) if records else scope).extract().correction


def _without_bragg(dataset: Dataset, options: libtbx.phil.scope_extract) -> str:
    """Where Bragg intensities come from if none were integrated, in words."""
    records = [record for record in dataset.history if record.program == "dials.diffuse_extract"]
    scope = phil_scope("extract")
    runs = [scope.fetch(source=parse(record.parameters)).extract() for record in records]
    if runs and all(run.bragg_mask.mode in (None, "none") for run in runs):  # PHIL takes a choice "none" for None
        options.b_factor = None
        return "The Bragg peaks are in the voxels, for they were extracted with bragg_mask.mode=none."
    if options.b_factor is not None:
        return f"Bragg intensities are calculated from the ordered atoms, with B = {options.b_factor:g} A^2."
    if options.factor is not None:
        return "There are no Bragg intensities."
    raise Sorry(
        "The Bragg intensities are not known: give integrated.expt and integrated.refl, too, or absolute.b_factor."
    )


def _checks(
    grid: GlobalGrid,
    bragg: BraggIntensities | None,
    shells: Shells,
    scattering: Scattering,
    params: libtbx.phil.scope_extract,
) -> tuple[Wilson | None, BraggComparison | None]:
    """Wilson's plot, and the comparison with calculated intensities, if there are any."""
    if bragg is None:
        return None, None
    weight, expected = shells.volume * shells.bragg_completeness, shells.mean_of(scattering["ordered"])
    plot = wilson(shells.q, shells.bragg, weight, expected, shells.bragg_strength > STRONG)
    calculated = _calculated(grid, params, 1 / shells.edges[-1])
    if calculated is None:
        return plot, None
    return plot, compare(grid, bragg, calculated, shells.edges)


def _calculated(grid: GlobalGrid, params: libtbx.phil.scope_extract, d_min: float) -> miller.array | None:
    """Calculated |F|^2, if there are any; what composition.model gives none for is left without."""
    check = params.check
    if check.reflections:
        return bragg_comparison.from_reflection_file(check.reflections, check.label, grid)
    if check.model:
        return bragg_comparison.from_model(check.model, grid, d_min)
    model = next((name for name in params.composition.model if name), None)
    if model is None:
        return None
    try:
        return bragg_comparison.from_model(model, grid, d_min)
    except Sorry as error:
        logger.info("No comparison with calculated Bragg intensities: %s", error)
        return None


def _units_per_cell(inventory: UnitCellInventory, options: libtbx.phil.scope_extract) -> int:
    if options.per == "formula":
        if options.formula_units is None:
            raise Sorry("absolute.per=formula needs absolute.formula_units: how many there are in the unit cell.")
        return options.formula_units
    return inventory.asymmetric_units if options.per == "asymmetric_unit" else 1


def _tell(found: AbsoluteScale) -> None:
    """What was found, to the log, with warnings."""
    for remark in found.remarks:
        logger.info("%s", remark)
    rows = [[NAMES[name], f"{factor:.5g}", f"{error:.2g}"] for name, (factor, error) in found.factors.items()]
    logger.info("\n%s", tabulate(rows, ["Electrons^2 per unit cell for a photon / (s sr)", "Factor", "Error"]))
    if found.method not in found.factors:
        needed = {
            "bragg": "give integrated reflections, and check.model or check.reflections",
            "wilson": "give integrated.expt and integrated.refl",
            "krogh_moe": "lower absolute.completeness, or raise absolute.d_max",
        }
        raise Sorry(f"There is no scale by absolute.method={found.method}: {needed[found.method]}.")
    if (rule := found.krogh_moe) is not None:
        logger.info(
            "Sum rule from %.2f to %.2f A: factor changes by %.1f %% over the plateau; errors by counting %.2f %%, "
            "cutoffs %.2f %%, shells %.2f %%, interference %.2f %%",
            1 / found.used.edges[0],
            1 / found.used.edges[-1],
            100 * rule.drift,
            *(
                100 * e / rule.factor
                for e in (rule.counting_error, rule.cutoff_error, rule.shell_error, rule.model_error)
            ),
        )
        if not rule.is_level:
            logger.warning(
                "The factor by the sum rule still changes by %.1f %% over the last half of the volume: it has no "
                "plateau. Causes are background that is left in the data, a wrong composition, bad shells "
                "(absolute.d_min).",
                100 * rule.drift,
            )
    if found.wilson is not None:
        logger.info("Wilson's plot: B = %.2f +- %.2f A^2", found.wilson.b_factor, found.wilson.b_error)
    if found.comparison is not None:
        logger.info(
            "Measured and calculated Bragg intensities: correlation %.3f of %d reflections, B larger by %.2f +- %.2f "
            "A^2",
            found.comparison.correlation,
            found.comparison.reflections,
            found.comparison.fit.b_factor,
            found.comparison.fit.b_error,
        )
        if found.comparison.correlation < CORRELATION:
            logger.warning("They hardly correlate: is the model, or file, of this crystal, in this setting?")
    own = found.factors[found.method][0]
    for name, (factor, error) in found.factors.items():
        if abs(factor / own - 1) > DISAGREEMENT:
            logger.warning(
                "The factor by %s, %.4g +- %.2g, differs from that taken (%s, %.4g) by %+.0f %%.",
                NAMES[name], factor, error, NAMES[found.method], own, 100 * (factor / own - 1),
            )  # fmt: skip
    per = f", divided by {found.units_per_cell}" if found.units_per_cell > 1 else ""
    logger.info("Taken: %s, %.5g +- %.2g%s", NAMES[found.method], own, found.factors[found.method][1], per)


def _report(found: AbsoluteScale) -> dict:
    """See :meth:`AbsoluteScale.report`."""
    shells, factor = found.shells, found.factors[found.method][0]
    scattered = {name: shells.mean_of(function) for name, function in found.scattering.items()}
    columns = {
        "diffuse": factor * shells.diffuse - scattered["incoherent"],
        "diffuse_error": factor * np.sqrt(shells.diffuse_variance),
        "bragg": factor * shells.bragg,
        "bragg_error": factor * np.sqrt(shells.bragg_variance),
        "completeness": shells.completeness,
        "bragg_completeness": shells.bragg_completeness,
        **scattered,
    }
    rows = [
        {
            "d_max": _inverse(low),
            "d_min": _inverse(high),
            **{name: _number(values[i]) for name, values in columns.items()},
        }
        for i, (low, high) in enumerate(zip(shells.edges[:-1], shells.edges[1:]))
    ]
    rule = found.krogh_moe
    return {
        "factor": found.factor,
        "error": found.error,
        "method": found.method,
        "units_per_cell": found.units_per_cell,
        "wavelength": found.wavelength,
        "factors": {name: {"factor": value, "error": error} for name, (value, error) in found.factors.items()},
        "remarks": found.remarks,
        "inventory": [
            {"name": part.name, "numbers": dict(part.numbers), "electrons": part.electrons, "volume": part.volume}
            for part in found.inventory.parts
        ],
        "cell_volume": found.inventory.cell_volume,
        "krogh_moe": None
        if rule is None
        else {
            "d_min": [1 / q for q in rule.q],
            "factors": rule.factors.tolist(),
            "counting_errors": rule.counting_errors.tolist(),
            "plateau": [1 / rule.q[rule.first], 1 / rule.q[-1]],
            "drift": rule.drift,
            "is_level": bool(rule.is_level),
            "errors": {
                "counting": rule.counting_error,
                "cutoffs": rule.cutoff_error,
                "shells": rule.shell_error,
                "interference": rule.model_error,
            },
        },
        "wilson": _plot(found.wilson),
        "comparison": None
        if found.comparison is None
        else {
            "correlation": found.comparison.correlation,
            "reflections": found.comparison.reflections,
            **_plot(found.comparison.fit),
        },
        "shells": rows,
    }


def _plot(plot: Wilson | None) -> dict | None:
    if plot is None:
        return None
    values = {"b_factor": plot.b_factor, "b_error": plot.b_error, "q": plot.q.tolist()}
    return {**values, "logarithm": plot.logarithm.tolist(), "line": plot.line(plot.q).tolist()}


def _inverse(q: float) -> float | None:
    return float(1 / q) if q > 0 else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
