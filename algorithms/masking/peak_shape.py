"""The shape, size and strength of Bragg peaks in reciprocal space, from the reflections that DIALS found."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import Experiment

from dials_diffuse.geometry import IndexMapping
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.images import sweep_name

logger = logging.getLogger("dials.diffuse.masking")


@dataclass
class PeakShape:
    """How Bragg peaks are spread out in the index space of one experiment.

    The covariance of fractional Miller indices over a peak at |q| is ``covariance * (1 + growth |q|^2)``: the constant
    part is the beam's divergence, the pixel and the size of the mosaic blocks, the other mosaicity and frame width.

    Attributes
    ----------
    covariance : ndarray, shape (3, 3)
        At q = 0.
    growth : float
        Angstrom^2.
    strength : ndarray, shape (n,), float
        Peak height in photons a pixel of the reflections ``miller_index``.
    miller_index : ndarray, shape (n, 3), int
    background : float
        Mean count of the pixels round the peaks, in photons; NaN if the reflections do not tell.
    """

    covariance: np.ndarray
    growth: float
    strength: np.ndarray
    miller_index: np.ndarray
    background: float = np.nan


def measure_peak_shape(
    experiment: Experiment, reflections: flex.reflection_table, params: libtbx.phil.scope_extract
) -> PeakShape:
    """Measure the peaks of one experiment.

    The second moments of the counts in the spots' shoeboxes are taken about the lattice points themselves, so that an
    error of the geometry widens the mask too. Without shoeboxes the profile model of integration (sigma_b, sigma_m)
    gives the width, and without that the bounding boxes do.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
    reflections : flex.reflection_table
        Its reflections: indexed, and optionally with shoeboxes.
    params : libtbx.phil.scope_extract
        The scope ``bragg_mask``.

    Raises
    ------
    Sorry
        If no reflection is indexed.
    """
    reflections = _indexed(experiment, reflections)
    if "shoebox" in reflections and reflections["shoebox"][0].is_consistent() and len(reflections["shoebox"][0].data):
        return _from_shoeboxes(experiment, reflections, params)
    if experiment.profile is not None and hasattr(experiment.profile, "sigma_b"):
        return _from_profile_model(experiment, reflections)
    return _from_bounding_boxes(experiment, reflections)


def need_columns(experiment: Experiment, reflections: flex.reflection_table, *columns: str) -> None:
    """Raise Sorry unless the reflections of an experiment have all columns."""
    for column in columns:
        if column not in reflections:
            raise Sorry(
                f"The reflections of {sweep_name(experiment)} have no column {column}, so that Bragg peaks cannot be "
                "masked: give refined.refl or integrated.refl, or set bragg_mask.mode=none."
            )


def _indexed(experiment: Experiment, reflections: flex.reflection_table) -> flex.reflection_table:
    if "miller_index" in reflections:
        indexed = reflections.select(reflections["miller_index"] != (0, 0, 0))
        if len(indexed):
            return indexed
    raise Sorry(
        f"No reflection of {sweep_name(experiment)} is indexed, so that Bragg peaks cannot be masked: give "
        "refined.refl or integrated.refl (after dials.index), or set bragg_mask.mode=none."
    )


def _from_shoeboxes(
    experiment: Experiment, reflections: flex.reflection_table, params: libtbx.phil.scope_extract
) -> PeakShape:
    heights = np.array([flex.max(box.data.as_1d()) for box in reflections["shoebox"]])
    hkl = miller_index_to_numpy(reflections["miller_index"])
    # Weak spots show only their tips above the threshold of spot finding; the stronger half shows the whole shape.
    strong = np.flatnonzero(heights >= np.median(heights))
    rng = np.random.default_rng(params.seed)
    chosen = np.sort(rng.permutation(strong)[: params.max_spots])
    mapping = IndexMapping(experiment)
    positions, weights, owners, panels, around = [], [], [], [], []
    for n, i in enumerate(chosen):
        box = reflections["shoebox"][int(i)]
        data = flumpy.to_numpy(box.data).astype(float).ravel()
        coordinates = flumpy.to_numpy(box.coords())
        level = np.median(data[data <= np.percentile(data, 30)])
        positions.append(coordinates)
        weights.append(np.clip(data - level, 0.0, None))
        owners.append(np.full(data.size, n))
        panels.append(np.full(data.size, box.panel))
        around.append(level)
    positions, weights = np.concatenate(positions), np.concatenate(weights)
    owners, panels = np.concatenate(owners), np.concatenate(panels)
    offsets = np.empty_like(positions)
    for panel in np.unique(panels):
        these = panels == panel
        offsets[these] = mapping.hkl(int(panel), *positions[these].T)
    offsets -= hkl[chosen][owners]

    near = (np.abs(offsets) < 0.5).all(axis=1)
    total = np.bincount(owners, weights * near, len(chosen))
    moments = np.empty((len(chosen), 3, 3))
    for a in range(3):
        for b in range(3):
            moments[:, a, b] = np.bincount(owners, weights * near * offsets[:, a] * offsets[:, b], len(chosen))
    moments = moments[total > 0] / total[total > 0, None, None]
    q_squared = _q_squared(experiment, hkl[chosen][total > 0])
    covariance, growth = fit_spread(moments, q_squared)
    return PeakShape(covariance, growth, heights, hkl, float(np.mean(around)))


def fit_spread(moments: np.ndarray, q_squared: np.ndarray) -> tuple[np.ndarray, float]:
    """Covariance at q = 0 and its growth from the second moments of single spots.

    Parameters
    ----------
    moments : ndarray, shape (n, 3, 3)
    q_squared : ndarray, shape (n,), 1/Angstrom^2

    Returns
    -------
    covariance : ndarray, shape (3, 3)
    growth : float, Angstrom^2, not negative
    """
    shape = np.median(moments, axis=0)
    spread = np.einsum("nij,ji->n", moments, np.linalg.inv(shape)) / 3
    # medians in bins of q^2: single spots scatter widely and on the high side
    bins = np.array_split(np.argsort(q_squared), max(2, min(10, len(spread) // 20)))
    x = np.array([np.median(q_squared[b]) for b in bins])
    y = np.array([np.median(spread[b]) for b in bins])
    slope, constant = np.polyfit(x, y, 1)
    if slope <= 0 or constant <= 0.05 * np.median(y):
        constant = float(np.median(y)) if slope <= 0 else 0.05 * float(np.median(y))
        slope = 0.0 if slope <= 0 else float(np.sum(x * (y - constant)) / np.sum(x * x))
    return shape * constant, slope / constant


def _from_profile_model(experiment: Experiment, reflections: flex.reflection_table) -> PeakShape:
    """Isotropic in 1/Angstrom: divergence sigma_b / wavelength, and sigma_m |q| or, if more, a frame's rotation.

    sigma_b and sigma_m: Kabsch (2010) Acta Cryst. D66, 133-144, section 2.3. Where frames are wider than the crystal's
    mosaicity, sigma_m is that of the frames, so this mask is wider than what the spots themselves give.
    """
    sigma_b = np.radians(np.mean(experiment.profile.sigma_b()))
    sigma_m = np.radians(np.mean(experiment.profile.sigma_m()))
    width = np.radians(experiment.scan.get_oscillation()[1]) if experiment.scan else 0.0
    constant = (sigma_b / experiment.beam.get_wavelength()) ** 2
    return _isotropic(experiment, reflections, constant, max(sigma_m**2, width**2 / 12) / constant)


def _from_bounding_boxes(experiment: Experiment, reflections: flex.reflection_table) -> PeakShape:
    """Isotropic in 1/Angstrom, a spot's bounding box taken as three standard deviations to each side."""
    logger.warning("The reflections have neither shoeboxes nor a profile model: widths of peaks from bounding boxes.")
    need_columns(experiment, reflections, "bbox")
    x0, x1, y0, y1, _, _ = (flumpy.to_numpy(part) for part in reflections["bbox"].parts())
    panel = experiment.detector[0]
    pixel = panel.get_pixel_size()[0] / panel.get_distance() / experiment.beam.get_wavelength()
    width = np.radians(experiment.scan.get_oscillation()[1]) if experiment.scan else 0.0
    constant = (np.median(np.maximum(x1 - x0, y1 - y0)) / 6 * pixel) ** 2
    return _isotropic(experiment, reflections, constant, width**2 / 12 / constant)


