"""A sample of the voxels: what needs no more than a part of the observations is taken from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dials_diffuse.algorithms.scaling.observations import GroupedObservations

#: Observations in it, at least, and for each parameter.
OBSERVATIONS, OBSERVATIONS_EACH = 300_000, 60
#: Bins of |q| that have as many of them each, where there are so many.
RADIAL_BINS = 50


@dataclass
class Sample:
    """Some of m voxels.

    Attributes
    ----------
    voxels : ndarray, shape (k,), int
    chosen : ndarray, shape (n,), bool
        Which observations are theirs.
    stands_for : ndarray, shape (k,)
        How many voxels each stands for.
    """

    voxels: np.ndarray
    chosen: np.ndarray
    stands_for: np.ndarray

    @property
    def is_all(self) -> bool:
        return bool(self.chosen.all())

    @classmethod
    def of_all(cls, observations: GroupedObservations) -> Sample:
        """All voxels."""
        m = len(observations.voxels)
        return cls(np.arange(m), np.ones(len(observations.rows), dtype=bool), np.ones(m))


def choose_sample(observations: GroupedObservations, q: np.ndarray, n_parameters: int, seed: int) -> Sample:
    """Voxels at random, with as many observations at every |q|, so that what few voxels tell is not left out.

    All of them if the sample would be half of the observations.

    Parameters
    ----------
    q : ndarray, shape (m,)
        1/Angstrom.
    """
    wanted = max(OBSERVATIONS, OBSERVATIONS_EACH * n_parameters)
    if wanted > 0.5 * len(observations.rows):
        return Sample.of_all(observations)
    bins = np.minimum(q / max(q.max(), 1e-12) * RADIAL_BINS, RADIAL_BINS - 1).astype(int)
    held = np.bincount(bins, observations.multiplicity, RADIAL_BINS)
    share = np.minimum(wanted / RADIAL_BINS / np.maximum(held, 1), 1)[bins]
    inside = np.random.default_rng(seed).random(len(q)) < share
    return Sample(np.flatnonzero(inside), observations.spread(inside), 1 / share[inside])
