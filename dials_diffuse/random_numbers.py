"""Random numbers that belong to a key, not to a place in a sequence: the same wherever and in whatever order they are
asked for."""

from __future__ import annotations

import numpy as np


def random_of_keys(keys: np.ndarray, seed: int) -> np.ndarray:
    """A number from 0 to 1 for each key; equal keys have equal ones.

    Parameters
    ----------
    keys : ndarray, shape (n,), int
    seed : int
        Other seeds give independent numbers.

    Returns
    -------
    ndarray, shape (n,), float

    Notes
    -----
    The output function of SplitMix64 (Steele, Lea & Flood (2014) ACM SIGPLAN Notices 49, 453, figure 16), twice, the
    second time on the mixed key with the mixed seed added.
    """
    state = _mixed(np.asarray(keys).astype(np.uint64)) + _mixed(np.array([seed], dtype=np.int64).astype(np.uint64))
    return (_mixed(state) >> np.uint64(11)) * 2.0**-53


def _mixed(state: np.ndarray) -> np.ndarray:
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
