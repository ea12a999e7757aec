"""Make the images of a simulated experiment."""

from __future__ import annotations

import logging
import os
import re
from functools import partial
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.util import Sorry
from numba import njit

from dials_diffuse.algorithms.simulation.counting import gap_value, to_adu
from dials_diffuse.algorithms.simulation.pixels import split_image
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.algorithms.simulation.writers import BACKGROUND, ENDINGS, check_format, write_image, write_stack
from dials_diffuse.parallel import parallel_map

logger = logging.getLogger("dials.diffuse.simulation")

#: Names of images, which a new simulation removes.
IMAGE = re.compile(r"(sweep_\d+|background)(_\d{4}\.(cbf|cbf\.gz|cbf\.bz2|img)|\.nxs)")


def simulate(params: libtbx.phil.scope_extract, folder: str | os.PathLike) -> Truth:
    """Write all images of an experiment.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.simulate.phil_scope`.
    folder : path
        Where ``sweep_1_0001.cbf``, ..., ``background_0001.cbf``, ... (or ``.cbf.gz``, ``.cbf.bz2``, ``.img``) or
        ``sweep_1.nxs``, ..., ``background.nxs`` go; made if missing. Such images from earlier are removed.

    Returns
    -------
    Truth
        To be written beside the images.

    Raises
    ------
    Sorry
        If the folder cannot be made or written to, or the parameters contradict each other.
    """
    truth = Truth(params)
    check_format(truth)
    folder = Path(folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Sorry(f"Cannot make the folder {folder}: {error.strerror}. Choose another with output.images.") from error
    for left_over in folder.iterdir():
        if IMAGE.fullmatch(left_over.name):
            left_over.unlink()  # or it would be imported with the new ones
    one_file = params.format == "nxmx"
    pattern = ".nxs" if one_file else f"_####{ENDINGS[params.format]}"
    truth.templates = [os.fspath(folder / f"sweep_{i + 1}{pattern}") for i in range(len(truth.sweeps))]
    describe(truth)
    series = dict(enumerate(truth.sweeps))
    if params.background.photons and params.background.images:
        series[BACKGROUND] = truth.background_sweep
    make_image(truth, 0, 0)  # makes what all images have in common, before the processes part
    if one_file:
        for sweep in series:
            frames = range(series[sweep].frames)
            made = parallel_map(partial(make_image, truth, sweep), frames, params.mp, "Simulating")
            write_stack(truth, sweep, made, folder / f"{_name(sweep)}.nxs")
        return truth
    images = [(sweep, image) for sweep in series for image in range(series[sweep].frames)]

    def write(task: tuple[int, int]) -> None:
        sweep, image = task
        name = f"{_name(sweep)}{pattern.replace('####', f'{image + 1:04d}')}"
        write_image(truth, sweep, image, make_image(truth, sweep, image), folder / name)

    for _ in parallel_map(write, images, params.mp, "Simulating"):
        pass
    return truth


def _name(sweep: int) -> str:
    return "background" if sweep == BACKGROUND else f"sweep_{sweep + 1}"


def describe(truth: Truth) -> None:
    """Write to the log what is simulated."""
    logger.info("\nCrystal: %s, %s", truth.cell, truth.params.crystal.space_group)
    for number, sweep in enumerate(truth.sweeps, 1):
        if truth.params.stills:
            logger.info("Sweep %d: %d stills, %g s each", number, sweep.frames, sweep.exposure)
            continue
        logger.info(
            "Sweep %d: %d frames of %g degrees from %g, %g s each",
            number,
            sweep.frames,
            sweep.width,
            sweep.start,
            sweep.exposure,
        )
    unit = "a diffuse strength of 1" if truth.atoms is None else "an electron^2 per unit cell"
    logger.info("Scale: %s stands for %.6g photons / (s sr)", unit, truth.scales["diffuse"])


def make_image(truth: Truth, sweep: int, number: int) -> tuple[np.ndarray, ...]:
    """An image as dxtbx reads it, one array (slow, fast) of int32 a panel.

    Counts are photons times gain plus pedestal; pixels without sensor read -1 (0 of SMV), dead pixels count nothing,
    hot ones too much.

    Parameters
    ----------
    truth : Truth
        The experiment.
    sweep : int
        From 0, or :data:`BACKGROUND`.
    number : int
        Of the frame in it, from 0.
    """
    background = sweep == BACKGROUND
    expected = np.concatenate(truth.background_image(number) if background else truth.expected_image(sweep, number))
    hot, rates, dead = truth.bad_pixels
    expected.ravel()[hot] += rates
    if truth.params.noise:
        seed = np.random.SeedSequence((truth.params.seed, sweep + 1, number)).generate_state(1)[0]
        photons = np.empty(expected.shape, dtype=np.int32)
        _sample(expected, int(seed), photons)
    else:
        photons = np.rint(expected).astype(np.int32)
    photons.ravel()[dead] = 0
    counts = to_adu(photons, truth.params)
    counts[~np.concatenate([panel.active for panel in truth.pixels])] = gap_value(truth.params)
    return split_image(counts, truth.detector)


@njit(cache=True)
def _sample(expected, seed, counts):
    """Poisson deviates, the same for a seed wherever they are drawn."""
    np.random.seed(seed)
    for row in range(counts.shape[0]):
        for i in range(counts.shape[1]):
            counts[row, i] = np.random.poisson(expected[row, i])
