r"""Frames, and ranges of frames, that fit badly.

For every frame, and every tile of the detector on it, the observations of that frame together are compared with the
merged intensities: the ratio 1 + sum(w u (y - u I)) / sum(w u^2 I (1 - h)), and chi-squared. An observation has a part
in I itself, its leverage h = w u^2 / sum(w u^2), by which its residual is smaller, r = (y - u I) has the variance
V (1 - h); so an observation without mates says nothing. All is done for windows of 1, 2, ... frames, for a fault that
is weak in one frame is not in ten.

A window is bad if it is both improbable, among as many as are looked at, and far off: improbable by the true variance,
and also against the scatter of the other windows of the sweep (robustly, by the median absolute deviation), for all
that the scaling model leaves everywhere is not the fault of a frame. The worst is taken out first, then the
intensities are merged without it, and so on: else a bad range would make bad what it is compared with.

Sum of squares: with weights c = 1 / (2 + 1/mu), one over the variance of a squared deviate of Poisson counts,
sum(c z^2) has the mean and the variance sum(c), as a Gamma variate of that size has, which it is for large mu.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import libtbx.phil
import numpy as np
from dials.util import tabulate
from dxtbx.model import Detector
from dxtbx.model.experiment_list import ExperimentList
from scipy.special import gammaincc, ndtri

from dials_diffuse.algorithms.scaling.expectation import RadialPrior, posterior_mean, radial_prior
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions
from dials_diffuse.algorithms.scaling.tails import equivalent_deviate, root_deviate
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.parallel import Mp, number_of_processes

logger = logging.getLogger("dials.diffuse.scaling")

#: Tiles of the detector, about; panels are tiles where there are more of them.
TILES = 16
#: Chance of a false alarm in data without faults.
FALSE_ALARM = 0.01
#: Rounds of taking out the worst and merging again.
ROUNDS = 20
#: Windows that a sweep must have for the scatter between them to be known.
ENOUGH = 5
#: Size of a sum of squares, in sums of half a squared normal deviate, from which on its distribution is known.
LARGE = 30.0
#: Deviates beyond which an approximation serves, for probabilities vanish.
FAR = 8.0
SCATTER = "scatter"
#: Observations that are worked on at once.
CHUNK = 50_000


@dataclass
class BadRange:
    """A range of images of an experiment that fits badly.

    Attributes
    ----------
    experiment : int
    first, last : int
        Image numbers, both included; 1 and 1 for a still.
    reason : str
        ``low``, ``high`` or ``scatter``.
    ratio : float
        Observed over expected signal, at the worst place.
    chi_squared : float
        There, relative to what it is elsewhere.
    n_sigma : float
        How improbable it is, as a normal deviate.
    where : str
        The worst place: a part of a panel (in pixels) or the whole detector.
    """

    experiment: int
    first: int
    last: int
    reason: str
    ratio: float
    chi_squared: float
    n_sigma: float
    where: str

    @property
    def exclude_images(self) -> str:
        """As ``exclude_images`` takes it."""
        return f"{self.experiment}:{self.first}:{self.last}"


def find_bad_frames(
    partitions: VoxelPartitions, grid: GlobalGrid, experiments: ExperimentList, params: libtbx.phil.scope_extract
) -> list[BadRange]:
    """Find the frames of scaled observations that fit badly.

    Each round is one look at the observations. In one place there are eight sums for each frame and tile.

    Parameters
    ----------
    partitions : VoxelPartitions
        Looked at as scaled, better without outliers.
    grid : GlobalGrid
    experiments : ExperimentList
    params : libtbx.phil.scope_extract
        The ``bad_frames`` scope of :mod:`dials_diffuse.phil_scope.outliers`.

    Returns
    -------
    list of BadRange
        By experiment and image.
    """
    frames = _Frames.of(experiments)
    tiles = _Tiles.of(experiments)
    with np.errstate(divide="ignore", invalid="ignore"):  # there may be no observations
        prior = radial_prior(partitions, grid)
    bad = np.zeros(frames.n, dtype=bool)
    hits: list[_Hit] = []
    for _ in range(ROUNDS):
        cells = np.zeros((len(SUMS), frames.n * len(tiles)))
        compare = partial(_compare, grid, prior, frames, tiles, np.flatnonzero(bad))
        for cell, sums in partitions.map(compare, "Frames"):
            cells[:, cell] += sums
        found = _improbable(cells.reshape(len(SUMS), frames.n, -1), frames, tiles, params, partitions.mp)
        off = [hit for hit in found if hit.reason != SCATTER]
        new = _worst(off or found)  # where the signal is wrong the scatter is large as well
        for hit in new:
            bad[hit.start : hit.stop] = True
        hits += new
        if not new:
            break
    names = tiles.places()[1]
    ranges = [_as_range(hit, frames, names) for hit in _joined(hits, frames)]
    _log(ranges)
    return ranges


def in_ranges(observations: GroupedObservations, ranges: list[BadRange]) -> np.ndarray:
    """Observations whose mean frames are in the ranges, shape (n,), bool."""
    image = np.floor(observations.position[:, 2]).astype(np.int64) + 1
    chosen = np.zeros(len(image), dtype=bool)
    for r in ranges:
        chosen |= (observations.experiment == r.experiment) & (image >= r.first) & (image <= r.last)
    return chosen


@dataclass
class _Frames:
    """Frames of all experiments numbered one after the other; a still is one frame.

    ``first``, shape (k + 1,): number of each experiment's first frame. ``start``, shape (k,): its array index.
    """

    first: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, experiments: ExperimentList) -> _Frames:
        limits = [e.scan.get_array_range() if e.scan is not None else (0, 1) for e in experiments]
        start, stop = np.array(limits).T
        return cls(np.concatenate([[0], np.cumsum(stop - start)]), start)

    @property
    def n(self) -> int:
        return int(self.first[-1])

    @property
    def experiment(self) -> np.ndarray:
        """Of each frame, shape (n,)."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.first))

    def number(self, observations: GroupedObservations) -> np.ndarray:
        i = observations.experiment
        within = np.floor(observations.position[:, 2]).astype(np.int64) - self.start[i]
        return self.first[i] + np.clip(within, 0, np.diff(self.first)[i] - 1)

    def groups(self) -> list[np.ndarray]:
        """The frames to be compared with each other: those of a sweep; those of all experiments with few frames."""
        counts = np.diff(self.first)
        groups = [np.arange(self.first[i], self.first[i + 1]) for i in np.flatnonzero(counts >= ENOUGH)]
        few = np.flatnonzero((counts < ENOUGH)[self.experiment])
        return [*groups, few] if len(few) else groups


