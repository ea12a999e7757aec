from __future__ import annotations

import numpy as np
import pytest
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent1D
from dials.array_family import flex

from dials_diffuse.algorithms.scaling.axis import Axis, basis_table, dense_basis
from dials_diffuse.algorithms.scaling.scale_term import ScaleTerm


@pytest.mark.parametrize("n_params", [2, 3, 5, 12])
def test_basis_is_that_of_dials(n_params):
    parameters = np.random.default_rng(0).uniform(0.5, 1.5, n_params)
    axis = Axis("phi", 10.0, 2.0, n_params)
    x = np.linspace(0, axis.n_intervals, 500)
    reference = SmoothScaleComponent1D(flex.double(parameters))
    reference.data = {"x": flex.double(x)}
    reference.update_reflection_data()
    found = dense_basis(axis, 10 + 2 * x) @ parameters
    wanted = np.array(reference.calculate_scales())
    near_step = np.abs(x - np.round(x)) < 0.01  # the smoother drops its farthest neighbour there
    np.testing.assert_allclose(found[~near_step], wanted[~near_step], atol=1e-3)
    np.testing.assert_allclose(found, wanted, atol=0.02)
    np.testing.assert_allclose(basis_table(n_params)[1].sum(axis=1), 1)


@pytest.mark.parametrize("low,high,spacing,intervals", [(0, 1, 2, 1), (0, 10, 5, 2), (3, 13, 3, 4), (0, 0, 1, 1)])
def test_knots_fit_the_range(low, high, spacing, intervals):
    axis = Axis.over("q", low, high, spacing)
    assert axis.n_intervals == intervals
    assert axis.spacing <= spacing
    np.testing.assert_allclose(axis.knots(low), 0)
    if high > low:
        np.testing.assert_allclose(axis.knots(high), intervals)
    assert Axis(**axis.to_dict()) == axis


def test_beyond_the_range_the_ends_hold():
    axis = Axis.over("phi", 0, 20, 5)
    np.testing.assert_allclose(dense_basis(axis, [-7, 90]), dense_basis(axis, [0, 20]))


def test_origin_stays_when_a_part_is_selected():
    term = ScaleTerm((Axis("phi", 0.0, 1.0, 6),), flex.double([1, 2, 3, 4, 5, 6.0]))
    x = flex.double(np.linspace(0, 4, 101))
    term.data = {"x": x}
    term.update_reflection_data()
    whole = np.array(term.calculate_scales())
    term.update_reflection_data(selection=x > 2)
    np.testing.assert_allclose(np.array(term.calculate_scales()), whole[np.array(x) > 2])
