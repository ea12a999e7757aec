"""The background without crystal: a map of the rate in every pixel, from images of any number and exposure."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import libtbx.phil
import numpy as np
from dials.util import Sorry
from dxtbx.model import Detector, Experiment
from dxtbx.model.experiment_list import ExperimentList
from tqdm import tqdm

from dials_diffuse.algorithms.correction.local_rate import smooth_rate
from dials_diffuse.algorithms.masking.mask_file import PixelMask, read_mask
from dials_diffuse.images import dynamic_mask, exposure_times, frame_arrays, static_mask, trusted_limits
from dials_diffuse.log_levels import experiments_name
from dials_diffuse.stills import is_still, with_own_images

logger = logging.getLogger("dials.diffuse.correction")


@dataclass
class BackgroundMap:
    """Smoothed rate of the background in every pixel, in bins of rotation.

    Attributes
    ----------
    rate, variance : list (over bins) of list (over panels) of ndarray, shape (slow, fast), float32
        Photons per pixel and second, and the variance; NaN where no pixel of the neighbourhood measured. The errors of
        neighbouring pixels are correlated over the width of the box.
    edges : ndarray, shape (bins + 1,), float
        Borders of the bins in radians of rotation, increasing; not used with a single bin.
    """

    rate: list[list[np.ndarray]]
    variance: list[list[np.ndarray]]
    edges: np.ndarray

    def at(self, panel: int, x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rate and variance at positions on one panel.

        Parameters
        ----------
        panel : int
        x, y : ndarray, shape (n,)
            In pixels, centres at halves.
        angle : ndarray, shape (n,)
            Rotation in radians; whole turns make no difference.

        Returns
        -------
        rate, variance : ndarray, shape (n,), float64
            Photons per pixel and second, and its square.

        Raises
        ------
        Sorry
            If an angle is outside the bins.
        """
        bins = self.bin(angle)
        rate, variance = np.empty(len(x)), np.empty(len(x))
        for index in np.unique(bins):
            rows = bins == index
            rates = self.rate[index][panel]
            line = np.clip(y[rows].astype(int), 0, rates.shape[0] - 1)
            column = np.clip(x[rows].astype(int), 0, rates.shape[1] - 1)
            rate[rows] = rates[line, column]
            variance[rows] = self.variance[index][panel][line, column]
        return rate, variance

    def bin(self, angle: np.ndarray) -> np.ndarray:
        """Bins, int, of rotation angles, both of shape (n,); Sorry if one is outside the bins."""
        if len(self.rate) == 1:
            return np.zeros(len(angle), dtype=int)
        tolerance = 1e-6
        within = np.mod(angle - self.edges[0] + tolerance, 2 * np.pi) + self.edges[0] - tolerance
        if (within > self.edges[-1] + tolerance).any():
            raise Sorry(
                "The background images do not cover the rotation range of the data: take "
                "background_model.rotation_bins=1."
            )
        return np.searchsorted(self.edges[1:-1], within, side="right")

    def scaled(self, factor: float) -> BackgroundMap:
        """The map multiplied by a factor."""
        return BackgroundMap(
            [[rate * np.float32(factor) for rate in panels] for panels in self.rate],
            [[variance * np.float32(factor**2) for variance in panels] for panels in self.variance],
            self.edges,
        )


