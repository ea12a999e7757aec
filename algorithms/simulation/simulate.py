"""Make the images of a simulated experiment."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.util import Sorry
from numba import njit

from dials_diffuse.algorithms.simulation import instrument
from dials_diffuse.algorithms.simulation.cbf import Header, write_image
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.parallel import parallel_map

logger = logging.getLogger("dials.diffuse.simulation")

#: What stands for the background images where images are numbered by sweep.
BACKGROUND = -1


def simulate(params: libtbx.phil.scope_extract, folder: str | os.PathLike) -> Truth:
    """Write all images of an experiment.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.simulate.phil_scope`.
    folder : path
        Where ``sweep_1_0001.cbf``, ..., ``background_0001.cbf``, ... go; made if missing. Such images from earlier
        are removed.

    Returns
    -------
    Truth
        To be written beside the images.

    Raises
    ------
    Sorry
        If the folder cannot be made or written to, or the parameters contradict each other.
    """
    folder = Path(folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Sorry(f"Cannot make the folder {folder}: {error.strerror}. Choose another with output.images.") from error
    for pattern in ("sweep_*_[0-9][0-9][0-9][0-9].cbf", "background_[0-9][0-9][0-9][0-9].cbf"):
        for left_over in folder.glob(pattern):
            left_over.unlink()  # or they would be imported with the new ones
    truth = Truth(params)
    truth.templates = [os.fspath(folder / f"sweep_{i + 1}_####.cbf") for i in range(len(truth.sweeps))]
    describe(truth)
    images = [(sweep, frame) for sweep, model in enumerate(truth.sweeps) for frame in range(model.frames)]
    if params.background.photons:
        images += [(BACKGROUND, image) for image in range(params.background.images)]
    make_image(truth, *images[0])  # makes what all images have in common, before the processes part
    for _ in parallel_map(lambda image: _write(truth, folder, *image), images, params.nproc, "Simulating"):
        pass
    return truth


def describe(truth: Truth) -> None:
    """Write to the log what is simulated."""
    logger.info("\nCrystal: %s, %s", truth.cell, truth.params.crystal.space_group)
    for number, sweep in enumerate(truth.sweeps, 1):
        logger.info(
            "Sweep %d: %d frames of %g degrees from %g, %g s each",
            number,
            sweep.frames,
            sweep.width,
            sweep.start,
            sweep.exposure,
        )
    logger.info("Scale: a diffuse strength of 1 stands for %.6g photons / (s sr)", truth.scales["diffuse"])


def _write(truth: Truth, folder: Path, sweep: int, number: int) -> None:
    name = "background" if sweep == BACKGROUND else f"sweep_{sweep + 1}"
    write_image(
        make_image(truth, sweep, number), make_header(truth, sweep), number, folder / f"{name}_{number + 1:04d}.cbf"
    )


def make_header(truth: Truth, sweep: int) -> Header:
    """What the headers of a sweep say: the truth, but for the errors asked for."""
    params = truth.params
    this = truth.background_sweep if sweep == BACKGROUND else truth.sweeps[sweep]
    wrong = params.header.perturb
    x, y = instrument.beam_centre(params.detector)
    return Header(
        model=params.detector.model,
        wavelength=params.beam.wavelength,
        distance=params.detector.distance + wrong * params.header.distance_error,
        beam_centre=(x + wrong * params.header.beam_centre_error[0], y + wrong * params.header.beam_centre_error[1]),
        thickness=params.detector.thickness,
        exposure=this.exposure,
        start=this.start,
        width=this.width,
        polarisation_fraction=params.beam.polarisation_fraction,
    )


def make_image(truth: Truth, sweep: int, number: int) -> np.ndarray:
    """Counts of an image, int32 (slow, fast): -1 in gaps, 0 in dead pixels, too much in hot ones.

    Parameters
    ----------
    truth : Truth
        The experiment.
    sweep : int
        From 0, or :data:`BACKGROUND`.
    number : int
        Of the frame in it, from 0.
    """
    expected = truth.background_image(number) if sweep == BACKGROUND else truth.expected_image(sweep, number)
    hot, rates, dead = truth.bad_pixels
    expected.ravel()[hot] += rates
    if truth.params.noise:
        seed = np.random.SeedSequence((truth.params.seed, sweep + 1, number)).generate_state(1)[0]
        counts = np.empty(expected.shape, dtype=np.int32)
        _sample(expected, int(seed), counts)
    else:
        counts = np.rint(expected).astype(np.int32)
    np.minimum(counts, instrument.COUNT_CUTOFF, out=counts)
    counts.ravel()[dead] = 0
    counts[~truth.pixels.active] = -1
    return counts


@njit(cache=True)
def _sample(expected, seed, counts):
    """Poisson deviates, the same for a seed wherever they are drawn."""
    np.random.seed(seed)
    for row in range(counts.shape[0]):
        for i in range(counts.shape[1]):
            counts[row, i] = np.random.poisson(expected[row, i])
