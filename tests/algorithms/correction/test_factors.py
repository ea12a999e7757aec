"""Each factor against an independent implementation, derivation or table."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from cctbx import factor_ev_angstrom
from correction_data import make_experiment, random_positions, tilted_detector
from dials.algorithms.integration import Corrections
from dials.util import Sorry
from dxtbx.model import Beam, Detector, Experiment

from dials_diffuse.algorithms.correction.air_attenuation import AirAttenuation, parse_composition
from dials_diffuse.algorithms.correction.combined import CombinedCorrection, correction_scope
from dials_diffuse.algorithms.correction.detector_efficiency import DetectorEfficiency
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.lorentz import Lorentz
from dials_diffuse.algorithms.correction.polarisation import Polarisation
from dials_diffuse.algorithms.correction.solid_angle import SolidAngle


def model(cls, **values):
    """A correction with its default parameters, some changed."""
    params = cls.phil_scope.extract()
    for name, value in values.items():
        setattr(params, name, value)
    return cls(params)


@pytest.fixture
def geometries():
    """Random positions on each of three tilted panels with parallax."""
    experiment = make_experiment()
    return [PixelGeometry(experiment, panel, random_positions(200, panel, 1)) for panel in range(3)]


def rays(geometry):
    """Rays by dxtbx's scalar functions, one by one."""
    panel = geometry.panel
    return [panel.get_lab_coord(panel.pixel_to_millimeter((x, y))) for x, y, _ in geometry.xyz]


def test_geometry_is_dxtbx_with_parallax(geometries):
    for geometry in geometries:
        expected = np.array(rays(geometry))
        assert np.allclose(geometry.position, expected, rtol=0, atol=1e-9)
        plain = [geometry.panel.get_lab_coord((x * 0.172, y * 0.2)) for x, y, _ in geometry.xyz]
        assert np.linalg.norm(expected - plain, axis=1).max() > 0.02  # mm: there is parallax to be taken care of
        assert np.allclose(geometry.distance, np.linalg.norm(expected, axis=1))
        scan = geometry.experiment.scan
        angles = [scan.get_angle_from_array_index(z, deg=False) for z in geometry.xyz[:, 2]]
        assert np.allclose(geometry.rotation_angle, angles)


def test_polarisation_and_efficiency_are_those_of_dials(geometries):
    for geometry in geometries:
        dials = Corrections(geometry.beam, geometry.experiment.detector)
        s1 = rays(geometry)
        polarisation = [1 / dials.lp(ray) for ray in s1]
        assert np.ptp(polarisation) > 0.02
        assert np.allclose(model(Polarisation).factor(geometry), polarisation, rtol=1e-12)
        efficiency = [dials.qe(ray, geometry.panel_index) for ray in s1]
        assert np.allclose(model(DetectorEfficiency).factor(geometry), efficiency, rtol=1e-12)


def test_polarisation_is_two_incoherent_beams(geometries):
    """The electric vector e radiates as 1 - (e . s1)^2; the beam is p of one polarisation and 1 - p of the other."""
    for geometry in geometries:
        beam, s1 = geometry.beam, geometry.s1
        normal = np.array(beam.get_polarization_normal())
        in_plane = np.cross(normal, beam.get_unit_s0())
        p = beam.get_polarization_fraction()
        expected = p * (1 - (s1 @ in_plane) ** 2) + (1 - p) * (1 - (s1 @ normal) ** 2)
        assert np.allclose(model(Polarisation).factor(geometry), expected, rtol=1e-12)


def test_lorentz_is_that_of_dials_and_off(geometries):
    assert not correction_scope().extract().correction.lorentz.use
    for geometry in geometries:
        experiment = geometry.experiment
        still = Corrections(experiment.beam, experiment.detector)
        rotation = Corrections(experiment.beam, experiment.goniometer, experiment.detector)
        expected = [still.lp(ray) / rotation.lp(ray) for ray in rays(geometry)]
        assert np.allclose(model(Lorentz).factor(geometry), expected, rtol=1e-9)
    experiment = geometries[0].experiment
    still = PixelGeometry(Experiment(beam=experiment.beam, detector=experiment.detector), 0, geometries[0].xyz)
    assert np.all(model(Lorentz).factor(still) == 1)


def test_solid_angles_of_a_closed_box_add_up_to_the_sphere():
    detector, n = Detector(), 150
    for normal_axis in range(3):
        for sign in (-1, 1):
            axes = np.roll(np.eye(3), normal_axis, axis=0)
            panel = detector.add_panel()
            panel.set_pixel_size((200 / n, 200 / n))
            panel.set_image_size((n, n))
            panel.set_frame(
                tuple(axes[0]), tuple(axes[1]), tuple(-100 * axes[0] - 100 * axes[1] + sign * 100 * axes[2])
            )
    experiment = Experiment(beam=Beam((0, 0, 1), 1.3), detector=detector)
    centres = np.stack([*np.mgrid[:n, :n].reshape(2, -1) + 0.5, np.zeros(n * n)], axis=-1)
    total = sum(model(SolidAngle).factor(PixelGeometry(experiment, i, centres)).sum() for i in range(6))
    assert total == pytest.approx(4 * np.pi, rel=1e-4)


