"""Where and when observations deviate from the refined model."""

from __future__ import annotations

import numpy as np
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.error_model import scatter
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.stills import is_still

#: Tiles along the longest edge of a detector; bins of rotation of a sweep; bins of |q|.
TILES, ROTATIONS, SHELLS = 32, 40, 40


def residual_report(observations: GroupedObservations, q: np.ndarray, experiments: ExperimentList) -> dict:
    """Mean residuals in units of their standard deviation, and reduced chi-squared, over places, rotation and |q|.

    Parameters
    ----------
    observations : GroupedObservations
        Scaled; n of m voxels that were observed more than once.
    q : ndarray, shape (m,)
        |q| of the voxels, 1/Angstrom.

    Returns
    -------
    dict
        JSON-ready: ``detector`` (``panels``: edges ``fast`` and ``slow`` of tiles in pixels, and rows of tiles),
        ``phi`` (an entry for each sweep, degrees), ``q``; each with ``mean``, ``chi_squared``.
    """
    deviate, squares, freedom = np.empty((3, len(observations.rows)))
    for part in scatter(observations, q, merge_voxels(observations, q)):
        deviate[part.chosen] = part.residual / np.sqrt(part.variance)
        squares[part.chosen] = part.chi_squared
        freedom[part.chosen] = part.degrees_of_freedom

    def binned(number: np.ndarray, size: int, chosen: np.ndarray | slice = slice(None)) -> dict[str, np.ndarray]:
        n = np.bincount(number, minlength=size)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.bincount(number, deviate[chosen], size) / n
            chi_squared = np.bincount(number, squares[chosen], size) / np.bincount(number, freedom[chosen], size)
        return {"mean": mean, "chi_squared": chi_squared, "observations": n}

    detector = experiments[0].detector
    longest = max(max(panel.get_image_size()) for panel in detector)
    panels = []
    for number, panel in enumerate(detector):
        chosen = np.flatnonzero(observations.panel == number)
        fast, slow = (np.linspace(0, n, int(np.ceil(TILES * n / longest)) + 1) for n in panel.get_image_size())
        columns, rows = len(fast) - 1, len(slow) - 1
        x, y = (
            np.clip((observations.position[chosen, i] / edges[-1] * (len(edges) - 1)).astype(int), 0, len(edges) - 2)
            for i, edges in enumerate((fast, slow))
        )
        found = binned(y * columns + x, rows * columns, chosen)
        tiles = {name: _jsonable(values.reshape(rows, columns)) for name, values in found.items()}
        panels.append({"panel": number, "fast": fast.tolist(), "slow": slow.tolist(), **tiles})
    by_phi = []
    for i, experiment in enumerate(experiments):
        chosen = np.flatnonzero(observations.experiment == i)
        if is_still(experiment) or len(chosen) == 0:
            continue
        begin, end = experiment.scan.get_array_range()
        number = ((observations.position[chosen, 2] - begin) / (end - begin) * ROTATIONS).astype(int)
        found = binned(np.clip(number, 0, ROTATIONS - 1), ROTATIONS, chosen)
        start, stop = experiment.scan.get_oscillation_range()
        phi = start + (stop - start) * (np.arange(ROTATIONS) + 0.5) / ROTATIONS
        by_phi.append({"experiment": i, "phi": phi.tolist(), **{name: _jsonable(v) for name, v in found.items()}})
    shell = np.minimum((q / q.max() * SHELLS).astype(int), SHELLS - 1)
    found = binned(observations.spread(shell), SHELLS)
    by_q = {"q": (q.max() * (np.arange(SHELLS) + 0.5) / SHELLS).tolist(), **{n: _jsonable(v) for n, v in found.items()}}
    return {"detector": {"panels": panels}, "phi": by_phi, "q": by_q}


def _jsonable(values: np.ndarray) -> list:
    """Lists with None for what is no number, rounded."""
    rounded = np.round(values.astype(float), 5).astype(object)
    rounded[~np.isfinite(values.astype(float))] = None
    return rounded.tolist()
