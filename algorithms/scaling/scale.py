"""Scaling of a data set: choice of terms, refinement, rejection of outliers, error model, and what comes of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import libtbx
import libtbx.phil
import numpy as np
from dials.util import tabulate

from dials_diffuse.algorithms.scaling.bad_frames import BadRange, find_bad_frames, in_ranges
from dials_diffuse.algorithms.scaling.error_model import ENOUGH, ErrorModel, error_model_summary, refine_error_model
from dials_diffuse.algorithms.scaling.few_experiments import by_experiment
from dials_diffuse.algorithms.scaling.linearised import CurrentModels, put_factors, scaled_by_factors
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.outliers import REASONS, Outliers, find_outliers, outlier_maps
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions, random_voxels, repeated
from dials_diffuse.algorithms.scaling.reference import Reference
from dials_diffuse.algorithms.scaling.residuals import residual_report
from dials_diffuse.algorithms.scaling.scaler import Cycle, MultiBatchScaler
from dials_diffuse.algorithms.scaling.scaling_data import DataInMemory, DataOnDisk, put_bad_frames, used
from dials_diffuse.algorithms.scaling.selection import Trial, choose_terms
from dials_diffuse.algorithms.scaling.term_report import term_report
from dials_diffuse.dataset import Dataset
from dials_diffuse.log_levels import DETAILED
from dials_diffuse.partitioned_table import PartitionedTable

logger = logging.getLogger("dials.diffuse.scaling")

#: Terms that the report shows once for all sweeps.
OF_DETECTOR = ("detector", "modules")


def scale(dataset: Dataset, params: libtbx.phil.scope_extract, folder: str | os.PathLike | None = None) -> dict:
    """Refine the scaling models of all experiments.

    Observations on disk, or to be worked on by other machines (``mp.method=dask``), are scaled partition by partition:
    a worker holds one at a time. They come out in another order, that of the voxels.

    Parameters
    ----------
    dataset : Dataset
        Corrected observations of one or more sweeps. Changed in place: every experiment gets its scaling model, the
        observations the columns ``inverse_scale_factor``, ``offset.sum.value``, ``flags``.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.command_line.diffuse_scale.phil_scope`.
    folder : path, optional
        Where all workers can write, if the observations are not to be held in memory. They are there afterwards.

    Returns
    -------
    dict
        The report, JSON-ready: docs/data_model.md.

    Raises
    ------
    Sorry
        If there are no observations, or a parameter does not fit them.
    """
    scaling = _Scaling(dataset, params, folder)
    scaling.run()
    scaling.put()
    report = scaling.report()
    scaling.data.finish()
    return report


def works_on_disk(dataset: Dataset, params: libtbx.phil.scope_extract) -> bool:
    """Whether scaling and merging need a folder."""
    return isinstance(dataset.observations, PartitionedTable) or params.mp.method == "dask"


@dataclass
class _Scaling:
    """The state of a scaling: what is kept of the observations, and the models."""

    dataset: Dataset
    params: libtbx.phil.scope_extract
    folder: str | os.PathLike | None = None
    error_model: ErrorModel = ErrorModel()
    trials: list[Trial] = field(default_factory=list)
    fits: list[list[Cycle]] = field(default_factory=list)
    bad_frames: list[BadRange] = field(default_factory=list)
    smoothness: dict[str, float] = field(default_factory=dict)
    errors: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if works_on_disk(self.dataset, self.params):
            self.data = DataOnDisk(self.dataset, self.params, Path(self.folder))
        else:
            self.data = DataInMemory(self.dataset, self.params)
        self.partitions = self.data.partitions
        self.counts = sum(self.partitions.map(partial(by_experiment, len(self.dataset.experiments)), "Observations"))
        self.outliers = Outliers.none(int(self.counts.sum()))
        filename = self.params.reference
        self.reference = None if filename is None else Reference.from_file(filename, self.dataset.grid)
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
            self.names, self.trials = choose_terms(
                self.partitions.viewed(used),
                self.dataset.experiments,
                self.dataset.grid,
                self.params,
                self.error_model,
            )
        self.models = self._new_models(self.names)
        self.error_model = ErrorModel()
        self.smoothness = {}
        self._fit()
        self._find_outliers()
        self.bad_frames = find_bad_frames(
            self._scaled, self.dataset.grid, self.dataset.experiments, self.params.bad_frames
        )
        if self.params.bad_frames.exclude:
            self._exclude_bad_frames()
        self._fit()
        self._find_outliers()
        logger.info("%s", error_model_summary(self.errors))

    def _exclude_bad_frames(self) -> None:
        """As images that the user excludes, so that fine maps do not bring them back; stills have no range."""
        rotating = [bad for bad in self.bad_frames if self.dataset.experiments[bad.experiment].scan is not None]
        excluded = self.data.exclude([[bad.exclude_images] for bad in rotating])
        look = partial(put_bad_frames, partial(in_ranges, ranges=self.bad_frames), self.data.extents, excluded)
        if n := sum(self.partitions.map(look, "Bad frames")):
            logger.info("Frames that fit badly: %d of %d observations left out.", n, self.counts.sum())

    @property
    def _scaled(self) -> VoxelPartitions:
        """What is kept, with the models and the error model applied."""
        return self.partitions.viewed(partial(scaled_by_factors, self.error_model), used)

    def _new_models(self, names: Sequence[str]) -> list[DiffuseScalingModel]:
        scaling, d_min = self.params.scaling, self.dataset.grid.d_min
        return [DiffuseScalingModel.for_experiment(e, names, scaling, d_min) for e in self.dataset.experiments]

    def _fit(self) -> None:
        """Refine the models against what is kept, and apply them to all."""
        experiments, grid = self.dataset.experiments, self.dataset.grid
        kept = self.partitions.viewed(used)
        if self.reference is not None:
            kept = self.reference.joined_to(kept, len(experiments))
        scaler = MultiBatchScaler(kept, experiments, self.models, grid, self.params, self.error_model, self.smoothness)
        scaler.fit()
        self.smoothness = dict(scaler.smoothness.size)
        self.fits.append(scaler.cycles)
        models = CurrentModels(scaler.design, experiments, grid, scaler.parameters)
        for _ in self.partitions.map(partial(put_factors, models), "Applying the models"):
            pass

    def _find_outliers(self) -> None:
        """Refine the error model on what is kept, then find the outliers among all."""
        grid, self.error_model = self.dataset.grid, ErrorModel()
        share = ENOUGH / self.counts.sum()
        sample = self._scaled.gather(partial(random_voxels, grid=grid, share=share, seed=0))
        self.error_model, self.errors = refine_error_model(sample, grid.q(sample.voxels), self.params.error_model)
        if self.params.outlier.reject:
            scaled = self.partitions.viewed(partial(scaled_by_factors, self.error_model))
            self.outliers = find_outliers(scaled, grid, self.params.outlier)

    def put(self) -> None:
        """Put the models into the experiments."""
        parameters = [self.error_model.a, self.error_model.b]
        for experiment, model in zip(self.dataset.experiments, self.models):
            model.configdict["error_model_parameters"] = parameters
            experiment.scaling_model = model

    def report(self) -> dict:
        """What was found, JSON-ready; a table of sweeps goes to the log."""
        experiments = self.dataset.experiments
        in_fit = self._scaled.viewed(repeated)
        n_used = sum(in_fit.map(partial(by_experiment, len(experiments)), "Observations"))
        sweeps = []
        for i, model in enumerate(self.models):
            terms = {term.name: term_report(term) for term in model.terms if term.name not in OF_DETECTOR}
            b = np.array(terms["scale"]["value"])
            counts = {"observations": int(self.counts[i]), "observations_used": int(n_used[i])}
            sweeps.append({**counts, "mean": float(b.mean()), "terms": terms})
        _log_sweeps(sweeps)
        maps = outlier_maps(self.partitions, experiments[0].detector)
        detector = [term_report(term) for term in self.models[0].terms if term.name in OF_DETECTOR]
        return {
            "cycles": [{"fit": i, **asdict(cycle)} for i, fit in enumerate(self.fits) for cycle in fit],
            "terms": {"chosen": list(self.models[0].components), "trials": [asdict(trial) for trial in self.trials]},
            "sweeps": sweeps,
            "detector": detector[0] if detector else None,
            "residuals": residual_report(in_fit, self.dataset.grid, experiments),
            "error_model": self.errors,
            "outliers": {
                "counts": self.outliers.counts,
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