def test_solid_angle_of_a_pixel_is_that_of_its_rectangle():
    """Against the exact solid angle of two triangles: van Oosterom & Strackee, IEEE Trans. BME 30 (1983) 125, eq. 8."""
    experiment = make_experiment(detector=tilted_detector(mu=0))
    for i, panel in enumerate(experiment.detector):
        xyz = np.floor(random_positions(50, i, 2)) + 0.5
        found = model(SolidAngle).factor(PixelGeometry(experiment, i, xyz))
        for (x, y, _), omega in zip(xyz, found):
            corners = [
                np.array(panel.get_pixel_lab_coord((x + dx, y + dy)))
                for dx, dy in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
            ]
            exact = triangle(*corners[:3]) + triangle(corners[0], *corners[2:])
            assert omega == pytest.approx(exact, rel=1e-5)


def triangle(a, b, c):
    """Solid angle of a triangle seen from the origin."""
    la, lb, lc = (np.linalg.norm(corner) for corner in (a, b, c))
    volume = abs(np.dot(a, np.cross(b, c)))
    return 2 * np.arctan2(volume, la * lb * lc + np.dot(a, b) * lc + np.dot(b, c) * la + np.dot(c, a) * lb)


@pytest.mark.parametrize(("kev", "mass_attenuation"), [(8, 9.921), (10, 5.120), (15, 1.614), (20, 0.7779)])
def test_air_is_nist_dry_air(kev, mass_attenuation):
    """NIST's table "Air, Dry (near sea level)", mu/rho in cm^2/g; 1.2041 kg/m^3 at 20 C and 101.325 kPa."""
    mu = model(AirAttenuation).coefficient(factor_ev_angstrom / (1000 * kev))
    assert mu == pytest.approx(mass_attenuation * 1.2041e-3 / 10, rel=3e-3)


def test_air_depends_on_pressure_temperature_and_gas(geometries):
    geometry = geometries[0]
    reference = np.log(model(AirAttenuation).factor(geometry))
    mu = model(AirAttenuation).coefficient(geometry.beam.get_wavelength())
    assert np.allclose(reference, -mu * geometry.distance)
    thin = model(AirAttenuation, pressure=101325 / 2, temperature=293.15 * 2)
    assert np.allclose(np.log(thin.factor(geometry)), reference / 4)
    assert np.allclose(model(AirAttenuation, path=30.0).factor(geometry), np.exp(-30 * mu))
    assert np.all(model(AirAttenuation, composition=["He:1"]).factor(geometry) > 0.9995)
    # He at 20 C and 1 atm, 0.1664 kg/m^3, NIST 0.2476 cm^2/g at 10 keV
    helium = model(AirAttenuation, composition=["He:1"]).coefficient(factor_ev_angstrom / 10000)
    assert helium == pytest.approx(0.2476 * 0.1664e-3 / 10, rel=3e-3)


@pytest.mark.parametrize("item", ["N2", "N2:", "N2:x", "Qq:1", ":1", "N2:-1", "n2:1"])
def test_bad_composition(item):
    with pytest.raises(Sorry, match="composition"):
        parse_composition([item])


def test_air_beyond_the_tables():
    with pytest.raises(Sorry, match="air_attenuation"):
        model(AirAttenuation).coefficient(20.0)


def test_unknown_sensor_warns_once_and_changes_nothing(caplog):
    caplog.set_level(logging.WARNING)
    params = correction_scope().extract().correction
    corrections = CombinedCorrection(params)
    for number in range(2):
        experiment = make_experiment(number, tilted_detector(mu=0))
        for panel in range(3):
            factor = corrections.factor(PixelGeometry(experiment, panel, random_positions(20, panel, 3)))
            assert np.isfinite(factor).all() and (factor > 0).all()
    assert corrections.summary()["detector_efficiency"] == {"minimum": 1, "mean": 1, "maximum": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "panel-0" in caplog.text and "geometry.detector.panel" in caplog.text


def test_combined_is_the_product_and_reports(geometries):
    params = correction_scope().extract().correction
    params.polarisation.use = False
    corrections = CombinedCorrection(params)
    expected = [
        model(SolidAngle).factor(g) * model(DetectorEfficiency).factor(g) * model(AirAttenuation).factor(g)
        for g in geometries
    ]
    for geometry, product in zip(geometries, expected):
        assert np.allclose(corrections.factor(geometry), product)
    summary = corrections.summary()
    assert list(summary) == ["solid_angle", "detector_efficiency", "air_attenuation"]
    omega = np.concatenate([model(SolidAngle).factor(g) for g in geometries])
    assert summary["solid_angle"] == pytest.approx(
        {"minimum": omega.min(), "mean": omega.mean(), "maximum": omega.max()}
    )


def test_a_factor_that_is_not_positive_names_its_correction():
    """A Lorentz factor on the rotation axis is infinite."""
    params = correction_scope().extract().correction
    params.lorentz.use = True
    detector = Detector()
    panel = detector.add_panel()
    panel.set_pixel_size((0.1, 0.1))
    panel.set_image_size((100, 100))
    panel.set_frame((0, 1, 0), (0, 0, 1), (80, -5, -5))  # on the rotation axis, x
    experiment = make_experiment(detector=detector)
    experiment.goniometer.set_rotation_axis((1, 0, 0))
    experiment.beam.set_unit_s0((0, 0, -1))
    with pytest.raises(Sorry, match="lorentz"):
        CombinedCorrection(params).factor(PixelGeometry(experiment, 0, np.array([[50.0, 50.0, 1.0]])))
