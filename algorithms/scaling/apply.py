"""The refined models applied to observations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy

from dials_diffuse.algorithms.scaling.design import Design, Values
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy

#: Observations at a time.
CHUNK = 200_000


def apply_models(dataset: Dataset) -> None:
    """Put what the experiments' scaling models say into the observations.

    Parameters
    ----------
    dataset : Dataset
        Corrected observations of experiments with scaling models. Gets the columns ``inverse_scale_factor`` and
        ``offset.sum.value``, and ``flags``, all 0, if there are none.
    """
    table = dataset.observations
    response = flumpy.to_numpy(table["response"])
    factor, offset = np.empty((2, len(table)))
    for _, rows, values in _chunks(dataset):
        factor[rows] = values.outer * values.inner
        offset[rows] = response[rows] * values.outer * values.offset
    table["inverse_scale_factor"] = flumpy.from_numpy(factor)
    table["offset.sum.value"] = flumpy.from_numpy(offset)
    if "flags" not in table:
        table["flags"] = flex.size_t(len(table), 0)


def term_values(dataset: Dataset) -> dict[str, np.ndarray]:
    """Values of every term at every observation, shape (n,) each, by the terms' names."""
    found: dict[str, np.ndarray] = {}
    for names, rows, values in _chunks(dataset):
        for name, of_term in zip(names, values.terms.T):
            found.setdefault(name, np.empty(len(dataset.observations)))[rows] = of_term
    return found


def _chunks(dataset: Dataset) -> Iterator[tuple[list[str], slice, Values]]:
    table = dataset.observations
    design = Design([experiment.scaling_model for experiment in dataset.experiments])
    for begin in range(0, len(table), CHUNK):
        part = table[begin : begin + CHUNK]
        voxels = dataset.grid.map_to_asu(miller_index_to_numpy(part["miller_index"]))  # |q| to the same last digit
        placed = design.place(
            dataset.experiments,
            flumpy.to_numpy(part["id"]),
            flumpy.to_numpy(part["panel"]).astype(np.int32),
            flumpy.to_numpy(part["xyzobs.px.value"]),
            dataset.grid.q(voxels),
        )
        rows = slice(begin, begin + len(part))
        yield design.names, rows, placed.values(design.parameters)
