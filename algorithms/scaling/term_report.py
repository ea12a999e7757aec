"""The refined terms over their variables, for people and plots."""

from __future__ import annotations

import numpy as np

from dials_diffuse.algorithms.scaling.axis import dense_basis
from dials_diffuse.algorithms.scaling.modules_term import ModulesTerm
from dials_diffuse.algorithms.scaling.term import Term

#: Samples along the axes of terms with one, two, three of them: what three dimensions show is coarser.
SAMPLES = {1: 200, 2: 40, 3: 15}


def term_report(term: Term) -> dict:
    """A term's values on a grid of its variables, JSON-ready.

    Returns
    -------
    dict
        ``value`` (and ``error``, the standard deviation of the nearest knots', of a term with one axis), as lists with
        the last axis outermost, and the samples of each axis by its name. Of modules ``tiles``, with ``panel``,
        ``fast`` and ``slow`` (ranges in pixels), ``value``, ``error``. Always ``parameters``, ``standard_deviations``.
    """
    parameters = np.asarray(term.parameters)
    errors = np.zeros(len(parameters)) if term.parameter_esds is None else np.asarray(term.parameter_esds)
    report: dict = {"parameters": parameters.tolist(), "standard_deviations": errors.tolist()}
    if isinstance(term, ModulesTerm):
        return {**report, "tiles": _tiles(term, parameters, errors)}
    if not term.axes:
        return {**report, "value": parameters.tolist(), "error": errors.tolist()}
    value, error = parameters, errors**2
    for axis in term.axes:  # each time the fastest axis is turned to the front
        samples = axis.samples(SAMPLES[len(term.axes)])
        basis = dense_basis(axis, samples)
        value = basis @ value.reshape(-1, axis.n_params).T
        error = basis @ error.reshape(-1, axis.n_params).T
        report[axis.coordinate] = samples.tolist()
    shape = [SAMPLES[len(term.axes)]] * len(term.axes)
    report["value"] = value.reshape(shape).tolist()
    if len(term.axes) == 1:
        report["error"] = np.sqrt(error).ravel().tolist()
    return report


def _tiles(term: ModulesTerm, parameters: np.ndarray, errors: np.ndarray) -> list[dict]:
    tiles = []
    for panel, (fast, slow, width, height) in enumerate(term.tiles.tolist()):
        for begin in range(0, slow, height):
            for left in range(0, fast, width):
                extent = {"fast": [left, min(left + width, fast)], "slow": [begin, min(begin + height, slow)]}
                number = len(tiles)
                value = {"value": float(parameters[number]), "error": float(errors[number])}
                tiles.append({"panel": panel, **extent, **value})
    return tiles
