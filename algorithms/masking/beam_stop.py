"""The shadow of the beam stop."""

from __future__ import annotations

import libtbx.phil
import numpy as np
from dxtbx.model import Beam, Detector, Panel
from scipy import ndimage
from scipy.sparse import coo_matrix, csgraph
from scipy.spatial import cKDTree

from dials_diffuse.algorithms.masking.sample import PixelSample
from dials_diffuse.rays import detector_rays

#: Smallest and largest side of the box, in pixels, over which counts are averaged before they are compared.
BOX_RANGE = (5, 15)
#: Photons that should be expected in the box: fewer, and the shadow is lost in the noise.
PHOTONS = 100
#: Widest gap between panels, in pixels, over which a shadow goes on.
WIDEST_GAP = 40
#: Share of a ring in the shadow from which all within it is in the shadow, too.
CLOSED = 0.9


def beam_stop_masks(
    samples: list[PixelSample],
    detector: Detector,
    beam: Beam,
    good: list[np.ndarray],
    params: libtbx.phil.scope_extract,
) -> list[np.ndarray]:
    """Find the shadow that covers the direct beam and what is connected to it, over all panels.

    What is expected at an angle from the beam is the median of the ring of pixels there, and at least what a ring
    further out has, less the square of the ratio of the angles: scattering may fall towards the beam, but not as
    sharply as at the edge of a shadow. Pixels with less than ``params.threshold`` of that, connected to the
    surroundings of the beam, are the shadow; with them goes all that they enclose (a leak of the direct beam).

    Parameters
    ----------
    samples : list of PixelSample
        One a panel.
    detector : dxtbx.model.Detector
    beam : dxtbx.model.Beam
    good : list of ndarray, shape (slow, fast), bool
        Pixels that other masks have left.
    params : libtbx.phil.scope_extract
        The scope ``mask.beam_stop``.

    Returns
    -------
    list of ndarray, shape (slow, fast), bool
        True in the shadow.
    """
    usable = [mask & (sample.used > 0) for mask, sample in zip(good, samples)]
    total = sum(float(sample.total[mask].sum()) for mask, sample in zip(usable, samples))
    pixels = sum(int(np.count_nonzero(mask)) for mask in usable)
    if total == 0:
        return [np.zeros_like(mask) for mask in usable]
    box = int(np.ceil(np.sqrt(PHOTONS * pixels / total))) | 1
    box = min(max(box, BOX_RANGE[0]), BOX_RANGE[1])

    rays = detector_rays(detector)
    solid_angles = [_solid_angle(panel, r) for panel, r in zip(detector, rays)]
    levels = [_smoothed(sample, mask, box) / s for sample, mask, s in zip(samples, usable, solid_angles)]
    pixel_angle = float(np.sqrt(min(s.max() for s in solid_angles)))
    s0 = np.array(beam.get_unit_s0(), dtype=np.float32)
    rings = [_two_theta(s0, r) / (box * pixel_angle) for r in rays]
    rings = [ring.astype(np.int32) for ring in rings]
    expected = _expected(levels, rings, usable)
    dark = [m & (level < params.threshold * expected[r]) for m, level, r in zip(usable, levels, rings)]
    shares = _shares(dark, usable, rings)
    lit = np.flatnonzero((shares[:-1] < 0.5) & (shares[1:] < 0.5))
    near = 2 + int(lit[0]) if len(lit) else len(shares)  # rings that the stop, or a leak in it and its edge, takes up
    shadows = _connected(dark, usable, rings, rays, near, WIDEST_GAP * pixel_angle, box)
    _fill(shadows, usable, rings)
    # Averaging blurs the edge, so that the threshold is met this far inside the shadow.
    inside = round((0.5 - params.threshold) * box)
    grown = max(params.margin + inside, 1)
    return [ndimage.binary_dilation(shadow, iterations=grown) if shadow.any() else shadow for shadow in shadows]


def _solid_angle(panel: Panel, rays: np.ndarray) -> np.ndarray:
    """Of every pixel, shape (slow, fast): area cos(omega) / d^2, d being the panel's distance over cos(omega)."""
    cosine = np.abs(np.einsum("ykx,k->yx", rays, np.array(panel.get_normal(), dtype=np.float32)))
    return np.prod(panel.get_pixel_size()) * cosine**3 / panel.get_distance() ** 2


