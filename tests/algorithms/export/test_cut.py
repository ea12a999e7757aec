from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from hypothesis import given, settings
from hypothesis import strategies as st
from map_data import CELLS, random_map, voxels

from dials_diffuse.algorithms.export.cut import cut

LIMIT = st.floats(-3, 3)
RANGE = st.none() | st.tuples(LIMIT, LIMIT)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(CELLS)),
    st.tuples(RANGE, RANGE, RANGE),
    st.none() | st.floats(4, 15),
    st.none() | st.floats(4, 50),
)
def test_keeps_what_is_within_and_nothing_else(symbol, ranges, d_min, d_max):
    made = random_map(symbol, ndiv=(3, 3, 3), d_min=8)
    q = dict(zip(voxels(made), made.grid.q(np.array(list(voxels(made))))))
    expected = {
        n: value
        for n, value in voxels(made).items()
        if all(r is None or min(r) * 3 - 1e-6 <= x <= max(r) * 3 + 1e-6 for r, x in zip(ranges, n))
        and (d_min is None or q[n] <= 1 / d_min)
        and (d_max is None or q[n] >= 1 / d_max)
    }
    if not expected:
        with pytest.raises(Sorry, match="No measured voxel"):
            cut(made, ranges, d_min, d_max)
        return
    part = cut(made, ranges, d_min, d_max)
    assert voxels(part) == expected
    assert part.grid.d_min == max(made.grid.d_min, d_min or 0)
    for axis, limits, places in zip((part.h, part.k, part.l), ranges, np.array(list(expected)).T):
        if limits is not None:  # just that box
            low, high = min(limits), max(limits)
            assert low - 1e-6 <= axis[0] < low + 1 / 3 and high - 1 / 3 < axis[-1] <= high + 1e-6
        elif d_min is not None or d_max is not None:  # no larger than it must be, over all that is within d
            assert axis[0] * 3 <= places.min() + 1e-6 and axis[-1] * 3 >= places.max() - 1e-6


def test_box_beyond_what_was_measured_is_empty_there():
    made = random_map("P 1")
    wide = cut(made, ((-8, 7.5), None, (0, 40)))  # 32 voxels along h, as a Fourier transform likes them
    assert wide.h[0] == -8 and wide.h[-1] == 7.5 and wide.shape[0] == 32 and wide.l[-1] == 40
    assert voxels(wide) == {n: value for n, value in voxels(made).items() if n[2] >= 0}
    for name, values in wide.fields.items():
        assert values.dtype == made.fields[name].dtype
        assert values[0, 0, 0] == 0 or np.isnan(values[0, 0, 0])
    assert not wide.fields["observations"][np.isnan(wide.intensity)].any()


def test_no_limits_no_change():
    made = random_map("P 1")
    assert cut(made) is made


def test_too_much_is_refused():
    with pytest.raises(Sorry, match="too many: narrow them"):
        cut(random_map("P 1"), ((-1000, 1000), (-1000, 1000), (-1000, 1000)))


def test_thirds_with_a_few_digits():
    made = random_map("P 1", ndiv=(3, 3, 3))
    assert cut(made, ((-0.6666667, 0.3333333), None, None)).shape[0] == 4
