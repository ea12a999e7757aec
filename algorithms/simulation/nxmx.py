"""Images and models as one NeXus file, NXmx, which dxtbx reads back as they were given."""

from __future__ import annotations

import os
from contextlib import ExitStack

import h5py
import numpy as np
from dials.util import Sorry
from dxtbx.model import Beam, Detector, Goniometer, Panel, Scan

from dials_diffuse.algorithms.simulation import bitshuffle
from dials_diffuse.images import limits_are_trusted
from dials_diffuse.nexus import new_group, write_quantity
from dials_diffuse.output import quiet_file, whole_files

#: From dxtbx's laboratory frame (imgCIF) to that of NeXus (McStas), as dxtbx/nexus/__init__.py has it.
IMGCIF_TO_MCSTAS = np.diag([-1.0, 1.0, -1.0])
#: What dxtbx knows.
MATERIALS = ("Si", "CdTe", "GaAs")


def nxmx_frame(beam: Beam) -> np.ndarray:
    """The rotation of the laboratory, shape (3, 3), that brings the beam to -z, where NXmx has it.

    The models are written in the turned laboratory; a crystal that goes with them has to be turned too:
    A' = nxmx_frame(beam) A. The identity for a beam along -z. Rodrigues' formula for the smallest rotation.
    """
    x, y, z = np.array(beam.get_sample_to_source_direction()) / np.linalg.norm(beam.get_sample_to_source_direction())
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)


