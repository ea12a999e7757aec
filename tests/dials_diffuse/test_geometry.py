"""The first test of any geometry: spots map to integers."""

from __future__ import annotations

import numpy as np
import pytest
from dials.algorithms.spot_prediction import ScanStaticReflectionPredictor
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from kappa_experiment import kappa_experiment
from scitbx import matrix

from dials_diffuse.geometry import IndexMapping, pixel_directions


def predicted(experiment: Experiment) -> flex.reflection_table:
    """Where DIALS's own predictor puts the spots."""
    reflections = ScanStaticReflectionPredictor(experiment, dmin=2.0).for_ub(experiment.crystal.get_A())
    assert len(reflections) > 300
    return reflections


def assert_integers(experiment, reflections, tolerance):
    x, y, z = (flumpy.to_numpy(part) for part in reflections["xyzcal.px"].parts())
    panels = np.array(reflections["panel"])
    mapping = IndexMapping(experiment)
    expected = np.array(reflections["miller_index"])
    for panel in set(panels):
        these = panels == panel
        h = mapping.hkl(int(panel), x[these], y[these], z[these])
        assert np.abs(h - expected[these]).max() < tolerance


@pytest.mark.parametrize("sense", [1, -1])
def test_predicted_spots_map_to_integers(sense):
    experiment = kappa_experiment()
    axis = experiment.goniometer.get_rotation_axis_datum()
    experiment.goniometer.set_rotation_axis_datum([sense * a for a in axis])
    reflections = predicted(experiment)
    assert len(set(reflections["panel"])) == 4
    assert np.ptp(np.array(reflections["xyzcal.px"])[:, 2]) > 250
    assert_integers(experiment, reflections, 1e-4)


def test_scan_varying_models_are_interpolated():
    experiment = kappa_experiment()
    n = len(range(*experiment.scan.get_array_range())) + 1
    a = matrix.sqr(experiment.crystal.get_A())
    drift = [matrix.col((1, 2, -1)).axis_and_angle_as_r3_rotation_matrix(0.004 * i, deg=True) for i in range(n)]
    experiment.crystal.set_A_at_scan_points([r * a * (1 + 1e-5 * i) for i, r in enumerate(drift)])
    s0 = matrix.col(experiment.beam.get_s0())
    experiment.beam.set_s0_at_scan_points(flex.vec3_double([(r * s0).elems for r in drift]))
    mapping = IndexMapping(experiment)
    first = experiment.scan.get_array_range()[0]
    assert mapping.setting_matrix(first + 7).ravel() == pytest.approx(experiment.crystal.get_A_at_scan_point(7))
    assert mapping.s0(first + 7.0) == pytest.approx(experiment.beam.get_s0_at_scan_point(7))
    midway = (np.array(experiment.beam.get_s0_at_scan_point(7)) + experiment.beam.get_s0_at_scan_point(8)) / 2
    assert mapping.s0(first + 7.5) == pytest.approx(midway)
    # A spot of h = (3, -4, 5) at the middle of a frame: solve the other way round, by dxtbx
    z = first + 100.5
    q = mapping.crystal_frame(z) @ mapping.setting_matrix(z) @ np.array([3, -4, 5])
    assert mapping.q_to_hkl(z) @ q == pytest.approx([3, -4, 5])


def test_stills_have_no_rotation():
    experiment = kappa_experiment()
    experiment.scan = None
    experiment.goniometer = None
    mapping = IndexMapping(experiment)
    h = np.array([2.0, -3.0, 4.0])
    q = np.array(experiment.crystal.get_A()).reshape(3, 3) @ h
    assert mapping.q_to_hkl(0.5) @ q == pytest.approx(h)


def test_directions_of_pixel_centres():
    panel = kappa_experiment().detector[2]
    for x, y in ((0, 0), (179, 0), (77, 333), (179, 499)):
        lab = matrix.col(panel.get_lab_coord(panel.pixel_to_millimeter((x + 0.5, y + 0.5)))).normalize()
        assert pixel_directions(panel, np.array([x + 0.5]), np.array([y + 0.5]))[0] == pytest.approx(lab.elems)


def test_real_spots_map_to_integers(snase):
    """Every image: predicted positions exactly, observed ones as well as the refinement's RMSD allows."""
    experiment = ExperimentList.from_file("refined.expt", check_format=False)[0]
    reflections = flex.reflection_table.from_file("refined.refl")
    reflections = reflections.select(reflections.get_flags(reflections.flags.used_in_refinement))
    assert_integers(experiment, reflections, 1e-4)

    x, y, z = (flumpy.to_numpy(part) for part in reflections["xyzobs.px.value"].parts())
    off = np.abs(IndexMapping(experiment).hkl(0, x, y, z) - np.array(reflections["miller_index"])).max(axis=1)
    # RMSDs of 0.40 px, 0.72 px (at 57 mm) and 0.18 degrees are 0.03 to 0.1 of an index at the edge of the detector.
    for frame in range(10):
        on_frame = (z >= frame) & (z < frame + 1)
        assert on_frame.sum() > 200
        assert np.median(off[on_frame]) < 0.08 and np.percentile(off[on_frame], 95) < 0.2
