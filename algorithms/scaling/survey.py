"""What there is to scale: how many observations of what, and which experiments share voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from dials_diffuse.algorithms.scaling.expectation import RadialBins
from dials_diffuse.algorithms.scaling.linearised import CHUNK, CurrentModels
from dials_diffuse.algorithms.scaling.observations import GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition


@dataclass
class Survey:
    """Numbers of n observations of m voxels by k experiments; a reference (scaled already) is one experiment more.

    Attributes
    ----------
    observations : ndarray, shape (k + 1,), int
        Of each experiment.
    voxels : ndarray, shape (bins,), int
        In equal bins of |q| up to 1/d_min.
    covariates : ndarray, shape (2, terms)
        Of each term's covariate, where it is not 0: the sum of squares, and the number.
    links : set of (int, int)
        Pairs of experiments that share a voxel, as many as tell what hangs together.
    """

    observations: np.ndarray
    voxels: np.ndarray
    covariates: np.ndarray
    links: set[tuple[int, int]]

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            self.observations + other.observations,
            self.voxels + other.voxels,
            self.covariates + other.covariates,
            self.links | other.links,
        )

    @property
    def n_observations(self) -> int:
        return int(self.observations.sum())

    @property
    def n_voxels(self) -> int:
        return int(self.voxels.sum())

    @property
    def covariate_sizes(self) -> np.ndarray:
        """Root mean square of each term's covariate; 1 where there is none. Shape (terms,)."""
        squares, number = self.covariates
        return np.sqrt(np.divide(squares, number, out=np.ones(len(number)), where=number > 0))

    @property
    def groups(self) -> np.ndarray:
        """A number for each experiment that it shares with those it is linked with through voxels, shape (k,)."""
        k = len(self.observations) - 1
        first, second = np.array(sorted(self.links), dtype=int).reshape(-1, 2).T
        links = scipy.sparse.coo_matrix((np.ones(len(first)), (first, second)), (k, k))
        return scipy.sparse.csgraph.connected_components(links, directed=False)[1]


def survey(models: CurrentModels, partition: Partition, observations: GroupedObservations) -> Survey:
    """Of a partition's observations."""
    k, t = len(models.experiments), len(models.design.names)
    bins = RadialBins.equal(1 / models.grid.d_min)
    number = bins.of(models.grid.q(observations.voxels))
    found = Survey(np.zeros(k + 1, dtype=int), np.bincount(number, minlength=len(bins)), np.zeros((2, t)), set())
    for _, _, part in observations.parts(CHUNK):
        found.observations += np.bincount(np.minimum(part.experiment, k), minlength=k + 1)
        for i, covariate in enumerate(models.place(part).covariates):
            if covariate is not None:
                found.covariates[:, i] += np.sum(np.square(covariate, dtype=float)), np.count_nonzero(covariate)
        found.links |= _links(part, k)
    return found


def _links(part: GroupedObservations, k: int) -> set[tuple[int, int]]:
    """Each experiment of a voxel with the lowest number of them; of the reference nothing."""
    lowest = part.spread(np.minimum.reduceat(part.experiment, part.first[:-1])).astype(np.int64)
    pairs = np.unique((lowest * k + part.experiment)[part.experiment < k])
    return {(int(pair // k), int(pair % k)) for pair in pairs}
