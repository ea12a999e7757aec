"""From counts to intensities: response, background and variance of every observation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import libtbx.phil
import numpy as np
from dials.util import tabulate
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.correction.background import BackgroundMap, background_maps
from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.shells import (
    BACKGROUND,
    BINS,
    COUNTS,
    NUMBER,
    RESPONSE,
    radial_bins,
    radial_sums,
    shell_intensity,
)
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy
from dials_diffuse.log_levels import DETAILED, experiments_name
from dials_diffuse.table_file import Columns

logger = logging.getLogger("dials.diffuse.correction")

#: Observations whose geometry is computed at once, to bound the temporaries.
CHUNK = 1 << 20

#: Sums of :func:`dials_diffuse.algorithms.correction.shells.radial_sums`, by experiment.
Sums = dict[int, np.ndarray]


def correct(
    dataset: Dataset, params: libtbx.phil.scope_extract, corrections: CombinedCorrection | None = None
) -> Dataset:
    """Add response, background, intensity and variance to observations in memory.

    The expected photons of an observation are N = g I + B: I is the intensity (the crystal's cross-section times what
    the scaling finds), g = exposure x product of the corrections at the observation's mean pixel, B the background's
    rate there x exposure. Hence I = (N - B) / g, with variance (E[N] + Var(B)) / g^2. E[N] comes from the mean
    intensity of the observation's resolution shell in its experiment, never from its own N: weights from observed
    counts would favour observations that are low by chance.

    Parameters
    ----------
    dataset : Dataset
        As extracted. Changed in place: the columns marked "correct" in docs/data_model.md are added; observations where
        the background is not known (no valid background pixel nearby) are left out.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.correct.phil_scope`.
    corrections : CombinedCorrection, optional
        Made from ``params.correction`` if None; give one to read its summary afterwards.

    Returns
    -------
    Dataset
        The same object.

    Raises
    ------
    Sorry
        If a correction is not a positive number, a plug-in fails, or a background does not fit.
    """
    corrections = corrections or CombinedCorrection(params.correction)
    maps = background_maps(dataset.experiments, params)
    added = responses(
        _columns(dataset, ("id", "panel", "exposure", "xyzobs.px.value")),
        dataset.experiments,
        corrections,
        None if maps is None else maps.__getitem__,
    )
    _add(dataset, added)
    known = np.isfinite(added["background.sum.value"])
    warn_of_unknown(np.count_nonzero(~known), len(known))
    if not known.all():
        dataset.observations = dataset.observations.select(flumpy.from_numpy(known))
    columns = _columns(dataset, ("id", *FOR_INTENSITIES))
    bins = voxel_bins(dataset.grid, miller_index_to_numpy(dataset.observations["miller_index"]))
    means = shell_intensities(sums_by_experiment(columns, bins), params.variance.shells, len(dataset.experiments))
    _add(dataset, intensities(columns, means[columns["id"], bins]))
    return dataset


#: Columns that intensities are made of.
FOR_INTENSITIES = ("counts", "response", "background.sum.value", "background.sum.variance")


def _columns(dataset: Dataset, names: tuple[str, ...]) -> Columns:
    table = dataset.observations
    return {name: flumpy.to_numpy(table[name]) for name in names}


def _add(dataset: Dataset, columns: Columns) -> None:
    for name, values in columns.items():
        dataset.observations[name] = flumpy.from_numpy(values.astype(float))


def responses(
    columns: Columns,
    experiments: ExperimentList,
    corrections: CombinedCorrection,
    background: Callable[[int], BackgroundMap] | None,
) -> Columns:
    """Response and background of observations.

    Parameters
    ----------
    columns : dict of str to ndarray
        With ``id``, ``panel``, ``exposure``, ``xyzobs.px.value``.
    experiments : ExperimentList
    corrections : CombinedCorrection
    background : callable or None
        Gives the background of an experiment by its number; None if there is none.

    Returns
    -------
    dict of str to ndarray, float32
        ``response``, exposure x product of the corrections, e.g. in pixel s sr; ``background.sum.value`` and
        ``.variance``, NaN where the background is not known.
    """
    exposure = columns["exposure"].astype(float)
    response, value, variance = exposure.copy(), np.zeros(len(exposure)), np.zeros(len(exposure))
    for experiment, rows, geometry in panels(columns, experiments):
        response[rows] *= corrections.factor(geometry)
        if background is not None:
            angle = geometry.rotation_angle
            x, y = geometry.xyz[:, 0], geometry.xyz[:, 1]
            rate, rate_variance = background(experiment).at(
                geometry.panel_index, x, y, np.zeros(len(rows)) if angle is None else angle
            )
            value[rows] = rate * exposure[rows]
            variance[rows] = rate_variance * exposure[rows] ** 2
    return {
        "response": response.astype(np.float32),
        "background.sum.value": value.astype(np.float32),
        "background.sum.variance": variance.astype(np.float32),
    }


def warn_of_unknown(unknown: int, rows: int) -> None:
    """Say how many of all observations are left out because their background is not known."""
    if unknown:
        logger.warning(
            "%d of %d observations are left out: no pixel of the background images measured near them.", unknown, rows
        )


def voxel_bins(grid: GlobalGrid, index: np.ndarray) -> np.ndarray:
    """Bins of :func:`dials_diffuse.algorithms.correction.shells.radial_bins` of voxels, shape (n, 3)."""
    return radial_bins(grid.q(index), 1 / grid.d_min)


def sums_by_experiment(columns: Columns, bins: np.ndarray) -> Sums:
    """Sums over bins of |q| for each experiment.

    Parameters
    ----------
    columns : dict of str to ndarray, shape (n,)
        With ``id`` and :data:`FOR_INTENSITIES`.
    bins : ndarray, shape (n,), int
    """
    return {
        experiment: radial_sums(
            columns["counts"][rows], columns["background.sum.value"][rows], columns["response"][rows], bins[rows]
        )
        for experiment, rows in rows_by_key(columns["id"])
    }


def shell_intensities(sums: Sums, shells: int, experiments: int) -> np.ndarray:
    """Mean intensity of the shell of each bin, shape (experiments, BINS)."""
    means = np.zeros((experiments, BINS))
    for experiment, of_experiment in sums.items():
        means[experiment] = shell_intensity(of_experiment, shells)
    return means


def intensities(columns: Columns, mean: np.ndarray) -> Columns:
    """Intensities and variances of observations.

    Parameters
    ----------
    columns : dict of str to ndarray, shape (n,)
        With :data:`FOR_INTENSITIES`.
    mean : ndarray, shape (n,)
        Mean intensity of each one's shell.

    Returns
    -------
    dict of str to ndarray, float32
        ``intensity.sum.value`` and ``.variance``.
    """
    counts, response, background, background_variance = (columns[name].astype(float) for name in FOR_INTENSITIES)
    expected = mean * response + background
    return {
        "intensity.sum.value": ((counts - background) / response).astype(np.float32),
        "intensity.sum.variance": ((expected + background_variance) / response**2).astype(np.float32),
    }


def panels(columns: Columns, experiments: ExperimentList) -> Iterator[tuple[int, np.ndarray, PixelGeometry]]:
    """Observations panel by panel, in chunks.

    Parameters
    ----------
    columns : dict of str to ndarray
        With ``id``, ``panel``, ``xyzobs.px.value``.
    experiments : ExperimentList

    Yields
    ------
    experiment : int
        Index of the experiment.
    rows : ndarray, shape (n,), int
        Of the observations.
    geometry : PixelGeometry
        Where they were made.
    """
    panel_count = max(len(experiment.detector) for experiment in experiments)
    key = columns["id"].astype(np.int64)
    key *= panel_count
    key += columns["panel"].astype(np.int64)
    xyz = columns["xyzobs.px.value"]
    for group, rows_of_group in rows_by_key(key):
        experiment, panel_index = divmod(group, panel_count)
        for begin in range(0, len(rows_of_group), CHUNK):
            rows = rows_of_group[begin : begin + CHUNK]
            yield experiment, rows, PixelGeometry(experiments[experiment], panel_index, xyz[rows].astype(float))


def rows_by_key(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The different keys, increasing, and the rows of each, shape (n,), int: sorted once for however many keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for rows in np.split(order, starts) if len(order) else ():
        yield int(keys[rows[0]]), rows


def report(dataset: Dataset, corrections: CombinedCorrection) -> dict:
    """As :func:`report_of_sums`, for observations in memory."""
    ids = flumpy.to_numpy(dataset.observations["id"])
    columns = _columns(dataset, FOR_INTENSITIES) | {"id": ids}
    sums = sums_by_experiment(columns, np.zeros(len(ids), dtype=np.int64))
    return report_of_sums(sums, len(dataset.experiments), corrections.summary())


def report_of_sums(sums: Sums, n: int, factors: dict[str, dict[str, float]]) -> dict:
    """Write what was done to the log, and return it ready for JSON.

    Parameters
    ----------
    sums : dict of int to ndarray, shape (4, BINS)
        By experiment.
    n : int
        Number of experiments.
    factors : dict
        Of :meth:`CombinedCorrection.summary`.

    Returns
    -------
    dict
        ``corrections``: minimum, mean and maximum of each factor; ``experiments``: for each the number of observations,
        photons, expected background photons, and the mean intensity.
    """
    rows = [[name, *(f"{value:.4g}" for value in values.values())] for name, values in factors.items()]
    header = ["correction", "minimum", "mean", "maximum"]
    logger.info("\nCorrections over all observations:\n%s", tabulate(rows, header))
    totals = [sums[i].sum(axis=1) if i in sums else np.zeros(4) for i in range(n)]
    experiments = [
        {
            "observations": int(total[NUMBER]),
            "photons": float(total[COUNTS]),
            "background": float(total[BACKGROUND]),
            "mean_intensity": float((total[COUNTS] - total[BACKGROUND]) / total[RESPONSE]) if total[NUMBER] else None,
        }
        for total in totals
    ]
    if low := [i for i, e in enumerate(experiments) if e["background"] > e["photons"]]:
        logger.warning(
            "Fewer photons than background in %s: are the exposure times of both right? (background_model.scale "
            "corrects for a different beam.)",
            experiments_name(low),
        )
    lines = [[e["observations"], e["photons"], e["background"], e["mean_intensity"] or 0] for e in experiments]
    columns = ["observations", "photons", "of these background", "mean intensity"]
    if n <= DETAILED:
        rows = [[i, line[0], *(f"{x:.4g}" for x in line[1:])] for i, line in enumerate(lines)]
        logger.info("\nExperiments:\n%s", tabulate(rows, ["experiment", *columns]))
    else:
        shares = {"least": 0, "quarter": 25, "median": 50, "three quarters": 75, "most": 100}
        rows = [[name, *(f"{x:.4g}" for x in np.percentile(lines, share, axis=0))] for name, share in shares.items()]
        logger.info("\nExperiments:\n%s", tabulate(rows, [f"of {n} experiments", *columns]))
    return {"corrections": factors, "experiments": experiments}
