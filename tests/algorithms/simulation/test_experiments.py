"""Every kind of experiment, held against what DIALS makes of the true models."""

from __future__ import annotations

import numpy as np
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.imageset import ImageSetFactory
from dxtbx.model.experiment_list import ExperimentListFactory
from iotbx.phil import parse
from scitbx import matrix

from dials_diffuse.algorithms.simulation.simulate import make_image, simulate
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.phil_scope.simulate import phil_scope

PEAKS_ONLY = (
    "sweeps=1 photons=0 background.photons=0 b.variation=0 b.decay=0 beam_stop.radius=0 detector.hot_pixels=0"
    " detector.dead_pixels=0 crystal.unit_cell=16,18,20,90,90,90 nproc=1 "
)
FLAT = "detector.model=custom detector.image_size=300,260 detector.distance=70 "


def make_truth(settings: str) -> Truth:
    return Truth(phil_scope.fetch(parse("\n".join((PEAKS_ONLY + settings).split()))).extract())


ROTATIONS = {
    "barrel": "detector.model=barrel detector.panel_size=200,28 detector.distance=50",
    "two_modules": "detector.model=two_modules detector.panel_size=240,130 detector.distance=60",
    "inverted": FLAT + "goniometer.invert=True oscillation.start=20",
    "kappa": FLAT + "goniometer.model=kappa oscillation.start=-5",
    "kappa, phi scan": FLAT + "goniometer.model=kappa goniometer.scan_axis=phi",
    "kappa, phi scan, inverted": FLAT + "goniometer.model=kappa goniometer.scan_axis=phi goniometer.invert=True",
    "crystal drift": FLAT + "drift.orientation=1 drift.cell=0.02",
    "drift": FLAT + "drift.orientation=0.8 drift.cell=-0.02 drift.beam=0.3 goniometer.model=kappa",
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_peaks_are_where_dials_predicts_them(name):
    """Centroids over pixels and frames; DIALS has the panels, the goniometer and the scan points from the models."""
    truth = make_truth("frames=30 oscillation.width=1 " + ROTATIONS[name])
    (experiment,) = truth.experiments()
    models = {name: getattr(experiment, name) for name in ("beam", "detector", "goniometer", "scan")}
    experiment.imageset = ImageSetFactory.make_sequence("a_####.cbf", list(range(1, 31)), check_format=False, **models)
    predicted = flex.reflection_table.from_predictions(experiment, dmin=1.2)
    frames = [truth.expected_image(0, i) for i in range(30)]
    brightest = max(panel.max() for images in frames for panel in images)
    panels, differences = set(), []
    for panel, position in zip(predicted["panel"], predicted["xyzcal.px"]):
        centroid = find_centroid([images[panel] for images in frames], position, 0.002 * brightest)
        if centroid is not None:
            panels.add(panel)
            differences.append(centroid - position)
    assert len(differences) > 20
    assert len(panels) == {"barrel": len(panels), "two_modules": 2}.get(name, 1)
    if name == "barrel":
        assert len(truth.detector) == 24 and len(panels) > 8
    assert np.abs(np.median(differences, axis=0)).max() < 0.03
    assert np.median(np.abs(differences), axis=0).max() < 0.1  # some cross the sphere for long, on a curve


def find_centroid(frames, position, least) -> np.ndarray | None:
    """Centroid (x, y, z) in a box round a position; None near the edges, for weak peaks, and for long crossings."""
    reach = np.array([7, 7, 4])
    shape = np.array([*frames[0].shape[::-1], len(frames)])
    middle = np.floor(position).astype(int)
    if np.any(middle < reach) or np.any(middle + reach >= shape):
        return None
    (x, y, z), (i, j, k) = middle - reach, middle + reach + 1
    box = np.array([frame[y:j, x:i] for frame in frames[z:k]])
    edge = np.ones(box.shape, dtype=bool)
    edge[1:-1, 1:-1, 1:-1] = False
    if box.max() < least or box[edge].sum() > 0.01 * box.sum():
        return None
    axes = np.meshgrid(*(np.arange(n) + 0.5 for n in box.shape), indexing="ij")
    return np.array([np.sum(axis * box) / box.sum() for axis in axes[::-1]]) + (x, y, z)


@pytest.mark.parametrize("scan_axis", ["omega", "phi"])
@pytest.mark.parametrize("invert", [False, True])
def test_rotation_is_that_of_dxtbx(scan_axis, invert):
    truth = make_truth(FLAT + f"goniometer.model=kappa goniometer.scan_axis={scan_axis} goniometer.invert={invert}")
    goniometer = truth.experiments()[0].goniometer
    assert (goniometer.get_setting_rotation() != (1, 0, 0, 0, 1, 0, 0, 0, 1)) == (scan_axis == "phi")
    axis = matrix.col(goniometer.get_rotation_axis_datum())
    for angle in (-40, 0, 77):
        turned = axis.axis_and_angle_as_r3_rotation_matrix(angle, deg=True)
        whole = matrix.sqr(goniometer.get_setting_rotation()) * turned * matrix.sqr(goniometer.get_fixed_rotation())
        np.testing.assert_allclose(truth.mounting.goniometer_rotation(angle).ravel(), whole.elems, atol=1e-12)
    np.testing.assert_allclose(truth.mounting.scan_axis, goniometer.get_rotation_axis(), atol=1e-12)
    assert abs(truth.mounting.scan_axis[0]) == pytest.approx(1) or scan_axis == "phi"


@pytest.mark.parametrize("space_group, cell", [("P4", "40,40,50,90,90,90"), ("C2", "60,35,40,90,104,90")])
def test_drift_keeps_the_crystal_system(space_group, cell):
    drift = "drift.cell=0.02 drift.orientation=0.5 drift.beam=0.1"
    truth = make_truth(f"frames=40 crystal.space_group={space_group} crystal.unit_cell={cell} {drift}")
    (experiment,) = truth.experiments()
    crystal, beam = experiment.crystal, experiment.beam
    assert crystal.num_scan_points == beam.num_scan_points == 41
    cells = [crystal.get_unit_cell_at_scan_point(i) for i in range(41)]
    assert all(truth.space_group.is_compatible_unit_cell(cell) for cell in cells)
    edges = np.array([cell.parameters()[0] for cell in cells]) / truth.cell.parameters()[0]
    assert 0.003 < np.ptp(edges) < 0.03
    assert np.abs(np.diff(edges, 2)).max() > 1e-6  # not linear
    u = [np.reshape(crystal.get_U_at_scan_point(i), (3, 3)) for i in (0, 40)]
    assert np.degrees(np.arccos((np.trace(u[0].T @ u[1]) - 1) / 2)) == pytest.approx(0.5, abs=1e-6)
    first, last = (np.array(beam.get_s0_at_scan_point(i)) for i in (0, 40))
    assert np.degrees(np.arccos(first @ last / (first @ first))) == pytest.approx(0.1, rel=0.02)
    # the diffuse intensity is a function of (h, k, l) all the same
    fixed = make_truth(f"frames=40 crystal.space_group={space_group} crystal.unit_cell={cell}")
    hkl = np.random.RandomState(0).uniform(-9, 9, (20, 3))
    np.testing.assert_array_equal(truth.bragg(hkl), fixed.bragg(hkl))


def test_lattices_add():
    settings = FLAT + "photons=1 frames=12 "
    two = make_truth(settings + "lattices.number=2 lattices.bragg=0.5 lattices.diffuse=0.3")
    first, second = two.experiments()
    assert first.beam is second.beam and first.detector is second.detector and first.scan is second.scan
    turn = matrix.sqr(first.crystal.get_U()).transpose() * matrix.sqr(second.crystal.get_U())
    assert turn.trace() < 2.9

    def image(crystal, part: str) -> np.ndarray:
        """What one crystal alone gives: its ``diffuse`` or its ``bragg``."""
        alone = Truth(make_truth(settings).params, {**dict.fromkeys(two.scales, 0.0), part: two.scales[part]})
        alone.orientations[0] = np.reshape(crystal.get_U(), (3, 3))
        return alone.expected_image(0, 5)[0]

    parts = [image(crystal, part) for crystal in (first.crystal, second.crystal) for part in ("diffuse", "bragg")]
    expected = parts[0] + parts[1] + 0.3 * parts[2] + 0.5 * parts[3]
    np.testing.assert_allclose(two.expected_image(0, 5)[0], expected, rtol=1e-9, atol=1e-12)
    assert all(part.max() > 0.1 for part in parts)
    two.params.lattices.diffuse = 0
    np.testing.assert_allclose(two.expected_image(0, 5)[0], parts[0] + parts[1] + 0.5 * parts[3], atol=1e-12)


STILLS = FLAT + "stills=True frames=4 "


def test_every_still_has_its_crystal_and_factor():
    truth = make_truth(STILLS + "b.variation=0.4 bragg.photons=3e5")
    experiments = truth.experiments()
    assert len(experiments) == 4 and len(set(experiments.identifiers())) == 4
    assert all(experiment.scan is None and experiment.goniometer is None for experiment in experiments)
    b = truth.b_of_frames(0)
    assert b.mean() == pytest.approx(1) and 0.1 < np.std(b) < 0.4
    panel, s0 = truth.detector[0], np.array(truth.beam.get_s0())
    for frame, experiment in enumerate(experiments):
        (image,) = truth.expected_image(0, frame)
        y, x = np.unravel_index(np.argsort(image.ravel())[::-1][:20], image.shape)
        lab = np.array([panel.get_lab_coord(panel.pixel_to_millimeter((i + 0.5, j + 0.5))) for i, j in zip(x, y)])
        q = lab / np.linalg.norm(lab, axis=1)[:, None] * np.linalg.norm(s0) - s0
        hkl = q @ np.linalg.inv(np.reshape(experiment.crystal.get_A(), (3, 3))).T
        assert np.abs(hkl - np.rint(hkl)).max() < 0.1
        # the intensity is that of the peaks' Gaussians on the sphere
        response = truth.pixels[0].response[y, x] * truth.sweeps[0].exposure
        np.testing.assert_allclose(image[y, x], b[frame] * response * truth.bragg(hkl), rtol=1e-3)


def test_scale_of_stills():
    """bragg.photons are those of a reflection near q = 0 that lies on the sphere."""
    truth = make_truth(STILLS + "bragg.photons=2000 response.air=False bragg.mosaicity=0")
    peak = np.array([[1.0, 1.0, 0.0]])
    normalised = truth.bragg(peak)[0] / truth._bragg.intensity[np.all(truth._bragg.hkl == peak, axis=1)][0]
    expected = truth.scales["bragg"] * normalised  # of a peak of intensity 1, at its middle
    sigma, wavelength = truth.params.bragg.sigma, truth.beam.get_wavelength()
    active = truth.pixels[0].response
    efficiency = np.median(active) / (0.172**2 / truth.detector[0].get_distance() ** 2)
    # integral over the sphere: 2 pi sigma^2 = wavelength^-2 times a solid angle
    photons = truth.sweeps[0].exposure * expected * efficiency * 2 * np.pi * sigma**2 * wavelength**2
    assert photons == pytest.approx(2000, rel=1e-6)


def test_counts_are_photons_times_gain_plus_pedestal():
    settings = "sweeps=1 frames=2 photons=3 bragg.photons=0 clouds.contrast=0.2 detector.model=custom format=nxmx "
    counting = settings + "detector.gain=2 detector.pedestal=40"
    plain, truth = (Truth(phil_scope.fetch(parse("\n".join(text.split()))).extract()) for text in (settings, counting))
    (good,), (expected,), (counts,) = truth.mask(), truth.expected_image(0, 1), make_image(truth, 0, 1)
    np.testing.assert_array_equal(counts[good], np.rint(2 * make_image(plain, 0, 1)[0][good] + 40))
    mean, n = expected[good], good.sum()
    assert counts[good].mean() == pytest.approx(2 * mean.mean() + 40, abs=5 * 2 * np.sqrt(mean.mean() / n))
    dispersion = np.mean((counts[good] - 2 * mean - 40) ** 2 / (4 * mean))
    assert dispersion == pytest.approx(1, abs=5 * np.sqrt((2 + np.mean(1 / mean)) / n))
    hot, _, dead = truth.bad_pixels
    assert np.all(counts.ravel()[dead] == 40)
    panel = truth.experiments()[0].detector[0]
    assert (panel.get_gain(), panel.get_pedestal()) == (2, 40)


@pytest.mark.parametrize("data_type, largest", [("int16", 32765), ("uint16", 65533), ("int32", 1048500)])
def test_values_are_cut_off(data_type, largest):
    truth = Truth(
        phil_scope.fetch(
            parse(
                f"sweeps = 1\nframes = 1\nformat = nxmx\nbragg.photons = 1e9\ndetector.data_type = {data_type}\n"
                "detector.model = 300K"
            )
        ).extract()
    )
    (image,) = make_image(truth, 0, 0)
    assert image.max() == largest == truth.detector[0].get_trusted_range()[1]
    assert np.all(image[~truth.pixels[0].active] == -1)


FORMATS = {
    "cbf.gz": (FLAT, "sweep_1_*.cbf.gz"),
    "cbf.bz2": (FLAT, "sweep_1_*.cbf.bz2"),
    "smv": (FLAT + "detector.thickness=0 detector.gain=2 detector.pedestal=40 ", "sweep_1_*.img"),
    "nxmx": (ROTATIONS["barrel"] + " ", "sweep_1.nxs"),
    "nxmx kappa": (ROTATIONS["kappa, phi scan"] + " detector.data_type=uint16 ", "sweep_1.nxs"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_images_come_back(tmp_path, name):
    """Headers tell the truth, without tilts; pixels are as made; the true models take the images."""
    settings, pattern = FORMATS[name]
    settings += (
        f"format={name.split()[0]} frames=3 photons=5 background.photons=0.2 background.images=2"
        " beam.tilt=0 detector.tilt=0,0 header.perturb=False"
    )
    (tmp_path / pattern.replace("*", "0007")).touch()  # of an earlier simulation
    truth = simulate(make_truth(settings).params, tmp_path)
    names = sorted(str(path) for path in tmp_path.glob(pattern))
    (found,) = ExperimentListFactory.from_filenames(names)
    (true,) = truth.experiments(check_format=True)
    assert len(found.imageset) == len(true.imageset) == 3
    for panel, expected in zip(found.detector, true.detector):
        np.testing.assert_allclose(panel.get_pixel_lab_coord((7, 3)), expected.get_pixel_lab_coord((7, 3)), atol=1e-4)
    assert found.scan.get_oscillation() == pytest.approx(true.scan.get_oscillation())
    assert found.scan.get_exposure_times()[0] == pytest.approx(0.1)
    np.testing.assert_allclose(found.goniometer.get_rotation_axis(), true.goniometer.get_rotation_axis(), atol=1e-9)
    for experiment in (found, true):
        for i in range(3):
            for data, made in zip(experiment.imageset.get_raw_data(i), make_image(truth, 0, i)):
                np.testing.assert_array_equal(flumpy.to_numpy(data), made)
    assert true.imageset.get_detector() == truth.detector
    if name == "smv":
        assert (found.detector[0].get_gain(), found.detector[0].get_pedestal()) == (2, 40)
    names = sorted(str(path) for path in tmp_path.glob("background*"))
    (background,) = ExperimentListFactory.from_filenames(names)
    assert len(background.imageset) == 2


@pytest.mark.parametrize("image_format", ["cbf", "nxmx"])
def test_images_of_stills(tmp_path, image_format):
    truth = simulate(make_truth(STILLS + f"format={image_format} photons=2").params, tmp_path)
    experiments = truth.experiments(check_format=True)
    for frame, experiment in enumerate(experiments):
        assert len(experiment.imageset) == 1 and experiment.imageset.get_scan() is None
        data = flumpy.to_numpy(experiment.imageset.get_raw_data(0)[0])
        np.testing.assert_array_equal(data, make_image(truth, 0, frame)[0])
    assert np.any(make_image(truth, 0, 0)[0] != make_image(truth, 0, 1)[0])


@pytest.mark.parametrize(
    "settings, message",
    [
        ("detector.model=barrel", "needs format=nxmx"),
        ("detector.model=barrel format=nxmx detector.beam_centre=1,2", "beam_centre does not go"),
        ("detector.model=barrel format=nxmx detector.distance=30", "do not fit round"),
        ("format=smv detector.data_type=int32", "stores uint16"),
        ("format=smv stills=True", "rotation only"),
        ("stills=True drift.beam=1", "do not drift"),
        ("stills=True crystal.orientation=1,2,3", "crystal of its own"),
    ],
)
def test_contradictions_are_explained(tmp_path, settings, message):
    with pytest.raises(Sorry, match=message):
        simulate(make_truth(settings).params, tmp_path / "images")
    assert not (tmp_path / "images").exists()
