"""Pixels frame by frame, for scripts: where they look in reciprocal space, what they counted and what to divide by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.extraction.panel_pixels import panel_pixels
from dials_diffuse.algorithms.extraction.sweep import Sweep
from dials_diffuse.algorithms.masking.masks import ExperimentMasks
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.parameters import parameters
from dials_diffuse.rays import detector_rays

#: Pixels whose geometry is computed at once, to bound the temporaries.
CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class FramePixels:
    """The n pixels of one panel on one frame that are trusted, unmasked and within the grid.

    Attributes
    ----------
    frame : int
        Counted from 0.
    panel : int
    x, y : ndarray, shape (n,), float
        Pixel centres, at halves.
    z : float
        Centre of the frame in array index units, as in ``xyzobs.px.value``.
    q : ndarray, shape (n, 3), float
        Scattering vectors s1 - s0 in the laboratory frame, 1/Angstrom, without 2 pi.
    h : ndarray, shape (n, 3), float
        Fractional Miller indices.
    index : ndarray, shape (n, 3), int32
        Voxels of the grid, as dials.diffuse_extract has them.
    counts : ndarray, shape (n,), float
        Photons: (raw value - pedestal) / gain.
    response : ndarray, shape (n,), float
        Exposure time x product of the corrections (solid angle, polarisation, efficiency, air, ...), s sr. Divide
        photons, or sums of them, by it (or sums of it).
    """

    frame: int
    panel: int
    x: np.ndarray
    y: np.ndarray
    z: float
    q: np.ndarray
    h: np.ndarray
    index: np.ndarray
    counts: np.ndarray
    response: np.ndarray


def pixel_frames(
    masks: ExperimentMasks,
    grid: GlobalGrid | None = None,
    corrections: CombinedCorrection | None = None,
    frames: Iterable[int] | None = None,
) -> Iterator[FramePixels]:
    """Go through the pixels of one experiment, a sweep (scan-varying models are followed) or a still.

    What stays the same is computed once: rays, static masks and corrections. Nothing is kept of a frame that has been
    passed: 24 bytes for each pixel of the detector, and some 200 for each pixel of one panel.

    Parameters
    ----------
    masks : ExperimentMasks
        The experiment and what is masked in it, of :func:`dials_diffuse.algorithms.masking.masks.make_masks`.
    grid : GlobalGrid, optional
        Pixels of its voxels are given. If None: as far as the detector reaches, in voxels about the lattice points
        (``index`` is then the nearest Bragg index).
    corrections : CombinedCorrection, optional
        With the defaults of ``dials.diffuse_correct`` if None.
    frames : iterable of int, optional
        Frames to go through, counted from 0; all if None.

    Yields
    ------
    FramePixels
        Frame by frame, panel by panel.

    Raises
    ------
    Sorry
        If there is no crystal, an image cannot be read, or a correction is not a positive number.
    """
    experiment = masks.experiment
    if grid is None:
        grid = GlobalGrid.from_experiments(ExperimentList([experiment]), parameters("extract", "grid.ndiv=1,1,1"))
    grid.check_size()
    corrections = corrections or CombinedCorrection(parameters("correct").correction)
    constant, varying = corrections.split()
    sweep = Sweep(0, masks, detector_rays(experiment.detector), grid)
    factors = [_factor_of_pixels(sweep, panel, constant) for panel in range(len(experiment.detector))]
    for frame in range(len(experiment.imageset)) if frames is None else frames:
        read = sweep.read(frame, frame + 1)
        q_to_hkl = sweep.mapping.q_to_hkl(read.z[0])
        for panel, factor in enumerate(factors):
            pixels = panel_pixels(sweep, read, panel)
            response = factor[pixels.y, pixels.x] * read.exposure[0]
            if varying.models:
                response *= varying.factor(_geometry(sweep, panel, pixels.x, pixels.y, read.z[0]))
            x, y, h = pixels.x + 0.5, pixels.y + 0.5, pixels.q @ q_to_hkl.T
            yield FramePixels(frame, panel, x, y, float(read.z[0]), pixels.q, h, pixels.index, pixels.counts, response)


def _factor_of_pixels(sweep: Sweep, panel: int, corrections: CombinedCorrection) -> np.ndarray:
    """Product of corrections that are the same on all frames, shape (slow, fast); NaN where a pixel is not used."""
    factor = np.full(sweep.good[panel].shape, np.nan)
    y, x = np.nonzero(sweep.good[panel])
    for begin in range(0, len(x), CHUNK):
        part = slice(begin, begin + CHUNK)
        geometry = _geometry(sweep, panel, x[part], y[part], sweep.mapping.array_range[0] + 0.5)
        factor[y[part], x[part]] = corrections.factor(geometry)
    return factor


def _geometry(sweep: Sweep, panel: int, x: np.ndarray, y: np.ndarray, z: float) -> PixelGeometry:
    return PixelGeometry(sweep.experiment, panel, np.stack([x + 0.5, y + 0.5, np.full(len(x), z)], axis=1))
