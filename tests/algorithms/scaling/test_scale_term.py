from __future__ import annotations

import numpy as np
import pytest
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent1D
from dials.array_family import flex

from dials_diffuse.algorithms.scaling.scale_term import STEPS_PER_KNOT, ScaleTerm


@pytest.mark.parametrize("n_params", [2, 3, 5, 12])
def test_table_is_the_basis_of_dials(n_params):
    parameters = np.random.default_rng(0).uniform(0.5, 1.5, n_params)
    term = ScaleTerm(flex.double(parameters))
    x = np.linspace(0, term.n_intervals, 500)
    reference = SmoothScaleComponent1D(flex.double(parameters))
    reference.data = {"x": flex.double(x)}
    reference.update_reflection_data()
    found = (term.basis_table() @ parameters)[term.table_row(x)]
    wanted = np.array(reference.calculate_scales())
    near_step = np.abs(x - np.round(x)) < 0.01  # the smoother drops its farthest neighbour there
    np.testing.assert_allclose(found[~near_step], wanted[~near_step], atol=1e-3)
    np.testing.assert_allclose(found, wanted, atol=0.02)
    assert np.count_nonzero(term.basis_table(), axis=1).max() <= 3


def test_origin_stays_when_a_part_is_selected():
    term = ScaleTerm(flex.double([1, 2, 3, 4, 5, 6.0]))
    x = flex.double(np.linspace(0, 4, 101))
    term.data = {"x": x}
    term.update_reflection_data()
    whole = np.array(term.calculate_scales())
    term.update_reflection_data(selection=x > 2)
    np.testing.assert_allclose(np.array(term.calculate_scales()), whole[np.array(x) > 2])


def test_one_parameter_is_a_factor():
    term = ScaleTerm(flex.double([0.7]))
    assert set((term.basis_table() @ [0.7])[term.table_row(np.array([-3, 0, 0.2, 9]))]) == {0.7}


def test_beyond_the_range_the_ends_hold():
    term = ScaleTerm(flex.double(6, 1.0))
    assert term.table_row(np.array([-1.0, 99.0])).tolist() == [0, 4 * STEPS_PER_KNOT]
