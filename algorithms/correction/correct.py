"""From counts to intensities: response, background and variance of every observation."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import tabulate
from dxtbx import flumpy

from dials_diffuse.algorithms.correction.background import background_maps
from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy

logger = logging.getLogger("dials.diffuse.correction")

#: Observations whose geometry is computed at once, to bound the temporaries.
CHUNK = 1 << 20

#: Fewer observations than this do not make a resolution shell.
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
    q = dataset.grid.q(miller_index_to_numpy(observations["miller_index"]))
    ids = flumpy.to_numpy(observations["id"])
    expected = np.empty(len(observations))
    for experiment in np.unique(ids):
        rows = ids == experiment
        expected[rows] = expected_counts(counts[rows], background[rows], response[rows], q[rows], shells)
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
        Of equal numbers of observations, but not fewer than :data:`MIN_SHELL` each.

    Returns
    -------
    ndarray, shape (n,), float
    """
    shells = max(min(shells, len(q) // MIN_SHELL), 1)
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
    ids = flumpy.to_numpy(observations["id"]).astype(np.int64)
    panel = flumpy.to_numpy(flex.int(observations["panel"].as_int())).astype(np.int64)
    xyz = flumpy.to_numpy(observations["xyzobs.px.value"])
    panel_count = max(len(experiment.detector) for experiment in dataset.experiments)
    key = ids * panel_count + panel
    order = np.argsort(key, kind="stable")
    keys, starts = np.unique(key[order], return_index=True)
    for group, start, stop in zip(keys, starts, [*starts[1:], len(order)]):
        experiment, panel_index = divmod(int(group), panel_count)
        for begin in range(start, stop, CHUNK):
            rows = order[begin : min(begin + CHUNK, stop)]
            yield experiment, rows, PixelGeometry(dataset.experiments[experiment], panel_index, xyz[rows])


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
    for i, e in enumerate(experiments):
        if e["background"] > e["photons"]:
            logger.warning(
                "Experiment %d has fewer photons than its background: are the exposure times of both right? "
                "(background_model.scale corrects for a different beam.)",
                i,
            )
    rows = [
        [i, e["observations"], f"{e['photons']:.4g}", f"{e['background']:.4g}", f"{e['mean_intensity'] or 0:.4g}"]
        for i, e in enumerate(experiments)
    ]
    header = ["experiment", "observations", "photons", "of these background", "mean intensity"]
    logger.info("\nExperiments:\n%s", tabulate(rows, header))
    return {"corrections": factors, "experiments": experiments}