@dataclass
class _Tiles:
    """Tiles of the panels of all experiments' detectors: ``per_panel`` along x and y of each."""

    per_panel: int
    sizes: np.ndarray

    @classmethod
    def of(cls, experiments: ExperimentList) -> _Tiles:
        detectors: list[Detector] = [experiment.detector for experiment in experiments]
        largest = max(detectors, key=len)
        sizes = np.array([panel.get_image_size() for panel in largest], dtype=float)
        return cls(int(np.ceil(np.sqrt(TILES / len(largest)))), sizes)

    def __len__(self) -> int:
        return len(self.sizes) * self.per_panel**2

    def number(self, observations: GroupedObservations) -> np.ndarray:
        relative = observations.position[:, :2] / self.sizes[observations.panel] * self.per_panel
        x, y = np.clip(relative.astype(np.int64), 0, self.per_panel - 1).T
        return (observations.panel * self.per_panel + y) * self.per_panel + x

    def places(self) -> tuple[np.ndarray, list[str]]:
        """Places to look at: each tile, row and column of tiles of a panel, and the whole detector.

        Returns
        -------
        ndarray, shape (tiles, places), float
            1 where the tile belongs to the place.
        list of str
            What the places are called.
        """
        k = self.per_panel
        x, y = (array.ravel() for array in np.meshgrid(np.arange(k), np.arange(k)))
        chosen, names = [], []
        for panel, (width, height) in enumerate(self.sizes / k):
            boxes = [(i, i + 1, j, j + 1) for j in range(k) for i in range(k)]
            if k > 1:
                boxes += [(0, k, j, j + 1) for j in range(k)] + [(i, i + 1, 0, k) for i in range(k)]
            for x0, x1, y0, y1 in boxes:
                tiles = np.zeros((len(self.sizes), k * k))
                tiles[panel] = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
                chosen.append(tiles.ravel())
                pixels = f"x {x0 * width:.0f}-{x1 * width:.0f}, y {y0 * height:.0f}-{y1 * height:.0f}"
                names.append(f"panel {panel}, {pixels}" if k > 1 else f"panel {panel}")
        return np.stack([*chosen, np.ones(len(self))], axis=1), [*names, "whole detector"]