def _two_theta(s0: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Angle between rays and the beam in radians, shape (slow, fast); from the chord, exact near 0 in float32."""
    chord = np.sqrt(sum((rays[:, k] - s0[k]) ** 2 for k in range(3)))
    return 2 * np.arcsin(np.minimum(chord / 2, 1))


def _smoothed(sample: PixelSample, usable: np.ndarray, box: int) -> np.ndarray:
    """Photons a pixel and frame, averaged over boxes of pixels."""
    share = ndimage.uniform_filter(usable.astype(float), box)
    mean = ndimage.uniform_filter(np.where(usable, sample.total / np.maximum(sample.used, 1), 0.0), box)
    return mean / np.maximum(share, 1.0 / box**2)


def _expected(levels: list[np.ndarray], rings: list[np.ndarray], usable: list[np.ndarray]) -> np.ndarray:
    """What is expected in every ring, from the innermost."""
    level = np.concatenate([values[mask] for values, mask in zip(levels, usable)])
    ring = np.concatenate([numbers[mask] for numbers, mask in zip(rings, usable)])
    medians = np.zeros(1 + max(int(numbers.max()) for numbers in rings))
    order = np.argsort(ring, kind="stable")
    edges = np.searchsorted(ring[order], np.arange(len(medians) + 1))
    for i, (start, stop) in enumerate(zip(edges[:-1], edges[1:])):
        if stop > start:
            medians[i] = np.median(level[order[start:stop]])
    square = (np.arange(len(medians)) + 1.0) ** 2
    return square * np.maximum.accumulate((medians / square)[::-1])[::-1]


def _connected(
    dark: list[np.ndarray],
    usable: list[np.ndarray],
    rings: list[np.ndarray],
    rays: list[np.ndarray],
    near: int,
    gap: float,
    box: int,
) -> list[np.ndarray]:
    """The dark pixels that are connected, also from panel to panel, with the surroundings of the beam."""
    labels, count = [], 0
    for d, mask in zip(dark, usable):
        own, number = ndimage.label(d | ~mask)
        labels.append(np.where(own > 0, own + count, 0))
        count += number
    linked = np.arange(count + 1)
    if len(dark) > 1:
        linked = _linked(dark, labels, rays, gap, box, count)
    at_beam = np.unique(np.concatenate([linked[lab[(r <= near) & d]] for lab, r, d in zip(labels, rings, dark)]))
    return [np.isin(linked[lab], at_beam) & d for lab, d in zip(labels, dark)]


def _linked(
    dark: list[np.ndarray], labels: list[np.ndarray], rays: list[np.ndarray], gap: float, box: int, count: int
) -> np.ndarray:
    """A number for each label, the same for regions of several panels that come closer than a gap between panels."""
    every = slice(None, None, max(box // 2, 1))
    at, of = [], []
    for d, lab, ray in zip(dark, labels, rays):
        border = d & ~ndimage.binary_erosion(d)
        chosen = np.flatnonzero(border)[every]
        at.append(ray.transpose(0, 2, 1).reshape(-1, 3)[chosen])
        of.append(lab.ravel()[chosen])
    owner = np.concatenate(of)
    pairs = cKDTree(np.concatenate(at)).query_pairs(gap, output_type="ndarray")
    first, second = owner[pairs[:, 0]], owner[pairs[:, 1]]
    links = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(count + 1, count + 1))
    return csgraph.connected_components(links, directed=False)[1]


def _fill(shadows: list[np.ndarray], usable: list[np.ndarray], rings: list[np.ndarray]) -> None:
    """Add, in place, what the shadow encloses: on a panel, or within a ring round the beam."""
    closed = np.flatnonzero(_shares(shadows, usable, rings) > CLOSED)
    for shadow, ring in zip(shadows, rings):
        if len(closed):
            shadow |= ring <= closed[-1]
        shadow |= ndimage.binary_fill_holes(shadow)


def _shares(chosen: list[np.ndarray], usable: list[np.ndarray], rings: list[np.ndarray]) -> np.ndarray:
    """Share of the usable pixels of each ring that are chosen; 0 in rings without any."""
    number = 1 + max(int(ring.max()) for ring in rings)
    inside, held = np.zeros(number), np.zeros(number)
    for choice, mask, ring in zip(chosen, usable, rings):
        inside += np.bincount(ring[choice & mask], minlength=number)
        held += np.bincount(ring[mask], minlength=number)
    return inside / np.maximum(held, 1)
