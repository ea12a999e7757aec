from __future__ import annotations

import numpy as np
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model import Crystal
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.masking.ellipsoid_mask import EllipsoidBraggMask, ellipsoids_of
from dials_diffuse.algorithms.masking.peak_shape import PeakShape, fit_spread, measure_peak_shape
from dials_diffuse.phil_scope.mask import phil_scope

PARAMS = phil_scope.extract().bragg_mask.ellipsoid


@pytest.mark.parametrize("growth", [0.0, 5.0])
def test_spread_of_known_peaks(growth):
    rng = np.random.default_rng(0)
    covariance = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -0.3], [0.5, -0.3, 5.0]]) * 1e-3
    q_squared = rng.random(1500) * 0.4
    points = rng.multivariate_normal(np.zeros(3), covariance, (1500, 300))
    points *= np.sqrt(1 + growth * q_squared)[:, None, None]
    moments = np.einsum("nki,nkj->nij", points, points) / 300
    found, found_growth = fit_spread(moments, q_squared)
    assert found == pytest.approx(covariance, rel=0.1, abs=1e-4)
    assert found_growth == pytest.approx(growth, abs=0.6)


@pytest.mark.xdist_group("main_job")
def test_peaks_of_the_simulator(two_sweeps):
    """Its peaks are isotropic in 1/A, of standard deviation 0.0013 1/A and a little more at large q."""
    experiment = ExperimentList.from_file(two_sweeps / "sweep_1" / "refined.expt", check_format=False)[0]
    reflections = flex.reflection_table.from_file(str(two_sweeps / "sweep_1" / "refined.refl"))
    shape = measure_peak_shape([experiment], [reflections], PARAMS)
    b = np.array(experiment.crystal.get_B()).reshape(3, 3)
    in_angstrom = b @ shape.covariance @ b.T
    assert np.sqrt(np.linalg.eigvalsh(in_angstrom)) == pytest.approx(0.0013, rel=0.15)
    # a frame of 0.5 degrees spreads peaks along one direction, mosaicity of 0.03 degrees along two
    expected = (np.radians(0.5) ** 2 / 12 + 2 * np.radians(0.03) ** 2) / 3 / 0.0013**2
    assert shape.growth == pytest.approx(expected, rel=0.5)


def orthogonal_crystal(symbol: str = "P1") -> Crystal:
    return Crystal((40, 0, 0), (0, 50, 0), (0, 0, 60), symbol)


def test_ellipsoids_grow_until_the_tail_is_faint():
    shape = PeakShape(
        np.eye(3) * 1e-3, 0.0, np.array([1.0, 1e3, 1e5]), np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3]]), 2.0
    )
    table = ellipsoids_of(shape, [orthogonal_crystal()], 10.0, PARAMS).radius_squared
    centre = np.array(table.shape) // 2

    def radius_squared(*hkl):
        return table[tuple(centre + hkl)]

    tail = PARAMS.residual * 2.0
    assert 1e5 * np.exp(-radius_squared(0, 0, 3) / 2) == pytest.approx(tail, rel=1e-4)
    assert 1e3 * np.exp(-radius_squared(0, 2, 0) / 2) == pytest.approx(tail, rel=1e-4)
    assert radius_squared(0, 0, -3) == radius_squared(0, 0, 3)  # Friedel's mate, not measured
    assert radius_squared(1, 0, 0) == pytest.approx(PARAMS.n_sigma**2)


def test_no_ellipsoid_where_no_peak_can_be():
    shape = PeakShape(np.eye(3) * 1e-3, 0.0, np.array([1.0, 10.0]), np.array([[1, 1, 0], [2, 0, 0]]), 2.0)
    table = ellipsoids_of(shape, [orthogonal_crystal("I222")], 10.0, PARAMS).radius_squared
    h, k, l = np.indices(table.shape) - np.array(table.shape)[:, None, None, None] // 2
    assert ((table > 0) == ((h + k + l) % 2 == 0)).all()


def test_width_from_the_profile_model(snase):
    from dials.algorithms.profile_model.gaussian_rs import Model

    experiment = ExperimentList.from_file("refined.expt", check_format=False)[0]
    reflections = flex.reflection_table.from_file("refined.refl")
    del reflections["shoebox"]
    experiment.profile = Model(None, 3, 0.05, 0.6, deg=True)
    shape = measure_peak_shape([experiment], [reflections], PARAMS)
    b = np.array(experiment.crystal.get_B()).reshape(3, 3)
    for q in (0.0, 0.5):
        expected = (np.radians(0.05) / 0.908) ** 2 + (np.radians(0.6) * q) ** 2
        found = b @ shape.covariance @ b.T * (1 + shape.growth * q**2)
        assert found == pytest.approx(expected * np.eye(3), rel=1e-3, abs=1e-9)


def test_unindexed_reflections_are_refused(snase):
    experiment = ExperimentList.from_file("refined.expt", check_format=False)[0]
    reflections = flex.reflection_table.from_file("refined.refl")
    reflections["miller_index"] = flex.miller_index(len(reflections), (0, 0, 0))
    with pytest.raises(Sorry, match="No reflection of .* is indexed"):
        EllipsoidBraggMask(experiment, reflections, 2.0, PARAMS)
