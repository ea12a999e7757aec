"""Scaling of a data set: choice of terms, refinement, rejection of outliers, error model, and what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import libtbx
import libtbx.phil
import numpy as np
from dials.util import tabulate
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.apply import apply_models
from dials_diffuse.algorithms.scaling.bad_frames import BadRange, find_bad_frames, in_ranges
from dials_diffuse.algorithms.scaling.error_model import ErrorModel, error_model_summary, refine_error_model
from dials_diffuse.algorithms.scaling.exclude_images import exclude_images
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.outliers import REASONS, Outliers, find_outliers, outlier_maps
from dials_diffuse.algorithms.scaling.reference import Reference
from dials_diffuse.algorithms.scaling.residuals import residual_report
from dials_diffuse.algorithms.scaling.scaler import Cycle, MultiBatchScaler
from dials_diffuse.algorithms.scaling.selection import Trial, choose_terms
from dials_diffuse.algorithms.scaling.term_report import term_report
from dials_diffuse.dataset import Dataset
from dials_diffuse.log_levels import DETAILED

logger = logging.getLogger("dials.diffuse.scaling")

#: Terms that the report shows once for all sweeps.
OF_DETECTOR = ("detector", "modules")


def scale(dataset: Dataset, params: libtbx.phil.scope_extract) -> dict:
    """Refine the scaling models of all experiments.

    Parameters
    ----------
    dataset : Dataset
        Corrected observations of one or more sweeps. Changed in place: every experiment gets its scaling model, the
        observations the columns ``inverse_scale_factor``, ``offset.sum.value``, ``flags``.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.command_line.diffuse_scale.phil_scope`.

    Returns
    -------
    dict
        The report, JSON-ready: docs/data_model.md.

    Raises
    ------
    Sorry
        If there are no observations, or a parameter does not fit them.
    """
    scaling = _Scaling(dataset, params)
    scaling.run()
    scaling.put()
    return scaling.report()


@dataclass
class _Scaling:
    """The state of a scaling: what is kept of the observations, and the models."""

    dataset: Dataset
    params: libtbx.phil.scope_extract
    error_model: ErrorModel = ErrorModel()
    trials: list[Trial] = field(default_factory=list)
    fits: list[list[Cycle]] = field(default_factory=list)
    bad_frames: list[BadRange] = field(default_factory=list)
    smoothness: dict[str, float] = field(default_factory=dict)
    errors: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        excluded = exclude_images(self.dataset, self.params.exclude_images)
        self.observations = GroupedObservations.from_dataset(self.dataset, ~excluded)
        filename = self.params.reference
        self.reference = None if filename is None else Reference.from_file(filename, self.dataset.grid)
        self.outliers = Outliers(np.zeros(len(self.observations.rows), dtype=np.int8))
        self.in_bad_frames = np.zeros(len(self.observations.rows), dtype=bool)
        names = self.params.scaling.terms
        if names is libtbx.Auto:
            self.names = None
        else:  # b is always there
            self.names = list(dict.fromkeys(["scale", *" ".join(names or []).replace(",", " ").split()]))
        self.models = self._new_models(["scale"])

    def run(self) -> None:
        """Refine, reject, and refine again."""
        if self.names is None:
            self._fit()
            self._find_outliers()
            used = self.observations.select(self.kept)
            self.names, self.trials = choose_terms(
                used, self.dataset.experiments, self.dataset.grid, self.params, self.error_model
            )
        self.models = self._new_models(self.names)
        self.error_model = ErrorModel()
        self.smoothness = {}
        self._fit()
        self._find_outliers()
        self.bad_frames = find_bad_frames(
            self.scaled, self._q(self.scaled), self.dataset.experiments, self.params.bad_frames
        )
        if self.params.bad_frames.exclude:
            self._exclude_bad_frames()
        self._fit()
        self._find_outliers()
        logger.info("%s", error_model_summary(self.errors))

    def _exclude_bad_frames(self) -> None:
        """As images that the user excludes, so that fine maps do not bring them back; stills have no range."""
        rotating = [bad for bad in self.bad_frames if self.dataset.experiments[bad.experiment].scan is not None]
        excluded = exclude_images(self.dataset, [[bad.exclude_images] for bad in rotating])
        self.in_bad_frames = in_ranges(self.observations, self.bad_frames) | excluded[self.observations.rows]

    @property
    def kept(self) -> np.ndarray:
        """Observations that count, shape (n,), bool."""
        return self.outliers.kept & ~self.in_bad_frames

    def _new_models(self, names: Sequence[str]) -> list[DiffuseScalingModel]:
        scaling, d_min = self.params.scaling, self.dataset.grid.d_min
        return [DiffuseScalingModel.for_experiment(e, names, scaling, d_min) for e in self.dataset.experiments]

    def _q(self, observations: GroupedObservations) -> np.ndarray:
        return self.dataset.grid.q(observations.voxels)

    def _fit(self) -> None:
        """Refine the models against what is kept, and apply them to all."""
        experiments, grid = self.dataset.experiments, self.dataset.grid
        used = self.observations.select(self.kept)
        if self.reference is not None:
            used = self.reference.joined_to(used, len(experiments))
        scaler = MultiBatchScaler(used, experiments, self.models, grid, self.params, self.error_model, self.smoothness)
        scaler.fit()
        self.smoothness = dict(scaler.smoothness.size)
        self.fits.append(scaler.cycles)
        self.factor, self.offset = scaler.evaluate(self.observations)

    def _find_outliers(self) -> None:
        """Refine the error model on what is kept, then find the outliers among all."""
        scaled = self.observations.scaled(self.factor, self.offset, ErrorModel())
        self.scaled = scaled.select(self.kept)
        self.error_model, self.errors = refine_error_model(self.scaled, self._q(self.scaled), self.params.error_model)
        scaled = self.observations.scaled(self.factor, self.offset, self.error_model)
        if self.params.outlier.reject:
            self.outliers = find_outliers(scaled, self.dataset.grid, self.params.outlier)
        self.scaled = scaled.select(self.kept)

    def put(self) -> None:
        """Put the models, the scales and the flags into the data set."""
        parameters = [self.error_model.a, self.error_model.b]
        for experiment, model in zip(self.dataset.experiments, self.models):
            model.configdict["error_model_parameters"] = parameters
            experiment.scaling_model = model
        apply_models(self.dataset)
        table = self.dataset.observations
        for flag, chosen in (
            (table.flags.outlier_in_scaling, ~self.outliers.kept),
            (table.flags.excluded_for_scaling, self.in_bad_frames),
        ):
            rows = np.zeros(len(table), dtype=bool)
            rows[self.observations.rows[chosen]] = True
            table.set_flags(flumpy.from_numpy(rows), flag)

    def report(self) -> dict:
        """What was found, JSON-ready; a table of sweeps goes to the log."""
        experiments = self.dataset.experiments
        repeated = self.scaled.repeated()
        observations, used = (
            np.bincount(group.experiment, minlength=len(experiments)) for group in (self.observations, repeated)
        )
        sweeps = []
        for i, model in enumerate(self.models):
            terms = {term.name: term_report(term) for term in model.terms if term.name not in OF_DETECTOR}
            b = np.array(terms["scale"]["value"])
            counts = {"observations": int(observations[i]), "observations_used": int(used[i])}
            sweeps.append({**counts, "mean": float(b.mean()), "terms": terms})
        _log_sweeps(sweeps)
        maps = outlier_maps(self.observations, self.outliers, experiments[0].detector)
        detector = [term_report(term) for term in self.models[0].terms if term.name in OF_DETECTOR]
        return {
            "cycles": [{"fit": i, **asdict(cycle)} for i, fit in enumerate(self.fits) for cycle in fit],
            "terms": {"chosen": list(self.models[0].components), "trials": [asdict(trial) for trial in self.trials]},
            "sweeps": sweeps,
            "detector": detector[0] if detector else None,
            "residuals": residual_report(repeated, self._q(repeated), experiments) if len(repeated.rows) else {},
            "error_model": self.errors,
            "outliers": {
                "counts": self.outliers.counts(),
                "detector": {
                    reason: [{"panel": m["panel"], "fast": m["x"], "slow": m["y"], "number": m[reason]} for m in maps]
                    for reason in REASONS[1:]
                },
                "bad_frames": [asdict(bad) for bad in self.bad_frames],
            },
        }


def _log_sweeps(sweeps: list[dict]) -> None:
    """A line for every sweep; a summary if they are many."""
    lines = []
    for sweep in sweeps:
        b, error = np.array(sweep["terms"]["scale"]["value"]), np.median(sweep["terms"]["scale"]["error"])
        lines.append([sweep["observations"], sweep["observations_used"], b.mean(), b.min(), b.max(), error])
    columns = ["Observations", "Used in the fit", "Mean b", "Lowest", "Highest", "Median error"]
    if len(sweeps) <= DETAILED:
        rows = [[i, *line[:2], *(f"{x:.4f}" for x in line[2:])] for i, line in enumerate(lines)]
        logger.info("\n%s", tabulate(rows, ["Sweep", *columns]))
        return
    shares = {"least": 0, "quarter": 25, "median": 50, "three quarters": 75, "most": 100}
    rows = [[name, *(f"{x:.5g}" for x in np.percentile(lines, share, axis=0))] for name, share in shares.items()]
    logger.info("\n%s", tabulate(rows, [f"Of {len(sweeps)} sweeps", *columns]))
