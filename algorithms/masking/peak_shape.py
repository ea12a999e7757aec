"""The shape, size and strength of Bragg peaks in reciprocal space, from the reflections that DIALS found."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from dials_diffuse.stills import is_still

logger = logging.getLogger("dials.diffuse.masking")

#: An experiment and its reflections.
Part = tuple[Experiment, flex.reflection_table]
#: Spots with second moments so many times the mean are not believed.
FAR_OUT = 9.0


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
    experiments: Sequence[Experiment],
    tables: Sequence[flex.reflection_table],
    params: libtbx.phil.scope_extract,
) -> PeakShape:
    """Measure the peaks of one sweep, or of many stills together.

    The second moments of the counts in the spots' shoeboxes are taken about the lattice points themselves, so that an
    error of the geometry widens the mask too. Without shoeboxes the profile model of integration (sigma_b, sigma_m)
    gives the width, and without that the bounding boxes do.

    A spot on a still shows its peak where the Ewald sphere cuts it, and nothing of it along the ray. Over orientations
    the cuts lie at all distances from the lattice points, so that the mean of their moments, weighted by counts, is the
    peak's.

    Parameters
    ----------
    experiments : sequence of dxtbx.model.Experiment
    tables : sequence of flex.reflection_table
        The reflections of each: indexed, and optionally with shoeboxes.
    params : libtbx.phil.scope_extract
        The scope ``bragg_mask.ellipsoid``.

    Raises
    ------
    Sorry
        If no reflection is indexed.
    """
    parts = [_indexed(experiment, table) for experiment, table in zip(experiments, tables)]
    parts = [part for part in parts if part is not None]
    if not parts:
        raise Sorry(
            f"No reflection of {sweep_name(experiments[0])} is indexed, so that Bragg peaks cannot be masked: give "
            "refined.refl or integrated.refl (after dials.index), or set bragg_mask.mode=none."
        )
    experiment, reflections = parts[0]
    if "shoebox" in reflections and reflections["shoebox"][0].is_consistent() and len(reflections["shoebox"][0].data):
        return _from_shoeboxes(parts, params)
    if experiment.profile is not None and hasattr(experiment.profile, "sigma_b"):
        return _from_profile_model(parts)
    return _from_bounding_boxes(parts)


def need_columns(experiment: Experiment, reflections: flex.reflection_table, *columns: str) -> None:
    """Raise Sorry unless the reflections of an experiment have all columns."""
    for column in columns:
        if column not in reflections:
            raise Sorry(
                f"The reflections of {sweep_name(experiment)} have no column {column}, so that Bragg peaks cannot be "
                "masked: give refined.refl or integrated.refl, or set bragg_mask.mode=none."
            )


def _indexed(experiment: Experiment, reflections: flex.reflection_table) -> Part | None:
    if "miller_index" in reflections:
        indexed = reflections.select(reflections["miller_index"] != (0, 0, 0))
        if len(indexed):
            return experiment, indexed
    return None


def _from_shoeboxes(parts: Sequence[Part], params: libtbx.phil.scope_extract) -> PeakShape:
    boxes = [box for _, reflections in parts for box in reflections["shoebox"]]
    part_of = np.repeat(np.arange(len(parts)), [len(reflections) for _, reflections in parts])
    hkl = np.concatenate([miller_index_to_numpy(reflections["miller_index"]) for _, reflections in parts])
    heights = np.array([flex.max(box.data.as_1d()) for box in boxes])
    stills = is_still(parts[0][0])
    # Weak spots show only their tips above the threshold of spot finding; the stronger half shows the whole shape. On
    # stills a strong peak may show its edge alone: there the counts are the weights.
    usable = np.arange(len(boxes)) if stills else np.flatnonzero(heights >= np.median(heights))
    rng = np.random.default_rng(params.seed)
    chosen = np.sort(rng.permutation(usable)[: params.max_spots])
    positions, weights, owners, places, around = [], [], [], [], []
    for n, i in enumerate(chosen):
        data = flumpy.to_numpy(boxes[i].data).astype(float).ravel()
        level = np.median(data[data <= np.percentile(data, 30)])
        positions.append(flumpy.to_numpy(boxes[i].coords()))
        weights.append(np.clip(data - level, 0.0, None))
        owners.append(np.full(data.size, n))
        places.append((part_of[i], boxes[i].panel))
        around.append(level)
    sizes = [len(part) for part in positions]
    positions, weights, owners = np.concatenate(positions), np.concatenate(weights), np.concatenate(owners)
    places, place = np.unique(places, axis=0, return_inverse=True)
    order = np.argsort(np.repeat(place.ravel(), sizes), kind="stable")
    edges = np.cumsum(np.bincount(place.ravel(), sizes)).astype(int)
    offsets = np.empty_like(positions)
    for (part, panel), these in zip(places.tolist(), np.split(order, edges[:-1])):
        offsets[these] = IndexMapping(parts[part][0]).hkl(panel, *positions[these].T)
    offsets -= hkl[chosen][owners]

    near = (np.abs(offsets) < 0.5).all(axis=1)
    total = np.bincount(owners, weights * near, len(chosen))
    moments = np.empty((len(chosen), 3, 3))
    for a in range(3):
        for b in range(3):
            moments[:, a, b] = np.bincount(owners, weights * near * offsets[:, a] * offsets[:, b], len(chosen))
    seen = total > 0
    if not seen.any():
        raise Sorry("No spot lies where its index says, so that Bragg peaks cannot be masked: refine the models first.")
    moments = moments[seen] / total[seen, None, None]
    q_squared = _q_squared(parts, part_of[chosen][seen], hkl[chosen][seen])
    covariance, growth = fit_spread(moments, q_squared, total[seen] if stills else None)
    return PeakShape(covariance, growth, heights, hkl, float(np.mean(around)))


def fit_spread(
    moments: np.ndarray, q_squared: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Covariance at q = 0 and its growth from the second moments of single spots.

    Parameters
    ----------
    moments : ndarray, shape (n, 3, 3)
    q_squared : ndarray, shape (n,), 1/Angstrom^2
    weights : ndarray, shape (n,), optional
        Counts of spots that show parts of their peaks: means are taken with these weights, without those that lie far
        out (of another lattice). Without weights, medians are, for single spots scatter widely and on the high side.

    Returns
    -------
    covariance : ndarray, shape (3, 3)
    growth : float, Angstrom^2, not negative
    """
    if weights is not None:
        moments, q_squared, weights = _without_outliers(moments, q_squared, weights)

    def middle(values: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        if weights is None:
            return np.median(values[chosen], axis=0)
        return np.average(values[chosen], axis=0, weights=weights[chosen])

    shape = middle(moments)
    if len(moments) < 2:
        return shape, 0.0
    spread = np.einsum("nij,ji->n", moments, np.linalg.inv(shape)) / 3
    bins = np.array_split(np.argsort(q_squared), max(2, min(10, len(spread) // 20)))
    x = np.array([np.median(q_squared[b]) for b in bins])
    y = np.array([middle(spread, b) for b in bins])
    slope, constant = np.polyfit(x, y, 1)
    if slope <= 0 or constant <= 0.05 * np.median(y):
        constant = float(np.median(y)) if slope <= 0 else 0.05 * float(np.median(y))
        slope = 0.0 if slope <= 0 else float(np.sum(x * (y - constant)) / np.sum(x * x))
    return shape * constant, slope / constant


def _without_outliers(
    moments: np.ndarray, q_squared: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave out spots whose moments are many times the mean, which is found anew without them."""
    kept = np.ones(len(moments), dtype=bool)
    for _ in range(3):
        shape = np.average(moments[kept], axis=0, weights=weights[kept])
        kept = np.einsum("nij,ji->n", moments, np.linalg.inv(shape)) / 3 < FAR_OUT
    return moments[kept], q_squared[kept], weights[kept]


def _from_profile_model(parts: Sequence[Part]) -> PeakShape:
    """Isotropic in 1/Angstrom: divergence sigma_b / wavelength, and sigma_m |q| or, if more, a frame's rotation.

    sigma_b and sigma_m: Kabsch (2010) Acta Cryst. D66, 133-144, section 2.3. Where frames are wider than the crystal's
    mosaicity, sigma_m is that of the frames, so this mask is wider than what the spots themselves give.
    """
    sigma_b = np.radians(np.mean([np.mean(experiment.profile.sigma_b()) for experiment, _ in parts]))
    sigma_m = np.radians(np.mean([np.mean(experiment.profile.sigma_m()) for experiment, _ in parts]))
    return _isotropic(parts, (sigma_b / parts[0][0].beam.get_wavelength()) ** 2, sigma_m)


def _from_bounding_boxes(parts: Sequence[Part]) -> PeakShape:
    """Isotropic in 1/Angstrom, a spot's bounding box taken as three standard deviations to each side."""
    logger.warning("The reflections have neither shoeboxes nor a profile model: widths of peaks from bounding boxes.")
    sizes = []
    for experiment, reflections in parts:
        need_columns(experiment, reflections, "bbox")
        x0, x1, y0, y1, _, _ = (flumpy.to_numpy(part) for part in reflections["bbox"].parts())
        sizes.append(np.maximum(x1 - x0, y1 - y0))
    experiment = parts[0][0]
    panel = experiment.detector[0]
    pixel = panel.get_pixel_size()[0] / panel.get_distance() / experiment.beam.get_wavelength()
    return _isotropic(parts, (np.median(np.concatenate(sizes)) / 6 * pixel) ** 2, 0.0)


def _isotropic(parts: Sequence[Part], variance: float, mosaicity: float) -> PeakShape:
    """Of a variance at q = 0 and a mosaicity in radians."""
    experiment = parts[0][0]
    width = np.radians(experiment.scan.get_oscillation()[1]) if experiment.scan else 0.0
    if is_still(experiment):
        variance, mosaicity = max(variance, _block_width(parts) ** 2), max(mosaicity, _still_mosaicity(parts))
    to_hkl = np.linalg.inv(np.array(experiment.crystal.get_B()).reshape(3, 3))
    heights, hkl, background = [], [], []
    for experiment, reflections in parts:
        need_columns(experiment, reflections, "bbox", "intensity.sum.value")
        x0, x1, y0, y1, z0, z1 = (flumpy.to_numpy(part) for part in reflections["bbox"].parts())
        volume = np.maximum((x1 - x0) * (y1 - y0) * (z1 - z0), 1)
        # A Gaussian cut at three standard deviations on each side is this much higher than its mean over the box.
        dimensions = 2 if is_still(experiment) else 3
        cut = (6 / np.sqrt(2 * np.pi)) ** dimensions
        heights.append(flumpy.to_numpy(reflections["intensity.sum.value"]) / volume * cut)
        hkl.append(miller_index_to_numpy(reflections["miller_index"]))
        if "background.mean" in reflections:
            background.append(flumpy.to_numpy(reflections["background.mean"]))
    return PeakShape(
        to_hkl @ to_hkl.T * variance,
        max(mosaicity**2, width**2 / 12) / variance,
        np.concatenate(heights),
        np.concatenate(hkl),
        float(np.mean(np.concatenate(background))) if background else np.nan,
    )


def _still_mosaicity(parts: Sequence[Part]) -> float:
    """Mean half mosaicity in radians of stills, by Sauter et al. (2014) Acta Cryst. D70, 3299; 0 if it is unknown."""
    crystals = [experiment.crystal for experiment, _ in parts]
    known = [crystal.get_half_mosaicity_deg() for crystal in crystals if hasattr(crystal, "get_half_mosaicity_deg")]
    return float(np.radians(np.mean(known))) if known else 0.0


def _block_width(parts: Sequence[Part]) -> float:
    """Width in 1/Angstrom of the peaks of mosaic blocks, one over their mean size (as above); 0 if it is unknown."""
    crystals = [experiment.crystal for experiment, _ in parts]
    sizes = [crystal.get_domain_size_ang() for crystal in crystals if hasattr(crystal, "get_domain_size_ang")]
    return 1 / float(np.mean(sizes)) if sizes and np.mean(sizes) > 0 else 0.0


def _q_squared(parts: Sequence[Part], part_of: np.ndarray, hkl: np.ndarray) -> np.ndarray:
    """|q|^2 of reflections, shape (n,), by the cells of their own experiments."""
    b = np.array([experiment.crystal.get_B() for experiment, _ in parts]).reshape(-1, 3, 3)
    return (np.einsum("nij,nj->ni", b[part_of], hkl) ** 2).sum(axis=1)