class NXmxWriter:
    """Write a NeXus file, whole or not at all; a context manager.

    Parameters
    ----------
    filename : path
        Where to.
    beam : Beam
        If it is not along -z, everything is turned by :func:`nxmx_frame`. Polarisation is not told.
    detector : Detector
        One NXdetector_module a panel, in one raw image where panels lie at their ``raw_image_offset``; below each other
        if they have none. Panels share sensor, trusted range and gain. Newer versions of dxtbx read the gain
        (data_scale_factor), 3.12 does not: there, and for a pedestal, ``dials.import geometry.detector.panel.gain=``.
    goniometer : Goniometer or MultiAxisGoniometer or None
        A goniometer of one axis with fixed or setting rotation becomes one of several axes.
    scan : Scan or None
        None for stills. dxtbx counts the images from 1.
    exposure : float, optional
        In seconds, if not the scan's.
    dtype : str
        Of the raw values: int16, uint16, int32 or uint32. Of the unsigned ones the two largest stand for -1 and -2.
    compression : {"gzip", "bitshuffle-lz4"}
    pixel_mask : tuple of ndarray, shape (slow, fast), bool, optional
        One a panel, True where a pixel is good. dxtbx 3.12 reads it only where panels are as wide as the raw image.

    Raises
    ------
    Sorry
        If NXmx or dxtbx cannot express the models, or the file cannot be written.
    """

    def __init__(
        self,
        filename: str | os.PathLike,
        *,
        beam: Beam,
        detector: Detector,
        goniometer: Goniometer | None,
        scan: Scan | None,
        exposure: float | None = None,
        dtype: str = "int32",
        compression: str = "gzip",
        pixel_mask: tuple[np.ndarray, ...] | None = None,
    ) -> None:
        self.filename = filename
        self.beam, self.detector, self.goniometer, self.scan = beam, detector, goniometer, scan
        self.exposure = _exposure(scan) if exposure is None else exposure
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.compression = compression
        self.pixel_mask = pixel_mask
        self.corners = _corners(detector)
        self.image_size = tuple(  # slow, fast
            max(corner[axis] + panel.get_image_size()[1 - axis] for corner, panel in zip(self.corners, detector))
            for axis in (0, 1)
        )

    def __enter__(self) -> NXmxWriter:
        with ExitStack() as stack:
            (part,) = stack.enter_context(whole_files(self.filename))
            self._file = stack.enter_context(quiet_file(part))
            handle = stack.enter_context(h5py.File(self._file, "w"))
            self._write_models(handle)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, frame_index: int, panels: tuple[np.ndarray, ...]) -> None:
        """Write the raw values of one frame, counted from 0: one array (slow, fast) a panel; -1 between the panels.

        Raises
        ------
        ValueError
            If a value does not fit the type.
        """
        info = np.iinfo(self.dtype)
        lowest, highest = (info.min, info.max) if info.min else (-2, info.max - 2)
        image = np.full(self.image_size, -1, dtype=np.int64)
        for (y, x), panel in zip(self.corners, panels):
            image[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
        if image.min() < lowest or image.max() > highest:
            raise ValueError(
                f"Frame {frame_index}: values from {image.min()} to {image.max()} do not fit {self.dtype}."
            )
        image = image.astype(self.dtype)
        if frame_index >= len(self._data):
            self._data.resize(frame_index + 1, axis=0)
        if self.compression == "gzip":
            self._data[frame_index] = image
        else:
            self._data.id.write_direct_chunk((frame_index, 0, 0), bitshuffle.compress(image))
        self._file.check()

    def _write_models(self, handle: h5py.File) -> None:
        frame = IMGCIF_TO_MCSTAS @ nxmx_frame(self.beam)
        handle.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": "dials_diffuse"})
        entry = new_group(handle, "entry", "NXentry", default="data")
        entry["definition"] = "NXmx"
        entry["start_time"] = "2026-01-01T00:00:00Z"
        source = new_group(entry, "source", "NXsource")
        source["name"] = "simulated"
        sample = new_group(entry, "sample", "NXsample")
        sample["name"] = "simulated"
        if self.scan is not None and self.goniometer is not None:
            _write_goniometer(sample, self.goniometer, self.scan, frame)
        instrument = new_group(entry, "instrument", "NXinstrument")
        instrument["name"] = "dials_diffuse"
        beam = new_group(instrument, "beam", "NXbeam")
        write_quantity(beam, "incident_wavelength", self.beam.get_wavelength(), "angstrom")
        detector = new_group(instrument, "detector", "NXdetector")
        self._write_detector(detector, frame)
        data = new_group(entry, "data", "NXdata", signal="data")
        gain = _shared(self.detector, Panel.get_gain, "gain")
        if gain != 1:
            data["data_scale_factor"] = 1 / gain
        self._data = self._create_data(data)

    def _write_detector(self, group: h5py.Group, frame: np.ndarray) -> None:
        material = _shared(self.detector, Panel.get_material, "sensor material")
        thickness = _shared(self.detector, Panel.get_thickness, "sensor thickness")
        if material not in MATERIALS or not thickness > 0:
            raise Sorry(
                f"dxtbx reads no sensor of {thickness:g} mm of {material or 'an unknown material'} from a NeXus file: "
                f"choose a thickness above 0, and a material of {', '.join(MATERIALS)}."
            )
        lowest, highest = _shared(self.detector, Panel.get_trusted_range, "trusted range")
        group["description"] = "simulated"
        group["sensor_material"] = material
        write_quantity(group, "sensor_thickness", thickness, "mm")
        group["underload_value"] = int(lowest) + (not limits_are_trusted())  # dxtbx 3.12 takes one off on reading
        group["saturation_value"] = int(highest)
        if self.dtype.kind == "u":
            group["bit_depth_readout"] = 8 * self.dtype.itemsize
        if self.exposure:
            write_quantity(group, "count_time", self.exposure, "s")
            write_quantity(group, "frame_time", self.exposure, "s")
        if self.pixel_mask is not None:
            bad = np.ones(self.image_size, dtype=np.uint32)  # bit 0: a gap
            for (y, x), good in zip(self.corners, self.pixel_mask):
                bad[y : y + good.shape[0], x : x + good.shape[1]] = 2 * ~good  # bit 1: dead
            group.create_dataset("pixel_mask", data=bad, compression="gzip", compression_opts=1)
        axes = new_group(group, "transformations", "NXtransformations")
        distance = float((frame @ self.detector[0].get_origin())[2])
        _axis(axes, "detector_z", distance, "mm", "translation", (0, 0, 1), ".")
        for number, (panel, corner) in enumerate(zip(self.detector, self.corners)):
            module = new_group(group, f"module_{number:04d}", "NXdetector_module")  # in alphabetical order for dxtbx
            _write_module(module, panel, corner, frame, axes["detector_z"].name, distance)

    def _create_data(self, group: h5py.Group) -> h5py.Dataset:
        frames = 0 if self.scan is None else self.scan.get_num_images()
        layout = {
            "shape": (frames, *self.image_size),
            "maxshape": (None, *self.image_size),
            "dtype": self.dtype,
            "chunks": (1, *self.image_size),
        }
        if self.compression == "gzip":
            return group.create_dataset("data", **layout, compression="gzip", compression_opts=1, shuffle=True)
        options = (0, bitshuffle.LZ4)  # the plug-in, where there is one, adds its version and the type's size itself
        if not h5py.h5z.filter_avail(bitshuffle.FILTER):
            options = (0, 4, self.dtype.itemsize, *options)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_filter(bitshuffle.FILTER, h5py.h5z.FLAG_OPTIONAL, options)
        return group.create_dataset("data", **layout, dcpl=properties)


def _exposure(scan: Scan | None) -> float | None:
    """The exposure time of all frames, None if it is unknown."""
    if scan is None:
        return None
    times = np.unique(np.array(scan.get_exposure_times(), dtype=float))
    if len(times) > 1:
        raise Sorry("dxtbx reads one exposure time for all frames from a NeXus file: simulate such a sweep as CBF.")
    return float(times[0])


def _corners(detector: Detector) -> list[tuple[int, int]]:
    """First row and column of each panel in the raw image."""
    corners = [panel.get_raw_image_offset()[::-1] for panel in detector]
    if len(set(corners)) == len(corners):
        return corners
    heights = [panel.get_image_size()[1] for panel in detector]
    return [(sum(heights[:number]), 0) for number in range(len(heights))]


def _shared(detector: Detector, get, what: str):
    """A property that all panels have in common."""
    values = {get(panel) for panel in detector}
    if len(values) > 1:
        raise Sorry(f"In a NeXus file all panels have the same {what}, not {sorted(values)}.")
    return values.pop()


def _write_module(
    group: h5py.Group, panel: Panel, corner: tuple[int, int], frame: np.ndarray, arm: str, distance: float
) -> None:
    """One panel, by a translation along the detector's arm and one of its own.

    The arm is shared by all modules because dxtbx makes it the root of the detector's hierarchy.
    """
    offset = frame @ panel.get_origin() - (0, 0, distance)
    length = np.linalg.norm(offset)
    direction = offset / length if length else (1.0, 0.0, 0.0)
    group["data_origin"] = np.array(corner, dtype=np.int64)
    group["data_size"] = np.array(panel.get_image_size()[::-1], dtype=np.int64)
    group["data_stride"] = np.ones(2, dtype=np.int64)
    _axis(group, "module_offset", length, "mm", "translation", direction, arm)
    fast, slow = panel.get_pixel_size()
    for name, size, axis in (("fast", fast, panel.get_fast_axis()), ("slow", slow, panel.get_slow_axis())):
        depends_on = group["module_offset"].name
        _axis(group, f"{name}_pixel_direction", size, "mm", "translation", frame @ axis, depends_on)


def _write_goniometer(sample: h5py.Group, goniometer: Goniometer, scan: Scan, frame: np.ndarray) -> None:
    """The chain of axes from the crystal outwards, with the angle of every frame for the axis that turns."""
    frames, (start, width) = scan.get_num_images(), scan.get_oscillation()
    axes = _rotations(goniometer)
    if (frames == 1 or width == 0) and len(axes) > 1 and not axes[0][3]:
        raise Sorry("dxtbx does not find out from a NeXus file which of several axes turned on a single frame.")
    group = new_group(sample, "transformations", "NXtransformations")
    for number, (name, axis, angle, turns) in enumerate(axes):
        depends_on = f"{group.name}/{axes[number + 1][0]}" if number + 1 < len(axes) else "."
        if turns:
            angle = start + width * np.arange(frames)
            write_quantity(group, f"{name}_end", angle + width, "deg")
        _axis(group, name, angle, "deg", "rotation", frame @ axis, depends_on)
    sample["depends_on"] = f"{group.name}/{axes[0][0]}"


def _rotations(goniometer: Goniometer) -> list[tuple[str, np.ndarray, float, bool]]:
    """Name, direction, angle (degrees) of the axes from the crystal outwards, and whether it is the one that turns."""
    if hasattr(goniometer, "get_axes"):
        scan_axis = goniometer.get_scan_axis()
        named = zip(goniometer.get_names(), goniometer.get_axes(), goniometer.get_angles())
        return [(name, np.array(axis), angle, number == scan_axis) for number, (name, axis, angle) in enumerate(named)]
    from scipy.spatial.transform import Rotation

    axes = [("omega", np.array(goniometer.get_rotation_axis_datum()), 0.0, True)]
    for name, matrix in (("fixed", goniometer.get_fixed_rotation()), ("setting", goniometer.get_setting_rotation())):
        vector = Rotation.from_matrix(np.array(matrix).reshape(3, 3)).as_rotvec()
        angle = np.linalg.norm(vector)
        if angle > 0:
            rotation = (name, vector / angle, float(np.degrees(angle)), False)
            axes = [rotation, *axes] if name == "fixed" else [*axes, rotation]
    return axes


def _axis(group: h5py.Group, name: str, value, units: str, kind: str, vector, depends_on: str) -> None:
    write_quantity(group, name, value, units)
    vector = np.asarray(vector, dtype=float)
    group[name].attrs.update({"transformation_type": kind, "vector": vector, "depends_on": depends_on})
