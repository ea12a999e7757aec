"""Bragg reflections with photons of something else: hot pixels, ice, other lattices. A few would spoil a weak shell."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.masking.mask_file import read_mask
from dials_diffuse.algorithms.scaling.expectation import radial_bins

logger = logging.getLogger("dials.diffuse.absolute")

#: Measurements further from the median of equivalent ones, in standard deviations, are outliers.
N_SIGMA = 6.0
#: What equivalent reflections differ by besides counting, as a part of the intensity.
SCATTER = 0.1
#: By Wilson's statistics a reflection of so many times the mean of its shell has a probability of 1e-6 if acentric,
#: 2e-4 if centric (Read (1999) Acta Cryst. D55, 1759).
LARGEST = 14.0


def find_outliers(
    q: np.ndarray, group: np.ndarray, counts: np.ndarray, variance: np.ndarray, response: np.ndarray
) -> np.ndarray:
    """Which measurements are outliers, shape (n,), bool.

    Parameters
    ----------
    q : ndarray, shape (m,)
        |q| of the different reflections, 1/Angstrom.
    group : ndarray, shape (n,), int
        Which of these was measured.
    counts, variance : ndarray, shape (n,)
        N and its variance.
    response : ndarray, shape (n,)
        N over the integral of the peak.
    """
    intensity = counts / response
    median = group_medians(group, intensity, len(q))[group]
    number = np.bincount(group, minlength=len(q))[group]
    sigma = np.sqrt(variance / response**2 + (SCATTER * median) ** 2)
    far = (number > 2) & (np.abs(intensity - median) > N_SIGMA * sigma)
    shell = radial_bins(q[group], 30, 200)
    for _ in range(3):  # what is left out lowers the mean
        kept = ~far
        mean = np.bincount(shell, intensity * kept) / np.maximum(np.bincount(shell, kept), 1)
        error = np.sqrt(variance) / response
        far |= intensity > LARGEST * np.maximum(mean[shell], 0) + N_SIGMA * error
    return far


def group_medians(group: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Medians of values, shape (k,), in groups 0 to n - 1, shape (n,); of two in the middle the lower. NaN if empty."""
    order = np.lexsort((values, group))
    number = np.bincount(group, minlength=n)
    first = np.concatenate([[0], np.cumsum(number)[:-1]])
    medians = np.full(n, np.nan)
    there = number > 0
    medians[there] = values[order][(first + (number - 1) // 2)[there]]
    return medians


def on_masked_pixels(experiments: ExperimentList, table: flex.reflection_table) -> np.ndarray:
    """Which reflections have pixels in their shoeboxes that are masked in the diffuse data, shape (n,), bool.

    Parameters
    ----------
    experiments : ExperimentList
        Scaled: their image sets name the masks that dials.diffuse_extract used.
    table : flex.reflection_table
        With ``id``, ``panel``, ``bbox``; ``id`` counts the experiments, -1 for none.
    """
    ids, panels = flumpy.to_numpy(table["id"]), flumpy.to_numpy(table["panel"]).astype(int)
    x0, x1, y0, y1 = (flumpy.to_numpy(part) for part in table["bbox"].parts()[:4])
    masked = np.zeros(len(table), dtype=bool)
    for number, experiment in enumerate(experiments):
        name = experiment.imageset.external_lookup.mask.filename if experiment.imageset else ""
        if not name or not Path(name).is_file():
            logger.info("The pixel mask of sweep %d is not there: Bragg reflections on bad pixels count.", number)
            continue
        for panel, good in enumerate(read_mask(name, experiment.detector)):
            here = np.flatnonzero((ids == number) & (panels == panel))
            bad = np.pad(np.cumsum(np.cumsum(~good, axis=0), axis=1), ((1, 0), (1, 0)))
            slow, fast = good.shape
            left, right = (np.clip(x[here], 0, fast) for x in (x0, x1))
            top, bottom = (np.clip(y[here], 0, slow) for y in (y0, y1))
            masked[here] = bad[bottom, right] - bad[top, right] - bad[bottom, left] + bad[top, left] > 0
    return masked
