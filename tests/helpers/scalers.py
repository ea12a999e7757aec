"""The parts of scaling, put together for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.scale import scale
from dials_diffuse.algorithms.scaling.scaler import MultiBatchScaler
from dials_diffuse.dataset import Dataset
from dials_diffuse.parameters import parameters

ALL = ("scale", "absorption", "offset", "detector")


def scaler_of(
    dataset: Dataset, terms: Sequence[str], *assignments: str, error_model: ErrorModel | None = None
) -> MultiBatchScaler:
    """Before the first cycle; ``assignments`` are parameters of dials.diffuse_scale."""
    params = parameters("scale", *assignments)
    models = [
        DiffuseScalingModel.for_experiment(experiment, terms, params.scaling, dataset.grid.d_min)
        for experiment in dataset.experiments
    ]
    observations = GroupedObservations.from_dataset(dataset)
    return MultiBatchScaler(
        observations, dataset.experiments, models, dataset.grid, params, error_model or ErrorModel()
    )


def columns_of(scaler: MultiBatchScaler, name: str, experiment: int = 0) -> slice:
    """Where a term's parameters are among all."""
    (block,) = [b for b in scaler.design.blocks if b.term.name == name and experiment in b.experiments]
    return block.columns


def dense_curvature(scaler: MultiBatchScaler) -> np.ndarray:
    """Of a design that is one part."""
    (block,) = scaler._curvature().blocks
    return block


def scale_counting(dataset: Dataset, terms: str, *assignments: str) -> dict:
    """Scale data of which it is known that nothing but counting makes errors."""
    fixed = ("outlier.reject=False", "error_model.a=1", "error_model.b=0", f"scaling.terms={terms}")
    return scale(dataset, parameters("scale", *fixed, *assignments))


def column(dataset: Dataset, name: str) -> np.ndarray:
    """A column of the observations."""
    return np.array(dataset.observations[name])