#: Sums over the observations of a frame on a tile. Of weighted signals: what is observed beyond the expected, what
#: would be 100 % of it, its variance, and the first and second power of the weights over the expected photons,
#: background and all. Of squared deviates: observed, what a factor common to the frame would make of 100 %, expected.
SUMS = ("excess", "signal", "variance", "photons", "photons_2", "squares", "common", "size")


def _compare(
    grid: GlobalGrid,
    prior: RadialPrior,
    frames: _Frames,
    tiles: _Tiles,
    bad: np.ndarray,
    partition: Partition,
    observations: GroupedObservations,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare observations with their merged intensities.

    Parameters
    ----------
    bad : ndarray, int
        Frames that are left out.

    Returns
    -------
    cell : ndarray, shape (k,), int
        Frame x tiles + tile, of those that have observations here.
    sums : ndarray, shape (8, k)
        Their :data:`SUMS`.
    """
    frame = frames.number(observations)
    cells, place = np.unique(frame * len(tiles) + tiles.number(observations), return_inverse=True)
    kept = ~np.isin(frame, bad)
    sums = np.zeros((len(SUMS), len(cells)))
    for _, chosen, part in observations.parts(CHUNK):
        use, values = _values(part, grid.q(part.voxels), prior, kept[chosen])
        for row, value in zip(sums, values):
            row += np.bincount(place[chosen][use], value, len(cells))
    return cells, sums


def _values(
    part: GroupedObservations, q: np.ndarray, prior: RadialPrior, kept: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Which observations tell something, shape (n,), bool, and what is summed of these."""
    u, spread = part.response, part.spread
    information = kept * u**2 / part.variance(prior.mean_at(q))
    total = np.maximum(part.sum(information), 1e-300)
    intensity = part.sum(information * part.signal / u) / total
    expected = np.maximum(posterior_mean(intensity, 1 / total, q, prior), 1e-3 * prior.mean_at(q))
    left = 1 - information / spread(total)
    use = kept & (left > 1e-6)
    left, information, u = left[use], information[use], u[use]
    excess = part.signal[use] - u * spread(intensity)[use]
    signal, variance = u * spread(expected)[use], part.variance(expected)[use]
    photons = np.maximum(signal + part.noise[use], 1e-9)
    weight = information / u
    size = 1 / (2 + variance / photons**2)
    return use, (
        weight * excess,
        weight * signal * left,
        weight**2 * variance * left,
        weight * photons,
        weight**2 * photons,
        size * excess**2 / (variance * left),
        size * signal**2 * left / variance,
        size,
    )


@dataclass
class _Sums:
    """The :data:`SUMS` at places on the detector, each shape (frames, places); of the squares without what a factor
    common to the frame makes."""

    excess: np.ndarray
    signal: np.ndarray
    variance: np.ndarray
    photons: np.ndarray
    photons_2: np.ndarray
    squares: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, cells: np.ndarray, places: np.ndarray) -> _Sums:
        """From those of tiles, shape (8, frames, tiles)."""
        sums = dict(zip(SUMS, cells @ places))
        whole = sums["excess"][:, -1:] / np.maximum(sums["signal"][:, -1:], 1e-300)
        sums["squares"] = np.maximum(sums["squares"] - whole**2 * sums.pop("common"), 0)
        return cls(**sums)

    @property
    def known(self) -> np.ndarray:
        """Where there is something, bool; differences of cumulative sums are not exactly 0 where there is nothing."""
        return (self.signal > 0) & (self.size > 1e-6)

    def windows(self, width: int) -> _Sums:
        """Sums over so many consecutive frames, from each frame on, shape (frames - width + 1, places)."""

        def add(values: np.ndarray) -> np.ndarray:
            total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
            return total[width:] - total[:-width]

        return _Sums(**{name: add(values) for name, values in vars(self).items()})


