from __future__ import annotations

import numpy as np
import pytest
from cctbx import sgtbx, uctbx
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


def orthogonal_crystal() -> Crystal:
    return Crystal((40, 0, 0), (0, 50, 0), (0, 0, 60), "P1")


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


#: Each centring, rhombohedral in both settings and obverse on other axes, and settings that no table has.
CENTRED = {
    "P 1 2/m 1": (20, 30, 40, 90, 97, 90),
    "A 1 2 1": (20, 30, 40, 90, 97, 90),
    "B 1 1 2": (20, 30, 40, 90, 90, 97),
    "C 2 2 21": (20, 30, 40, 90, 90, 90),
    "I 1 2 1": (20, 30, 40, 90, 97, 90),
    "I 41/a": (30, 30, 50, 90, 90, 90),
    "F d -3 m": (40, 40, 40, 90, 90, 90),
    "R 3 :H": (30, 30, 50, 90, 90, 120),
    "R 3 :R": (30, 30, 30, 80, 80, 80),
    "C 1 2 1 (a-c,b,a+c)": None,
    "P 2 2 21 (a+b,b-a,c)": None,
    "R 3 :H (-a,-b,c)": None,
    "I 4 (b,c,a)": None,
}


@pytest.mark.parametrize("symbol", CENTRED)
def test_no_ellipsoid_where_centring_forbids_a_peak_and_everywhere_else(symbol):
    """By brute force: a peak is forbidden where a pure translation of the group puts it out of phase.

    What screw axes and glide planes extinguish is masked, for multiple scattering may show it.
    """
    group = sgtbx.space_group_info(symbol).group()
    cell = (
        uctbx.unit_cell(CENTRED[symbol])
        if CENTRED[symbol]
        else sgtbx.space_group_info(group=group).any_compatible_unit_cell(3e4)
    )
    real = np.array(cell.orthogonalization_matrix()).reshape(3, 3)
    crystal = Crystal(*(tuple(axis) for axis in real.T), group)
    shape = PeakShape(np.eye(3) * 1e-3, 0.0, np.array([1.0, 10.0]), np.array([[1, 1, 0], [2, 0, 0]]), 2.0)
    table = ellipsoids_of(shape, [crystal], 6.0, PARAMS).radius_squared
    hkl = np.indices(table.shape).reshape(3, -1).T - np.array(table.shape) // 2
    allowed = np.ones(len(hkl), dtype=bool)
    for operation in group:
        if operation.r().as_double() == (1, 0, 0, 0, 1, 0, 0, 0, 1):
            phase = hkl @ np.array(operation.t().as_double())
            allowed &= np.abs(phase - np.rint(phase)) < 1e-6
    assert ((table.ravel() > 0) == allowed).all()
    centred = group.n_ltr() > 1
    assert allowed.all() != centred
    absent = np.array([group.is_sys_absent(tuple(int(i) for i in index)) for index in hkl])
    assert (absent & allowed).any() == any(word in symbol for word in ("21", "41", "d -3"))


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