def sum_frames(
    frames: Iterable[tuple[list[np.ndarray], list[np.ndarray], float]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sum of background images, taken one at a time.

    Parameters
    ----------
    frames : iterable of (counts, valid, exposure)
        Photons (float) and which pixels measured (bool), both lists of arrays of shape (slow, fast), one a panel, and
        the exposure time in seconds.

    Returns
    -------
    list of (counts, seconds)
        One pair of arrays a panel, float: photons, and the time for which each pixel measured.
    """
    sums: list[tuple[np.ndarray, np.ndarray]] = []
    for counts, valid, exposure in frames:
        sums = sums or [(np.zeros(panel.shape), np.zeros(panel.shape)) for panel in counts]
        for (total, seconds), panel, mask in zip(sums, counts, valid):
            np.add(total, panel, out=total, where=mask)
            np.add(seconds, exposure, out=seconds, where=mask)
    return sums


def background_maps(experiments: Iterable[Experiment], params: libtbx.phil.scope_extract) -> list[BackgroundMap] | None:
    """The background of every experiment.

    Parameters
    ----------
    experiments : iterable of Experiment
        Of the crystal.
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.correct.phil_scope`: ``background``, ``background_model``.

    Returns
    -------
    list of BackgroundMap or None
        One an experiment, the factor ``background_model.scale`` included; None if no background is given.

    Raises
    ------
    Sorry
        If a file cannot be read, or does not belong to the experiments.
    """
    experiments = list(experiments)
    maps: dict[int, BackgroundMap] = {}
    for numbers, background in measured_backgrounds(experiments, params):
        maps |= dict.fromkeys(numbers, background)
    return [maps[number] for number in range(len(experiments))] if maps else None


def measured_backgrounds(
    experiments: Iterable[Experiment], params: libtbx.phil.scope_extract
) -> Iterator[tuple[list[int], BackgroundMap]]:
    """As :func:`background_maps`, one at a time, each with the numbers of its experiments; nothing if there is none."""
    experiments = list(experiments)
    backgrounds = [(name, series) for name in params.background if name for series in _load(name)]
    if not backgrounds:
        return
    if len(backgrounds) not in (1, len(experiments)):
        raise Sorry(
            f"There are {len(backgrounds)} background experiments for {len(experiments)} experiments: give one for "
            "all, or one for each in their order. (Stills of one detector, in one file, count as one.)"
        )
    scales = params.background_model.scale
    if len(scales) not in (1, len(backgrounds)):
        raise Sorry(f"background_model.scale has {len(scales)} values for {len(backgrounds)} background experiments.")
    if params.background_model.rotation_bins > 1 and any(is_still(experiment) for experiment in experiments):
        raise Sorry("There are stills among the data, which have no rotation: use background_model.rotation_bins=1.")
    of_background = [list(range(len(experiments)))] if len(backgrounds) == 1 else [[i] for i in range(len(experiments))]
    for (name, series), numbers in zip(backgrounds, of_background):
        for number in numbers:
            check_same_pixels(experiments[number].detector, series[0].detector, name)
        _warn_of_unknown_times(name, series, experiments, numbers)
    scales = list(scales) * (len(backgrounds) // len(scales))
    for (name, series), numbers, scale in zip(backgrounds, of_background, scales):
        masks = _masks([experiments[number] for number in numbers], params.background_model.mask)
        yield numbers, measure_background(series, params.background_model, name, masks).scaled(scale)


def _warn_of_unknown_times(
    name: str, series: list[Experiment], experiments: list[Experiment], numbers: list[int]
) -> None:
    """Warn if the exposure times of a background, or those of its experiments, are known and the other's are not."""
    known = all(exposure_times(experiment) is not None for experiment in series)
    odd = [number for number in numbers if (exposure_times(experiments[number]) is not None) != known]
    if odd:
        logger.warning(
            "The exposure times of %s and of %s cannot be compared (one of them is unknown and taken as "
            "1 s a frame): give their ratio by background_model.scale.",
            experiments_name(odd),
            name,
        )


def check_same_pixels(detector: Detector, background: Detector, name: str) -> None:
    """Raise Sorry unless two detectors have the same panels with the same numbers of pixels."""
    sizes = [panel.get_image_size() for panel in detector]
    if sizes != [panel.get_image_size() for panel in background]:
        raise Sorry(
            f"The background images of {name} are not from the detector of the data: {_describe(background)} and "
            f"{_describe(detector)}. Give images of the same detector."
        )


def _masks(experiments: list[Experiment], filename: str | None) -> list[PixelMask]:
    """The mask of the user, or else those that the data's own images carry (by dials.apply_mask)."""
    names = {filename}
    if filename is None:
        imagesets = [experiment.imageset for experiment in experiments if experiment.imageset is not None]
        names = {imageset.external_lookup.mask.filename for imageset in imagesets} - {""}
    names.discard(None)
    return [read_mask(name, experiments[0].detector) for name in sorted(names)]


def _describe(detector: Detector) -> str:
    count = len(detector)
    return f"{count} panel{'s' * (count > 1)} of {' x '.join(map(str, detector[0].get_image_size()))} pixels"


def _load(name: str | os.PathLike) -> list[list[Experiment]]:
    """The backgrounds in a file, with their images: each sweep is one, and all stills of one detector are."""
    try:
        experiments = with_own_images(ExperimentList.from_file(os.fspath(name), check_format=True))
    except Exception as error:  # no such file, not an experiment list, images that have gone
        raise Sorry(f"The background {name} cannot be read: {error}. Give an .expt file of dials.import.") from error
    if not experiments or any(experiment.imageset is None for experiment in experiments):
        raise Sorry(f"The background {name} holds no images: give an .expt file of dials.import.")
    series: dict[object, list[Experiment]] = {}
    for number, experiment in enumerate(experiments):
        sizes = tuple(panel.get_image_size() for panel in experiment.detector)
        series.setdefault(sizes if is_still(experiment) else number, []).append(experiment)
    return list(series.values())


def measure_background(
    series: list[Experiment], params: libtbx.phil.scope_extract, name: str, masks: Iterable[PixelMask] = ()
) -> BackgroundMap:
    """The background of one series of images.

    Parameters
    ----------
    series : list of Experiment
        With the images, no crystal needed: a sweep, or any number of experiments of stills.
    params : libtbx.phil.scope_extract
        ``background_model``: ``half_width``, ``rotation_bins``.
    name : str
        Of the file, for messages.
    masks : iterable of PixelMask
        Left out beside what the images themselves mask.

    Raises
    ------
    Sorry
        If an image cannot be read, or there is no rotation to be divided into bins.
    """
    bins, count = params.rotation_bins, sum(len(experiment.imageset) for experiment in series)
    if bins > 1 and (len(series) > 1 or is_still(series[0])):
        raise Sorry(f"The background images of {name} have no rotation: use background_model.rotation_bins=1.")
    if bins > count:
        raise Sorry(f"background_model.rotation_bins={bins}, but {name} holds only {count} images: use fewer bins.")
    borders = np.linspace(0, count, bins + 1).round().astype(int)
    rates, variances = [], []
    frames = _frames(series, masks)
    with tqdm(total=count, desc="Background", unit="image", disable=None, leave=False) as progress:
        for begin, end in zip(borders[:-1], borders[1:]):
            sums = sum_frames(islice(frames, int(end - begin)))
            maps = [smooth_rate(counts, seconds, params.half_width) for counts, seconds in sums]
            rates.append([rate.astype(np.float32) for rate, _ in maps])
            variances.append([variance.astype(np.float32) for _, variance in maps])
            progress.update(end - begin)
    means = [np.nanmean(np.concatenate([panel.ravel() for panel in panels])) for panels in rates]
    logger.info("Background of %s: %d images, mean rate %.4g photons per pixel and second", name, count, np.mean(means))
    if bins == 1:
        return BackgroundMap(rates, variances, np.array([-np.inf, np.inf]))
    first, width = series[0].scan.get_oscillation(deg=False)
    edges = first + borders * width
    if width < 0:
        rates, variances, edges = rates[::-1], variances[::-1], edges[::-1]
    return BackgroundMap(rates, variances, edges)


def _frames(
    series: list[Experiment], masks: Iterable[PixelMask]
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray], float]]:
    """Images one by one, as :func:`sum_frames` takes them: photons = (ADU - pedestal) / gain; masked by the format, the
    trusted range, the goniometer's shadow and the given masks."""
    for experiment in series:
        imageset, detector = experiment.imageset, experiment.detector
        static = static_mask(imageset)
        for mask in masks:
            static = [good & given for good, given in zip(static, mask)]
        exposures = exposure_times(experiment)
        if exposures is None:
            exposures = np.ones(len(imageset))
        for i, exposure in enumerate(exposures):
            raw = frame_arrays(imageset, i)
            shadow = dynamic_mask(imageset, experiment, i) or [True] * len(detector)
            counts, valid = [], []
            for panel, values, good, lit in zip(detector, raw, static, shadow):
                lowest, highest = trusted_limits(panel, values.dtype)
                counts.append((values - panel.get_pedestal()) / panel.get_gain())
                valid.append((values >= lowest) & (values <= highest) & good & lit)
            yield counts, valid, float(exposure)
