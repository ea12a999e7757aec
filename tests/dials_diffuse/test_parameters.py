from __future__ import annotations

import pytest
from dials.util import Sorry

from dials_diffuse.parameters import parameters


def test_defaults_and_assignments():
    assert parameters("extract").grid.ndiv == [3, 3, 3]
    params = parameters(
        "extract", "grid.ndiv=2,2,1", "d_min=1.6", "untrusted.circle=531,494,30", "untrusted.circle=1,2,3"
    )
    assert (params.grid.ndiv, params.d_min) == ([2, 2, 1], 1.6)
    assert [region.circle for region in params.mask.untrusted] == [[531, 494, 30], [1, 2, 3]]
    assert parameters("extract").d_min is None


@pytest.mark.parametrize("program", ["simulate", "mask", "extract", "correct", "scale", "merge"])
def test_every_program_has_them(program):
    assert parameters(program).output.log == f"dials.diffuse_{program}.log"


def test_what_is_wrong_is_said():
    with pytest.raises(Sorry, match="There is no program dials.diffuse_refine"):
        parameters("refine")
    with pytest.raises(Sorry, match="dmin"):
        parameters("extract", "dmin=1.6")
    with pytest.raises(Sorry, match="grid.ndiv.* dials.diffuse_extract -c -e2 -a1 shows all parameters"):
        parameters("extract", "grid.ndiv=0,1,1")
