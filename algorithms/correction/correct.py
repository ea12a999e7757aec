"""From counts to intensities: response, background and variance of every observation."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import libtbx.phil
import numpy as np
from dials.util import tabulate
from dxtbx import flumpy

from dials_diffuse.algorithms.correction.background import background_maps
from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.log_levels import DETAILED, experiments_name

logger = logging.getLogger("dials.diffuse.correction")

#: Observations whose geometry is computed at once, to bound the temporaries.
CHUNK = 1 << 20

#: Fewer observations, or photons above the background, than this do not make a resolution shell: weights that follow
#: the noise of n photons bias a mean over many such shells (of weak stills, say) by 1 / n.
MIN_SHELL = 100


def correct(
    dataset: Dataset, params: libtbx.phil.scope_extract, corrections: CombinedCorrection | None = None
) -> Dataset:
    """Add response, background, intensity and variance to observations.

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
    add_response(dataset, corrections)
    add_background(dataset, params)
    add_intensity(dataset, params.variance.shells)
    return dataset


def add_response(dataset: Dataset, corrections: CombinedCorrection) -> None:
    """Add the column ``response``: exposure x product of the corrections, e.g. in pixel s sr."""
    observations = dataset.observations
    response = flumpy.to_numpy(observations["exposure"]).astype(float)
    for _, rows, geometry in panels(dataset):
        response[rows] *= corrections.factor(geometry)
    observations["response"] = flumpy.from_numpy(response)


def add_background(dataset: Dataset, params: libtbx.phil.scope_extract) -> None:
    """Add the columns ``background.sum.value`` and ``.variance``, zeros where no background is given."""
    observations = dataset.observations
    value, variance = np.zeros(len(observations)), np.zeros(len(observations))
    exposure = flumpy.to_numpy(observations["exposure"])
    maps = background_maps(dataset.experiments, params)
    if maps is not None:
        for experiment, rows, geometry in panels(dataset):
            angle = geometry.rotation_angle
            x, y = geometry.xyz[:, 0], geometry.xyz[:, 1]
            rate, rate_variance = maps[experiment].at(
                geometry.panel_index, x, y, np.zeros(len(rows)) if angle is None else angle
            )
            value[rows] = rate * exposure[rows]
            variance[rows] = rate_variance * exposure[rows] ** 2
    observations["background.sum.value"] = flumpy.from_numpy(value)
    observations["background.sum.variance"] = flumpy.from_numpy(variance)
    known = np.isfinite(value)
    if not known.all():
        logger.warning(
            "%d of %d observations are left out: no pixel of the background images measured near them.",
            np.count_nonzero(~known),
            len(known),
        )
        dataset.observations = observations.select(flumpy.from_numpy(known))


def add_intensity(dataset: Dataset, shells: int) -> None:
    """Add the columns ``intensity.sum.value`` and ``.variance``."""
    observations = dataset.observations
    counts, response, background, background_variance = (
        flumpy.to_numpy(observations[name])
        for name in ("counts", "response", "background.sum.value", "background.sum.variance")
    )
    index = miller_index_to_numpy(observations["miller_index"])
    expected = np.empty(len(observations))
    for _, rows in rows_by_key(flumpy.to_numpy(observations["id"])):
        q = dataset.grid.q(index[rows])
        expected[rows] = expected_counts(counts[rows], background[rows], response[rows], q, shells)
    observations["intensity.sum.value"] = flumpy.from_numpy((counts - background) / response)
    observations["intensity.sum.variance"] = flumpy.from_numpy((expected + background_variance) / response**2)


def expected_counts(
    counts: np.ndarray, background: np.ndarray, response: np.ndarray, q: np.ndarray, shells: int
) -> np.ndarray:
    """Expected photons g I + B of observations, with I the mean intensity of their resolution shell.

    I = sum (N - B) / sum g over the shell; a shell where that is less than one photon is given one, so that no variance
    is zero.

    Parameters
    ----------
    counts, background : ndarray, shape (n,), float
        N and B in photons.
    response : ndarray, shape (n,), float
        g.
    q : ndarray, shape (n,), float
        |q| in 1/Angstrom.
    shells : int
        Of equal numbers of observations, but each of not fewer than :data:`MIN_SHELL`, and of as many photons: those
        that, without background, would be known as well (excess^2 / counts).

    Returns
    -------
    ndarray, shape (n,), float
    """
    total_counts, total_excess = counts.sum(), max(float(np.sum(counts - background)), 0.0)
    photons = total_excess**2 / max(total_counts, 1.0)
    shells = max(min(shells, len(q) // MIN_SHELL, int(photons / MIN_SHELL)), 1)
    edges = np.quantile(q, np.linspace(0, 1, shells + 1)[1:-1])
    shell = np.searchsorted(edges, q, side="right")
    excess = np.bincount(shell, counts - background, shells)
    total = np.bincount(shell, response, shells)
    intensity = np.divide(np.maximum(excess, 1.0), total, out=np.zeros(shells), where=total > 0)
    return intensity[shell] * response + background


def panels(dataset: Dataset) -> Iterator[tuple[int, np.ndarray, PixelGeometry]]:
    """Observations panel by panel, in chunks.

    Yields
    ------
    experiment : int
        Index of the experiment.
    rows : ndarray, shape (n,), int
        Of the observations.
    geometry : PixelGeometry
        Where they were made.
    """
    observations = dataset.observations
    panel_count = max(len(experiment.detector) for experiment in dataset.experiments)
    key = flumpy.to_numpy(observations["id"]).astype(np.int64)
    key *= panel_count
    key += flumpy.to_numpy(observations["panel"].as_int())
    xyz = flumpy.to_numpy(observations["xyzobs.px.value"])
    for group, rows_of_group in rows_by_key(key):
        experiment, panel_index = divmod(group, panel_count)
        for begin in range(0, len(rows_of_group), CHUNK):
            rows = rows_of_group[begin : begin + CHUNK]
            yield experiment, rows, PixelGeometry(dataset.experiments[experiment], panel_index, xyz[rows])


def rows_by_key(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The different keys, increasing, and the rows of each, shape (n,), int: sorted once for however many keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for rows in np.split(order, starts) if len(order) else ():
        yield int(keys[rows[0]]), rows


def report(dataset: Dataset, corrections: CombinedCorrection) -> dict:
    """Write what was done to the log, and return it ready for JSON.

    Returns
    -------
    dict
        ``corrections``: minimum, mean and maximum of each factor; ``experiments``: for each the number of observations,
        photons, expected background photons, and the mean intensity.
    """
    factors = corrections.summary()
    rows = [[name, *(f"{value:.4g}" for value in values.values())] for name, values in factors.items()]
    header = ["correction", "minimum", "mean", "maximum"]
    logger.info("\nCorrections over all observations:\n%s", tabulate(rows, header))
    observations = dataset.observations
    ids = flumpy.to_numpy(observations["id"])
    n = len(dataset.experiments)
    counts, background, response = (
        np.bincount(ids, flumpy.to_numpy(observations[name]), n)
        for name in ("counts", "background.sum.value", "response")
    )
    experiments = [
        {
            "observations": int(number),
            "photons": float(counts[i]),
            "background": float(background[i]),
            "mean_intensity": float((counts[i] - background[i]) / response[i]) if number else None,
        }
        for i, number in enumerate(np.bincount(ids, minlength=n))
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