def _isotropic(experiment: Experiment, reflections: flex.reflection_table, variance: float, growth: float) -> PeakShape:
    need_columns(experiment, reflections, "bbox", "intensity.sum.value")
    to_hkl = np.linalg.inv(np.array(experiment.crystal.get_B()).reshape(3, 3))
    x0, x1, y0, y1, z0, z1 = (flumpy.to_numpy(part) for part in reflections["bbox"].parts())
    volume = np.maximum((x1 - x0) * (y1 - y0) * (z1 - z0), 1)
    # A Gaussian cut at three standard deviations on each side is this much higher than its mean over the box.
    heights = flumpy.to_numpy(reflections["intensity.sum.value"]) / volume * (6 / np.sqrt(2 * np.pi)) ** 3
    hkl = miller_index_to_numpy(reflections["miller_index"])
    background = np.nan
    if "background.mean" in reflections:
        background = float(np.mean(flumpy.to_numpy(reflections["background.mean"])))
    return PeakShape(to_hkl @ to_hkl.T * variance, growth, heights, hkl, background)


def _q_squared(experiment: Experiment, hkl: np.ndarray) -> np.ndarray:
    b = np.array(experiment.crystal.get_B()).reshape(3, 3)
    return ((hkl @ b.T) ** 2).sum(axis=1)
