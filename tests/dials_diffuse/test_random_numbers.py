"""Random numbers by key."""

from __future__ import annotations

import numpy as np
from scipy import stats

from dials_diffuse.random_numbers import random_of_keys


def test_they_belong_to_keys():
    keys = np.random.default_rng(0).integers(-(2**40), 2**40, 1000)
    found = random_of_keys(keys, 3)
    order = np.random.default_rng(1).permutation(1000)
    np.testing.assert_array_equal(random_of_keys(keys[order], 3), found[order])
    assert len(np.unique(found)) == 1000


def test_they_are_uniform_and_independent():
    keys = np.arange(200_000)
    first, second = random_of_keys(keys, 0), random_of_keys(keys, 1)
    assert 0 <= first.min() < first.max() < 1
    for values in (first, second):
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    for one, other in ((first[1:], first[:-1]), (first, second), (first[:-1], second[1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(len(one))
    shifted = random_of_keys(keys + 1, 0)
    assert np.mean(second == shifted) < 1e-4  # another seed is not another place in the same sequence


def test_single_bits_of_keys_matter():
    one = random_of_keys(np.uint64(1) << np.arange(40, dtype=np.uint64), 0)
    assert stats.kstest(one, "uniform").pvalue > 1e-3
