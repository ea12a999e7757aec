from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from dials.algorithms.integration import Corrections
from iotbx.phil import parse
from scitbx import matrix

from dials_diffuse.algorithms import simulation
from dials_diffuse.algorithms.simulation.pixels import air_attenuation
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.phil_scope.simulate import phil_scope

SMALL = (
    "frames=10 detector.model=custom detector.image_size=150,120 detector.distance=60 detector.beam_centre=40,-20"
    " detector.hot_pixels=0 detector.dead_pixels=0 "
)


def make_truth(settings: str = "") -> Truth:
    """The truth of a small detector, with settings as on a command line."""
    return Truth(phil_scope.fetch(parse("\n".join((SMALL + settings).split()))).extract())


CRYSTALS = {
    "P212121": "39.5,45.2,51.3,90,90,90",
    "P4": "40,40,51.3,90,90,90",
    "P43212": "40,40,51.3,90,90,90",
    "C2": "60,35,40,90,104,90",
    "P6122": "45,45,60,90,90,120",
    "I23": "50,50,50,90,90,90",
}


@pytest.fixture(scope="module", params=CRYSTALS)
def crystal(request):
    return make_truth(f"crystal.space_group={request.param} crystal.unit_cell={CRYSTALS[request.param]}")


def test_nothing_of_the_reduction_is_imported():
    allowed = ("algorithms.simulation", "program", "output", "provenance", "parallel", "phil_scope.simulate")
    allowed += ("images", "nexus")  # how dxtbx's versions read the trusted range; groups and units
    allowed += ("algorithms.absolute.incoherent",)  # a table
    for name in Path(simulation.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(name.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                if module.startswith("dials_diffuse."):
                    assert module[len("dials_diffuse.") :].startswith(allowed), (name, module)


def test_laue_symmetry(crystal):
    hkl = np.random.RandomState(3).uniform(-15, 15, (200, 3))
    peaks = np.array(np.rint(hkl), dtype=float)
    for operation in crystal.space_group.build_derived_laue_group():
        rotation = np.array(operation.r().as_double()).reshape(3, 3)
        np.testing.assert_allclose(crystal.diffuse(hkl @ rotation), crystal.diffuse(hkl), rtol=1e-9)
        np.testing.assert_allclose(crystal.bragg(peaks @ rotation), crystal.bragg(peaks), rtol=1e-9)


def test_absences(crystal):
    peaks = np.array([(h, k, l) for h in range(-4, 5) for k in range(5) for l in range(5) if (h, k, l) != (0, 0, 0)])
    absent = np.array([crystal.space_group.is_sys_absent(tuple(int(i) for i in peak)) for peak in peaks])
    q = np.linalg.norm(peaks @ crystal._orthogonal.T, axis=1)
    seen = q < crystal.pixels[0].q_length.max()
    intensity = crystal.bragg(peaks)
    assert np.all(intensity[absent] == 0)
    assert np.all(intensity[~absent & seen] > 0)


def test_halos_stand_on_the_lattice_points():
    truth = make_truth(
        "crystal.space_group=I23 crystal.unit_cell=50,50,50,90,90,90 clouds.strength=0 compton.strength=0"
        " halos.width=0.002"
    )
    between = np.random.RandomState(0).uniform(0.2, 0.8, (50, 3))
    present, absent = np.array([[8.0, 5, 3]]), np.array([[8.0, 5, 4]])
    assert truth.diffuse(present) > 20 * truth.diffuse(absent)
    assert truth.diffuse(present) > 10 * truth.diffuse(present + between).max()
    # at its width, a Lorentzian squared has fallen to a quarter (and its dependence on |q| is slow)
    offset = truth.params.halos.width * np.array([[0.6, 0, 0.8]]) * 50
    mean = (truth.diffuse(present + offset) + truth.diffuse(present - offset)) / 2
    assert mean / truth.diffuse(present) == pytest.approx(0.25, rel=0.03)


def test_diffuse_formula():
    """Against the formula written as text, on an orthogonal cell."""
    truth = make_truth()
    hkl = np.random.RandomState(1).uniform(-12, 12, (30, 3))
    model, params = truth._diffuse, truth.params
    edges = np.array(truth.cell.parameters()[:3])
    q2 = np.sum((hkl / edges) ** 2, axis=1)
    amplitude = (
        model.cloud_constant + np.cos(2 * np.pi * hkl @ model.cloud_vectors[:, :3].T) @ model.cloud_vectors[:, 3]
    )
    distance2 = np.sum((np.sin(np.pi * hkl) / np.pi / edges) ** 2, axis=1)
    width2, b = params.halos.width**2, params.bragg.b_factor
    clouds = q2 / 0.3**2 * np.exp(1 - q2 / 0.3**2) * amplitude**2
    halos = 3 * (b * q2 / 2) * np.exp(1 - b * q2 / 2) * (width2 / (distance2 + width2)) ** 2
    compton = 0.4 * (1 - 2 ** (-q2 / 0.35**2))
    np.testing.assert_allclose(truth.diffuse(hkl), truth.scales["diffuse"] * (clouds + halos + compton), rtol=1e-9)
    assert len(model.cloud_vectors) == 6 * 4  # mmm makes four of a vector, up to the sign


def test_clouds_are_anisotropic_and_positive():
    truth = make_truth("halos.strength=0 compton.strength=0")
    random = np.random.RandomState(2)
    for q in (0.2, 0.35, 0.5):
        directions = random.normal(size=(20000, 3))
        directions *= q / np.linalg.norm(directions, axis=1)[:, None]
        values = truth.diffuse(directions @ np.linalg.inv(truth._orthogonal).T)
        assert np.all(values >= 0)
        assert values.std() / values.mean() > 0.3
        expected = truth.scales["diffuse"] * (q / 0.3) ** 2 * np.exp(1 - (q / 0.3) ** 2)
        assert values.mean() == pytest.approx(expected, rel=0.2)


def test_bragg_intensities_follow_wilson():
    truth = make_truth("crystal.unit_cell=60,70,80,90,90,90")
    model = truth._bragg
    q2 = np.sum((model.hkl / np.array([60.0, 70, 80])) ** 2, axis=1)
    normalised = model.intensity / np.exp(-truth.params.bragg.b_factor * q2 / 2) / truth.scales["bragg"]
    assert normalised.mean() == pytest.approx(1, abs=0.05)
    assert np.mean(normalised**2) == pytest.approx(2, abs=0.25)


def test_voxel_mean():
    truth = make_truth()
    index = np.array([[12, 4, -7], [9, 3, 6], [31, 2, 5]])  # 9, 3, 6 is the Bragg point 3, 1, 2
    steps = (np.arange(60) + 0.5) / 60 - 0.5
    box = np.array(np.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, -1).T
    dense = [truth.diffuse((n + box) / 3).mean() for n in index]
    np.testing.assert_allclose(truth.voxel_mean(index, (3, 3, 3)), dense, rtol=3e-3)
    np.testing.assert_allclose(truth.voxel_mean(index, (3, 3, 3), samples=12), dense, rtol=2e-4)


TERMS = "sweeps=2 frames=10,14 a.strength=0.2 c.strength=0.5 d.strength=0.15 background.variation=0.3"


def test_gauges():
    truth = make_truth(TERMS)
    x, y = np.arange(150) + 0.5, np.arange(120)[:, None] + 0.5
    first = truth.sweeps[0]
    assert np.mean([truth.b(0, first.angle(i)) for i in range(first.frames)]) == pytest.approx(1)
    assert truth.d(x, y).mean() == pytest.approx(1, abs=1e-4)
    q = np.linspace(0, 0.7, 30)
    for sweep, model in enumerate(truth.sweeps):
        angles = model.angle(np.arange(model.frames))
        for phi in angles:
            assert truth.a(sweep, x, y, phi).mean() == pytest.approx(1, abs=1e-4)
        c = np.array([truth.c(sweep, q, phi) for phi in angles])
        np.testing.assert_allclose(c.min(axis=0), 0, atol=1e-9 * c.max())
        assert np.all(c >= 0) and c.max() > 0.3 * truth.scales["diffuse"] * 0.5
    assert truth.b(1, 3.0) / truth.b(0, 3.0) < 1  # the second sweep's scale is 0.8, their waves differ


def test_photon_levels():
    truth = make_truth("photons=0.05 background.photons=0.2 bragg.photons=0 frames=9")
    (good,), (air,) = truth.mask(), truth.background_rate()
    air = air * truth.sweeps[0].exposure
    means = [truth.expected_image(0, i)[0][good].mean() for i in range(9)]
    assert air[good].mean() == pytest.approx(0.2)
    assert np.mean(means) - 0.2 == pytest.approx(0.05, rel=0.01)
    assert truth.background_image(0)[0][good].mean() == pytest.approx(0.2 * 10)  # 1 s for 0.1 s


def test_forward_model_against_dials():
    """A pixel at a time with the models and C++ of DIALS, the rotation in small steps."""
    truth = make_truth(TERMS + " beam_stop.radius=0 detector.tilt=1.5,-2")
    sweep, frame = 1, 6
    experiment = truth.experiments()[sweep]
    (panel,), beam, scan = experiment.detector, experiment.beam, experiment.scan
    corrections = Corrections(beam, experiment.detector)
    (image,) = truth.expected_image(sweep, frame)
    peaks = np.argsort(image.ravel())[::-1][:40:8]
    ordinary = np.random.RandomState(4).choice(image.size, 25)
    for flat in (*peaks, *ordinary):
        y, x = divmod(int(flat), image.shape[1])
        position = matrix.col(panel.get_lab_coord(panel.pixel_to_millimeter((x + 0.5, y + 0.5))))
        s1 = position.normalize() / beam.get_wavelength()
        q = s1 - matrix.col(beam.get_s0())
        cosine = abs(position.normalize().dot(matrix.col(panel.get_normal())))
        response = 0.172**2 * cosine / position.length_sq()
        response *= corrections.qe(s1.elems, 0) / corrections.lp(s1.elems)
        response *= np.exp(-air_attenuation(beam.get_wavelength()) * position.length())
        axis, a_inverse = (
            matrix.col(experiment.goniometer.get_rotation_axis()),
            matrix.sqr(experiment.crystal.get_A()).inverse(),
        )
        start = scan.get_angle_from_array_index(frame)
        angles = start + (np.arange(400) + 0.5) / 400 * scan.get_oscillation()[1]
        rotations = [axis.axis_and_angle_as_r3_rotation_matrix(angle, deg=True) for angle in angles]
        hkl = np.array([(a_inverse * r.inverse() * q).elems for r in rotations])
        phi = truth.sweeps[sweep].angle(frame)
        signal = truth.b(sweep, phi) * truth.total(hkl).mean() + truth.c(sweep, q.length(), phi)
        signal *= truth.a(sweep, x + 0.5, y + 0.5, phi) * truth.d(x + 0.5, y + 0.5)
        background = truth.background_rate(phi)[0][y, x]
        expected = scan.get_exposure_times()[frame] * (response * signal + background)
        assert image[y, x] == pytest.approx(expected, rel=2e-3), (x, y)


def test_integral_of_a_bragg_peak():
    """All photons of a peak: t/dphi lambda^2 J P E A / |(m x q).s1/|s1||; that is what the Lorentz factor is about."""
    truth = make_truth(
        "photons=0 background.photons=0 b.variation=0 b.decay=0 frames=60 crystal.unit_cell=16,18,20,90,90,90"
        " detector.image_size=200,300 detector.distance=100 detector.beam_centre=100,-60 beam_stop.radius=0"
    )
    (panel,), s0, first, model = truth.detector, np.array(truth.beam.get_s0()), truth.sweeps[0], truth._bragg
    per_radian = first.exposure / np.radians(first.width)
    checked = 0
    for row in range(len(model.hkl)):
        found = crossing(truth, model.hkl[row])
        if found is None:
            continue
        frame, q = found
        s1 = s0 + q
        position = panel.get_ray_intersection(tuple(s1))
        x, y = panel.millimeter_to_pixel(position)
        speed = abs(np.cross([1.0, 0, 0], q) @ s1 / np.linalg.norm(s1))
        if not (30 < x < 170 and 30 < y < 270) or speed < 0.1:
            continue
        truth.__dict__["_bragg"] = model._replace(
            intensity=np.where(np.arange(len(model.hkl)) == row, model.intensity, 0)
        )
        total = sum(truth.expected_image(0, i)[0].sum() for i in range(frame - 8, frame + 9))
        distance = np.linalg.norm(panel.get_lab_coord(position))
        response = truth.pixels[0].response[int(y), int(x)] / (0.172**2 * panel.get_distance() / distance**3)
        expected = per_radian * truth.beam.get_wavelength() ** 2 * model.intensity[row] * response / speed
        assert total == pytest.approx(expected, rel=5e-3)
        checked += 1
    assert checked > 10


def crossing(truth, hkl):
    """Frame, and q in the laboratory, at which a peak crosses the Ewald sphere in the middle of the sweep."""
    s0, angles = np.array(truth.beam.get_s0()), np.radians(truth.sweeps[0].angle(np.arange(10, 50, 0.01)))
    x, y, z = truth.orientations[0] @ truth._orthogonal @ hkl
    cosine, sine = np.cos(angles), np.sin(angles)
    q = np.array([np.full_like(angles, x), y * cosine - z * sine, y * sine + z * cosine]).T
    excess = np.linalg.norm(s0 + q, axis=1) - np.linalg.norm(s0)
    at = np.flatnonzero(np.diff(np.sign(excess)))
    return (10 + int(0.01 * at[0]), q[at[0]]) if len(at) == 1 else None


def test_file_holds_the_truth(tmp_path):
    truth = make_truth(TERMS)
    truth.templates = [str(tmp_path / "images" / "sweep_1_####.cbf")] * 2
    truth.write(tmp_path / "truth.json")
    again = Truth.from_file(tmp_path / "truth.json")
    assert again.templates == truth.templates
    np.testing.assert_array_equal(again.expected_image(1, 3)[0], truth.expected_image(1, 3)[0])
