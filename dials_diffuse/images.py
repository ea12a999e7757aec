"""Reading images through dxtbx as numpy arrays, and the one place that knows how DIALS versions differ in it."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import IncorrectFormatError, flumpy
from dxtbx.format.Registry import get_format_class_for_file
from dxtbx.imageset import ImageSequence, ImageSet
from dxtbx.model import Experiment, Panel

#: Bytes of HDF5's cache of chunks: a frame of 16 million pixels of 32 bits.
CHUNK_CACHE = 80_000_000


def frame_arrays(imageset: ImageSet, index: int) -> tuple[np.ndarray, ...]:
    """Raw pixel values of one frame.

    Parameters
    ----------
    imageset : dxtbx.imageset.ImageSet
    index : int
        Frame, from 0.

    Returns
    -------
    tuple of ndarray, shape (slow, fast), int32 or float64
        One a panel; views of dxtbx's own memory where that is possible.

    Raises
    ------
    Sorry
        If the image is missing or cannot be decoded; the message names it.
    """
    try:
        arrays = _cut_panels(imageset, index) or _panels_of_dxtbx(imageset, index)
    except Exception as error:  # whatever a format class raises on a bad file
        raise Sorry(
            f"Cannot read image {index + 1} of the sweep, {imageset.get_path(index)} ({first_line(error)}). Put the "
            "file right, or leave it out with dials.slice_sequence."
        ) from error
    imageset.clear_cache()
    expected = [tuple(reversed(panel.get_image_size())) for panel in imageset.get_detector()]
    if [array.shape for array in arrays] != expected:
        raise Sorry(f"Image {imageset.get_path(index)} has not the size that the detector model has: is it complete?")
    return arrays


def _panels_of_dxtbx(imageset: ImageSet, index: int) -> tuple[np.ndarray, ...]:
    if imageset.data().has_single_file_reader():
        _hasten_nexus(imageset)
    panels = imageset.get_raw_data(index)
    return tuple(flumpy.to_numpy(panel) for panel in (panels if isinstance(panels, tuple) else (panels,)))


def _cut_panels(imageset: ImageSet, index: int) -> tuple[np.ndarray, ...] | None:
    """The panels as views of the whole image, where the format makes several of one (``format.multi_panel=True``).

    dxtbx cuts them out by flex, which takes longer than decoding the image.
    """
    params = imageset.params()
    if not params.get("multi_panel") or imageset.data().has_single_file_reader():
        return None
    kwargs = {**params, "multi_panel": False}
    image = imageset.get_format_class().get_instance(imageset.get_path(index), **kwargs).get_raw_data()
    if isinstance(image, tuple):
        return None  # there are several panels all the same
    image = flumpy.to_numpy(image)
    corners = [panel.get_raw_image_offset() for panel in imageset.get_detector()]
    sizes = [panel.get_image_size() for panel in imageset.get_detector()]
    if len(set(corners)) < len(corners):
        return None  # the detector model does not tell where its panels lie
    return tuple(image[y : y + slow, x : x + fast] for (x, y), (fast, slow) in zip(corners, sizes))


def _hasten_nexus(imageset: ImageSet) -> None:
    """Spare dxtbx work that it does for every frame of a NeXus file, or for every module of it.

    It looks up anew which part of the image each module is: let it remember. And dxtbx 3.12 reads module after module,
    while HDF5's own cache is too small for an image, which it then decompresses for each of them: let it keep one.
    Newer versions read an image once; they have opened the file already.
    """
    instance = imageset.get_format_class().get_instance(imageset.data().get_master_path(), **imageset.params())
    if not hasattr(instance, "_get_nxmx") or "_get_nxmx" in vars(instance):
        return
    instance._get_nxmx = lru_cache(maxsize=1)(instance._get_nxmx)
    if instance._cached_file_handle is None and len(imageset.get_detector()) > 1:
        import h5py

        instance._cached_file_handle = h5py.File(instance.get_image_file(), swmr=True, rdcc_nbytes=CHUNK_CACHE)


def static_mask(imageset: ImageSet) -> tuple[np.ndarray, ...]:
    """The masks that come with the images: of the format class, applied by dials.apply_mask, and untrusted rectangles.

    Returns
    -------
    tuple of ndarray, shape (slow, fast), bool
        One a panel, True where a pixel is good.
    """
    masks = [flumpy.to_numpy(panel.get_untrusted_rectangle_mask()).copy() for panel in imageset.get_detector()]
    applied = imageset.external_lookup.mask.data
    if not applied.empty():
        for i, mask in enumerate(masks):
            mask &= flumpy.to_numpy(applied.tile(i).data())
    return tuple(masks)


def dynamic_mask(imageset: ImageSet, experiment: Experiment, index: int) -> tuple[np.ndarray, ...] | None:
    """The shadow that the goniometer casts on one frame, where the format class knows it.

    Returns
    -------
    tuple of ndarray, shape (slow, fast), bool, or None
        One a panel, True where a pixel is good; None if there is nothing to mask.
    """
    if experiment.scan is None or not imageset.has_dynamic_mask():
        return None
    angle = experiment.scan.get_angle_from_array_index(experiment.scan.get_array_range()[0] + index + 0.5, deg=True)
    return tuple(flumpy.to_numpy(mask) for mask in imageset.masker().get_mask(experiment.detector, angle))


@lru_cache(maxsize=1)
def limits_are_trusted() -> bool:
    """Whether dxtbx counts the limits of the trusted range as within it: not in 3.12, but in newer versions."""
    panel = Panel()
    panel.set_image_size((1, 1))
    panel.set_trusted_range((-10, 10))
    return bool(panel.get_trusted_range_mask(flex.double(flex.grid(1, 1), 10))[0])


def trusted_limits(panel: Panel, dtype: np.dtype) -> tuple[np.generic, np.generic]:
    """Smallest and largest raw value that are trusted, both inclusive, as values of ``dtype``."""
    lowest, highest = panel.get_trusted_range()
    closed = limits_are_trusted()
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        lowest, highest = (
            (np.ceil(lowest), np.floor(highest)) if closed else (np.floor(lowest) + 1, np.ceil(highest) - 1)
        )
        return dtype.type(max(lowest, info.min + 1)), dtype.type(min(highest, info.max))
    lowest, highest = dtype.type(lowest), dtype.type(highest)
    return (lowest, highest) if closed else (np.nextafter(lowest, highest), np.nextafter(highest, lowest))


def exposure_times(experiment: Experiment) -> np.ndarray | None:
    """Exposure time of each frame in seconds; None where the images do not tell.

    A sweep that was imported by template has the time of its first image only: the others are taken to have it too.
    Stills have no scan to tell: their images are asked, if they are there.
    """
    if experiment.scan is not None:
        times = np.array(experiment.scan.get_exposure_times(), dtype=float)
    elif experiment.imageset is not None:
        times = np.array([_time_of_image(experiment.imageset, index) for index in range(len(experiment.imageset))])
    else:
        return None
    known = times > 0
    if not known.any():
        return None
    times[~known] = times[known][0]
    return times


def _time_of_image(imageset: ImageSet, index: int) -> float:
    """Exposure time in seconds that an image itself tells, 0 if it does not."""
    path = imageset.get_path(index)
    try:
        times = _times_in_file(path, os.stat(path).st_mtime_ns)
    except Exception:  # it is gone, or whatever a format class raises: reading it will say so
        return 0.0
    number = imageset.indices()[index] if imageset.data().has_single_file_reader() else 0
    return times[min(number, len(times) - 1)]


@lru_cache(maxsize=4096)
def _times_in_file(path: str, modified: int) -> tuple[float, ...]:
    """Exposure times in seconds of the images in a file: one for each, or one for all. ``modified`` is its version.

    dxtbx makes no scan of NeXus files without an axis that turns. ``frame_time`` is what it takes for sweeps.
    """
    format_class = get_format_class_for_file(path)
    instance = format_class.get_instance(path)
    if scan := instance.get_scan():
        return tuple(scan.get_exposure_times())
    import h5py

    with h5py.File(path, "r", swmr=True) as handle:
        detector = format_class._get_nxmx(instance, handle).entries[0].instruments[0].detectors[0]
        times = detector.frame_time if detector.frame_time is not None else detector.count_time
        return tuple(np.atleast_1d(times.to("seconds").magnitude).astype(float).tolist())


def sweep_name(experiment: Experiment) -> str:
    """The images of an experiment, short, for messages: their template, or the first one's name."""
    imageset = experiment.imageset
    if imageset is None:
        return f"experiment {experiment.identifier}"
    return imageset.get_template() if isinstance(imageset, ImageSequence) else imageset.get_path(0)


def first_line(error: Exception) -> str:
    """What an error says, short."""
    if isinstance(error, IncorrectFormatError):
        return "it is not of the format it should be"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
