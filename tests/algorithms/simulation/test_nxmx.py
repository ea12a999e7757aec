"""NXmx files through dxtbx's own reader: what is written comes back."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import (
    BeamFactory,
    Detector,
    Goniometer,
    GoniometerFactory,
    MultiAxisGoniometer,
    ParallaxCorrectedPxMmStrategy,
    ScanFactory,
)
from dxtbx.model.experiment_list import ExperimentListFactory
from scipy.spatial.transform import Rotation
from scitbx.array_family import flex

from dials_diffuse.algorithms.simulation import bitshuffle
from dials_diffuse.algorithms.simulation.instrument import attenuation_in_silicon
from dials_diffuse.algorithms.simulation.nxmx import NXmxWriter, nxmx_frame
from dials_diffuse.images import frame_arrays, limits_are_trusted

IDENTITY = np.eye(3)
WAVELENGTH = 0.98
THICKNESS = 0.45
#: Neighbouring limits of what is trusted: dxtbx 3.12 leaves the limits themselves out.
TRUSTED = (0, 60000) if limits_are_trusted() else (-1, 60000)


def add_panel(detector, fast, slow, origin, size, offset=None):
    panel = detector.add_panel()
    panel.set_frame(tuple(fast), tuple(slow), tuple(origin))
    panel.set_pixel_size((0.1, 0.12))
    panel.set_image_size(size)
    panel.set_trusted_range(TRUSTED)
    panel.set_thickness(THICKNESS)
    panel.set_material("Si")
    mu = attenuation_in_silicon(WAVELENGTH)
    panel.set_mu(mu)
    panel.set_px_mm_strategy(ParallaxCorrectedPxMmStrategy(mu, THICKNESS))
    if offset:
        panel.set_raw_image_offset(offset)


def flat_detector():
    detector = Detector()
    add_panel(detector, (1, 0, 0), (0, -1, 0), (-3.1, 4.2, -100), (60, 70))
    return detector


def two_tilted_panels():
    detector = Detector()
    for number, tilt in enumerate((8, -12)):
        turn = Rotation.from_euler("xyz", (tilt, 3 * tilt, 5), degrees=True)
        fast, slow = turn.apply([(1, 0, 0), (0, -1, 0)])
        add_panel(detector, fast, slow, (-3 + number, 2 - 9 * number, -90), (50, 40), (7 * number, 45 * number))
    return detector


def barrel():
    """24 panels about the spindle, beneath each other in the raw image."""
    detector = Detector()
    for number in range(24):
        turn = Rotation.from_euler("x", 10 * number - 115, degrees=True)
        fast, slow, origin = turn.apply([(1, 0, 0), (0, -1, 0), (-5, 8, -100)])
        add_panel(detector, fast, slow, origin, (40, 20))
    return detector


def kappa(scan_axis, names=("phi", "kappa", "omega")):
    axes = flex.vec3_double([(1, 0, 0), (0.914, 0.279, -0.297), (1, 0, 0)])
    return MultiAxisGoniometer(axes, flex.double([12, 34, -56]), flex.std_string(names), scan_axis)


def mounted():
    """A goniometer of one axis with fixed and setting rotation."""
    goniometer = Goniometer((0, 0, 1))
    goniometer.set_fixed_rotation(Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix().ravel())
    goniometer.set_setting_rotation(Rotation.from_euler("xyz", (1, -2, 3), degrees=True).as_matrix().ravel())
    return goniometer


GONIOMETERS = {
    "one axis": GoniometerFactory.single_axis,
    "opposite axis": GoniometerFactory.single_axis_reverse,
    "fixed and setting": mounted,
    "kappa, omega turns": lambda: kappa(2),
    "kappa, phi turns": lambda: kappa(0),
}
DETECTORS = {"one panel": flat_detector, "two tilted": two_tilted_panels, "barrel": barrel}


def make_scan(frames=3):
    return ScanFactory.make_scan((1, frames), [0.04] * frames, (17.5, 0.2), {i: 0 for i in range(1, frames + 1)})


def make_frames(detector, frames=3, highest=70, seed=1):
    random = np.random.default_rng(seed)
    shapes = [panel.get_image_size()[::-1] for panel in detector]
    return [tuple(random.integers(-2, highest, shape).astype(np.int32) for shape in shapes) for _ in range(frames)]


def write(filename, detector, frames, *, beam=None, **options):
    options = {"goniometer": GoniometerFactory.single_axis(), "scan": make_scan(frames=len(frames)), **options}
    with NXmxWriter(filename, beam=beam or BeamFactory.simple(WAVELENGTH), detector=detector, **options) as writer:
        for index, panels in enumerate(frames):
            writer.write(index, panels)
    return ExperimentListFactory.from_filenames([str(filename)])


def rotation(goniometer, angle):
    """What the goniometer does with the crystal at an angle in degrees, shape (3, 3)."""
    setting, fixed = (
        np.array(matrix).reshape(3, 3)
        for matrix in (goniometer.get_setting_rotation(), goniometer.get_fixed_rotation())
    )
    axis = np.radians(angle) * np.array(goniometer.get_rotation_axis_datum())
    return setting @ Rotation.from_rotvec(axis).as_matrix() @ fixed


def assert_same_panels(detector, expected, turn=IDENTITY):
    assert len(detector) == len(expected)
    for panel, given in zip(detector, expected):
        for name in ("origin", "fast_axis", "slow_axis"):
            vector = getattr(panel, f"get_{name}")()
            assert vector == pytest.approx(turn @ getattr(given, f"get_{name}")(), abs=1e-9), name
        for name in ("pixel_size", "image_size", "trusted_range", "thickness", "material", "mu"):
            assert getattr(panel, f"get_{name}")() == pytest.approx(getattr(given, f"get_{name}")()), name
        where = (11.5, 7.25)
        assert panel.pixel_to_millimeter(where) == pytest.approx(given.pixel_to_millimeter(where), abs=1e-9)
        assert panel.get_px_mm_strategy().__class__ is ParallaxCorrectedPxMmStrategy


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
def test_detectors_and_pixels(tmp_path, detector):
    detector = detector()
    frames = make_frames(detector)
    (experiment,) = write(tmp_path / "images.nxs", detector, frames)
    assert_same_panels(experiment.detector, detector)
    assert experiment.beam.get_s0() == pytest.approx((0, 0, -1 / WAVELENGTH))
    assert experiment.imageset.get_format_class().__name__ == "FormatNXmx"
    for index, panels in enumerate(frames):
        for raw, given in zip(frame_arrays(experiment.imageset, index), panels):
            assert np.array_equal(raw, given)


@pytest.mark.parametrize("goniometer", GONIOMETERS.values(), ids=GONIOMETERS)
def test_goniometers_and_scans(tmp_path, goniometer):
    given, scan, detector = goniometer(), make_scan(), flat_detector()
    (experiment,) = write(tmp_path / "images.nxs", detector, make_frames(detector), goniometer=given, scan=scan)
    assert experiment.scan.get_image_range() == (1, 3)
    assert list(experiment.scan.get_exposure_times()) == [0.04] * 3
    assert experiment.scan.get_oscillation() == pytest.approx((17.5, 0.2))
    assert experiment.goniometer.get_rotation_axis() == pytest.approx(given.get_rotation_axis(), abs=1e-9)
    for angle in (0, 17.6):
        assert rotation(experiment.goniometer, angle) == pytest.approx(rotation(given, angle), abs=1e-9)
    if isinstance(given, MultiAxisGoniometer):
        assert list(experiment.goniometer.get_names()) == ["phi", "kappa", "omega"]
        assert experiment.goniometer.get_scan_axis() == given.get_scan_axis()


def test_a_tilted_beam_turns_the_laboratory(tmp_path):
    beam = BeamFactory.make_beam(sample_to_source=(0.02, -0.01, 1), wavelength=WAVELENGTH)
    turn, detector, goniometer = nxmx_frame(beam), two_tilted_panels(), kappa(2)
    assert turn @ turn.T == pytest.approx(np.eye(3))
    assert turn @ beam.get_s0() == pytest.approx((0, 0, -1 / WAVELENGTH))
    (experiment,) = write(tmp_path / "images.nxs", detector, make_frames(detector), beam=beam, goniometer=goniometer)
    assert_same_panels(experiment.detector, detector, turn)
    expected = turn @ rotation(goniometer, 20) @ turn.T
    assert rotation(experiment.goniometer, 20) == pytest.approx(expected, abs=1e-9)


def test_stills(tmp_path):
    detector = flat_detector()
    frames = make_frames(detector, frames=4)
    options = {"goniometer": None, "scan": None, "exposure": 1e-3}
    experiments = write(tmp_path / "stills.nxs", detector, frames, **options)
    assert sum(len(imageset) for imageset in experiments.imagesets()) == 4
    assert all(experiment.scan is None for experiment in experiments)
    assert_same_panels(experiments[0].detector, detector)
    arrays = [frame_arrays(imageset, i)[0] for imageset in experiments.imagesets() for i in range(len(imageset))]
    assert np.array_equal(arrays, [panels[0] for panels in frames])


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32"])
def test_types(tmp_path, dtype):
    detector = flat_detector()
    highest = {"int16": 2**15, "uint16": 2**16 - 2, "int32": 2**31 - 1, "uint32": 2**31 - 2}[dtype]
    frames = make_frames(detector, highest=highest)
    (experiment,) = write(tmp_path / "images.nxs", detector, frames, dtype=dtype)
    with h5py.File(tmp_path / "images.nxs") as handle:
        assert handle["entry/data/data"].dtype == dtype
        assert handle["entry/data/data"].chunks == (1, 70, 60)
    for index, (given,) in enumerate(frames):
        assert np.array_equal(frame_arrays(experiment.imageset, index)[0], given)


def test_a_value_that_does_not_fit_leaves_no_file(tmp_path):
    detector = flat_detector()
    with pytest.raises(ValueError, match="do not fit uint16"):
        write(tmp_path / "images.nxs", detector, make_frames(detector, highest=200_000), dtype="uint16")
    assert not list(tmp_path.iterdir())


def test_pixel_mask(tmp_path):
    detector = barrel()
    masks = tuple(np.random.default_rng(2).random(panel.get_image_size()[::-1]) > 0.1 for panel in detector)
    (experiment,) = write(tmp_path / "images.nxs", detector, make_frames(detector), pixel_mask=masks)
    for read, given in zip(experiment.imageset.external_lookup.mask.data, masks):
        assert np.array_equal(flumpy.to_numpy(read.data()), given)


def test_gain_is_told(tmp_path):
    detector = two_tilted_panels()
    for panel in detector:
        panel.set_gain(2.5)
    (experiment,) = write(tmp_path / "images.nxs", detector, make_frames(detector))
    assert experiment.detector[1].get_gain() in (2.5, 1)  # 1 before dxtbx read data_scale_factor
    with h5py.File(tmp_path / "images.nxs") as handle:
        assert handle["entry/data/data_scale_factor"][()] == 0.4


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda detector: detector[1].set_trusted_range((-5, 7)), "the same trusted range"),
        (lambda detector: [panel.set_material("Ge") for panel in detector], "no sensor of 0.45 mm of Ge"),
        (lambda detector: [panel.set_thickness(0) for panel in detector], "a thickness above 0"),
    ],
)
def test_what_cannot_be_said(tmp_path, change, match):
    detector = two_tilted_panels()
    change(detector)
    with pytest.raises(Sorry, match=match):
        write(tmp_path / "images.nxs", detector, make_frames(detector))
    assert not list(tmp_path.iterdir())


def unshuffled(chunk, dtype, size):
    """What a chunk holds, decoded by the LZ4 library and numpy."""
    lz4 = pytest.importorskip("lz4.block")
    itemsize = np.dtype(dtype).itemsize
    total, block = int.from_bytes(chunk[:8], "big"), int.from_bytes(chunk[8:12], "big")
    assert total == size * itemsize
    at, out = 12, b""
    while total - len(out) >= 8 * itemsize:
        length = min(block, (total - len(out)) // (8 * itemsize) * 8 * itemsize)
        packed = int.from_bytes(chunk[at : at + 4], "big")
        planes = lz4.decompress(chunk[at + 4 : at + 4 + packed], uncompressed_size=length)
        bits = np.unpackbits(np.frombuffer(planes, np.uint8).reshape(8 * itemsize, -1), axis=1, bitorder="little")
        out += np.packbits(bits.T, axis=1, bitorder="little").tobytes()
        at += 4 + packed
    return np.frombuffer(out + chunk[at:], dtype)


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<i4", "<u4"])
@pytest.mark.parametrize("size", [1, 8, 13, 2048, 40_003])
@pytest.mark.parametrize("highest", [1, 5, 30_000])
def test_bitshuffle(dtype, size, highest):
    array = np.random.default_rng(4).integers(0, highest, size).astype(dtype)
    array[size // 2 :: 97] = highest
    chunk = bitshuffle.compress(array)
    assert np.array_equal(unshuffled(chunk, dtype, size), array)
    if highest == 1 and size > 10_000:
        assert len(chunk) < 0.2 * array.nbytes


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32"])
def test_bitshuffle_is_read_where_the_plug_in_is(tmp_path, dtype):
    detector = two_tilted_panels()
    frames = make_frames(detector)
    options = {"dtype": dtype, "compression": "bitshuffle-lz4"}
    (experiment,) = write(tmp_path / "images.nxs", detector, frames, **options)
    with h5py.File(tmp_path / "images.nxs") as handle:
        layout = handle["entry/data/data"].id.get_create_plist()
        code, _, values, _ = layout.get_filter(0)
        assert (code, values[2:5]) == (bitshuffle.FILTER, (np.dtype(dtype).itemsize, 0, bitshuffle.LZ4))
        _, chunk = handle["entry/data/data"].id.read_direct_chunk((1, 0, 0))
        image = unshuffled(chunk, np.dtype(dtype).newbyteorder("<"), 85 * 57).reshape(85, 57)
        assert np.array_equal(image[45:85, 7:57], frames[1][1].astype(dtype))
    if not h5py.h5z.filter_avail(bitshuffle.FILTER):
        pytest.skip("HDF5's plug-in for bitshuffle is not installed")
    for index, panels in enumerate(frames):
        for raw, given in zip(frame_arrays(experiment.imageset, index), panels):
            assert np.array_equal(raw, given)