@dataclass
class _Hit:
    """A window of frames, from ``start`` to before ``stop``, that is bad at a place."""

    start: int
    stop: int
    place: int
    reason: str
    ratio: float
    chi_squared: float
    n_sigma: float


def _improbable(
    cells: np.ndarray, frames: _Frames, tiles: _Tiles, params: libtbx.phil.scope_extract, mp: Mp
) -> list[_Hit]:
    """All windows that are bad, overlapping as they are; ``cells``, shape (8, frames, tiles)."""
    places, _ = tiles.places()
    longest = int(np.max(np.diff(frames.first)))
    widths = [width for width in (*range(1, 9), 12, 16, 24, 32, 48, 64, 96, 128) if width <= max(longest // 3, 1)]
    limit = -ndtri(FALSE_ALARM / (2 * len(widths) * frames.n * places.shape[1]))

    def of_group(group: np.ndarray) -> list[_Hit]:
        sums, experiment = _Sums.of(cells[:, group], places), frames.experiment[group]
        found = [_improbable_windows(sums, group, experiment, width, limit, params) for width in widths]
        return sum(found, [])

    groups = frames.groups()
    with ThreadPoolExecutor(number_of_processes(mp, len(groups))) as pool:
        return sum(pool.map(of_group, groups), [])


@np.errstate(divide="ignore", invalid="ignore")  # what nothing is known of is not improbable
def _improbable_windows(
    sums: _Sums,
    frame: np.ndarray,
    experiment: np.ndarray,
    width: int,
    limit: float,
    params: libtbx.phil.scope_extract,
) -> list[_Hit]:
    """Windows of one width that are unlike the others; ``frame`` and ``experiment``, shape (frames,), of the sums."""
    window = sums.windows(width)
    within = experiment[: len(window.size)] == experiment[width - 1 :]
    ratio, deviate = _ratios(window)
    chi_squared, squares_deviate = _chi_squared(window)
    known = within[:, None] & window.known
    unusual = np.minimum(np.abs(_against_others(deviate, known)), np.abs(deviate))
    level = _medians(chi_squared, known, np.inf)  # without others none is unlike them
    relative = chi_squared / level
    scatter = np.minimum(_against_others(squares_deviate, known), squares_deviate)
    usual = np.where(np.isfinite(level), level, 1)
    wide = np.sqrt(np.maximum(np.maximum(chi_squared, usual), 1))  # where all scatter more, so do sums
    off = known & (unusual > limit * wide) & (np.abs(ratio - 1) > params.deviation)
    noisy = known & (window.size > LARGE) & (scatter > limit) & (relative > params.chi_squared)
    found = []
    for chosen, score, reasons in ((off, unusual, ("low", "high")), (noisy, scatter, (SCATTER, SCATTER))):
        for start, place in zip(*np.nonzero(chosen)):
            values = (float(x[start, place]) for x in (ratio, relative, score))
            reason = reasons[int(ratio[start, place] > 1)]
            found.append(_Hit(int(frame[start]), int(frame[start]) + width, int(place), reason, *values))
    return found


def _ratios(window: _Sums) -> tuple[np.ndarray, np.ndarray]:
    """Observed over expected signal, and its deviate from 1: that of as many photons as a sum so weighted is worth."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = window.photons**2 / window.photons_2
        scale = mean / window.photons
        values = (mean + window.excess * scale, mean, window.variance * scale**2)
    known = window.known
    deviate = np.zeros(mean.shape)
    values = [v[known] for v in values]
    exact, rough = equivalent_deviate(*values, np.zeros(known.sum())), root_deviate(*values)
    deviate[known] = np.where(np.abs(rough) < FAR, exact, rough)
    ratio = np.ones(mean.shape)
    ratio[known] += window.excess[known] / window.signal[known]
    return ratio, deviate


def _chi_squared(window: _Sums) -> tuple[np.ndarray, np.ndarray]:
    """Chi-squared over its expectation, and its probability as a normal deviate.

    Far out the deviate is that of Wilson & Hilferty (1931) Proc. Natl Acad. Sci. USA 17, 684.
    """
    size = np.maximum(window.size, 1e-12)
    relative = window.squares / size
    rough = 3 * np.sqrt(size) * (np.cbrt(relative) - 1 + 1 / (9 * size))
    return relative, np.where(np.abs(rough) < FAR, -ndtri(gammaincc(size, window.squares)), rough)


def _against_others(deviate: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Deviates about their median over the windows, in units of their robust width where that is over 1."""
    centre = _medians(deviate, known, 0.0)
    width = 1.4826 * _medians(np.abs(deviate - centre), known, 0.0)
    return (deviate - centre) / np.maximum(width, 1)


def _medians(values: np.ndarray, known: np.ndarray, default: float) -> np.ndarray:
    """Medians over the windows, column by column, shape (columns,); ``default`` where there are few."""
    if len(values) < ENOUGH:
        return np.full(values.shape[1], default)
    n, column = known.sum(axis=0), np.arange(values.shape[1])
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    middle = ordered[np.maximum(n - 1, 0) // 2, column] + ordered[np.minimum(n // 2, len(values) - 1), column]
    return np.where(n >= ENOUGH, middle / 2, default)


def _worst(hits: list[_Hit]) -> list[_Hit]:
    """The worst hits that do not overlap; those not half as bad as the worst have to wait for the next round."""
    taken: list[_Hit] = []
    worst = max((hit.n_sigma for hit in hits), default=0)
    for hit in sorted(hits, key=lambda hit: (-hit.n_sigma, hit.stop - hit.start)):
        if hit.n_sigma < worst / 2:
            break
        if all(hit.stop <= other.start or hit.start >= other.stop for other in taken):
            taken.append(_core(hit, hits))
    return taken


def _core(hit: _Hit, hits: list[_Hit]) -> _Hit:
    """The same frames at the place that is clearly farther off, though with fewer observations, if there is one."""
    same = [h for h in hits if (h.start, h.stop, h.reason) == (hit.start, hit.stop, hit.reason)]
    core = max((h for h in same if h.n_sigma > hit.n_sigma / 2), key=lambda h: abs(h.ratio - 1))
    return core if abs(core.ratio - 1) > 1.5 * abs(hit.ratio - 1) else hit


def _joined(hits: list[_Hit], frames: _Frames) -> list[_Hit]:
    """Neighbouring hits as one, with the figures of the worse."""
    experiment = frames.experiment
    joined: list[_Hit] = []
    for hit in sorted(hits, key=lambda hit: hit.start):
        if joined and joined[-1].stop >= hit.start and experiment[joined[-1].start] == experiment[hit.start]:
            worse = max(joined[-1], hit, key=lambda h: h.n_sigma)
            start, stop = joined[-1].start, max(joined[-1].stop, hit.stop)
            joined[-1] = _Hit(start, stop, *list(vars(worse).values())[2:])
        else:
            joined.append(hit)
    return joined


def _as_range(hit: _Hit, frames: _Frames, names: list[str]) -> BadRange:
    i = int(frames.experiment[hit.start])
    image = int(frames.start[i]) + 1 - int(frames.first[i])  # array index 0 is image 1, as in DIALS
    return BadRange(
        i,
        hit.start + image,
        hit.stop - 1 + image,
        hit.reason,
        hit.ratio,
        hit.chi_squared,
        hit.n_sigma,
        names[hit.place],
    )


def _log(ranges: list[BadRange]) -> None:
    if not ranges:
        logger.info("No frames fit badly.")
        return
    header = ("Experiment", "Images", "Observed / expected", "Chi-squared", "Sigma", "Worst place")
    rows = [
        (r.experiment, f"{r.first}-{r.last}", f"{r.ratio:.3f}", f"{r.chi_squared:.2f}", f"{r.n_sigma:.1f}", r.where)
        for r in ranges
    ]
    logger.warning(
        "Frames that fit badly (to leave them out: exclude_images=%s):\n\n%s",
        ",".join(r.exclude_images for r in ranges),
        tabulate(rows, header),
    )
