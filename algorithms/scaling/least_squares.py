r"""The least-squares problem of a chunk of observations, linearised, and with the intensities eliminated.

With J_i the derivative of the expected photons of observation i by the parameters at the voxel's expected intensity,
u_i its response, r_i its residual and w_i its weight, the voxel's intensity is merged to any parameters as
sum w u y / D_v, D_v = sum_i w_i u_i^2. What is left is linear in the parameters alone:

    gradient   sum_i w_i J_i^T r_i
    curvature  A = sum_i w_i J_i^T J_i - sum_v C_v^T C_v / D_v,   C_v = sum_i w_i u_i J_i

(the Schur complement of the intensities' block, which is diagonal; the module ``scaler`` says what for). A has as many
elements as the square of the parameters, which are tens of thousands for a hundred sweeps. Its product with a vector
costs no more than a look at every observation,

    A x = sum_i w_i J_i^T (J_i x - u_i m_v),   m_v = sum_i w_i u_i J_i x / D_v.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from numba import njit

from dials_diffuse.algorithms.scaling.design import PlacedDesign
from dials_diffuse.algorithms.scaling.parts import Part

#: Numbers in a piece of a part's mixed block C, which bounds memory.
PIECE = 5_000_000


@dataclass
class LeastSquares:
    """The problem of n observations of m whole voxels; t terms, p parameters.

    Attributes
    ----------
    placed : PlacedDesign
    slopes : ndarray, shape (n, t)
        Derivatives of the expected photons by the terms' linear functions.
    response, residual, weight : ndarray, shape (n,)
        u, r, w.
    first : ndarray, shape (m + 1,), int
        Observations of voxel v are ``first[v]`` to ``first[v + 1] - 1``.
    """

    placed: PlacedDesign
    slopes: np.ndarray
    response: np.ndarray
    residual: np.ndarray
    weight: np.ndarray
    first: np.ndarray

    @property
    def objective(self) -> float:
        """Sum of w r^2."""
        return float(np.sum(self.weight * self.residual**2))

    @property
    def gradient(self) -> np.ndarray:
        """Shape (p,)."""
        return self._projected(self.weight * self.residual)

    @cached_property
    def information(self) -> np.ndarray:
        """D, shape (m,)."""
        return self._sum(self.weight * self.response**2)

    def curvature_times(self, vector: np.ndarray) -> np.ndarray:
        """A x, shape (p,)."""
        change = self.placed.apply(self.slopes, vector)
        merged = self._sum(self.weight * self.response * change) / self.information
        return self._projected(self.weight * (change - self.response * np.repeat(merged, np.diff(self.first))))

    def add_block(self, part: Part, block: np.ndarray) -> None:
        """Add what A is for the parameters of a part, k, to the upper triangle of a Fortran matrix, shape (k, k)."""
        chosen = np.flatnonzero(np.isin(self.placed.experiment, part.experiments))
        if len(chosen) == 0:
            return
        every = np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))[chosen]
        placed, slopes, weight = self.placed.select(chosen), self.slopes[chosen], self.weight[chosen]
        column, jacobian = part.jacobian(placed, slopes)
        mixing = weight * self.response[chosen] / np.sqrt(self.information[every])
        seen, voxel = np.unique(every, return_inverse=True)
        edges = np.append(np.arange(0, len(seen), max(PIECE // len(block), 1)), len(seen))
        bounds = np.searchsorted(voxel, edges)
        _add_squares(column, jacobian, weight, block)
        for low, begin, end in zip(edges, bounds[:-1], bounds[1:]):
            mixed = np.zeros((voxel[end - 1] - low + 1, len(block)))
            here = slice(begin, end)
            _add_mixed(column[here], jacobian[here], mixing[here], voxel[here] - low, mixed)
            scipy.linalg.blas.dsyrk(-1.0, mixed.T, beta=1.0, c=block, overwrite_c=1)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.first[:-1])

    def _projected(self, values: np.ndarray) -> np.ndarray:
        """J^T y, shape (p,)."""
        return self.placed.apply_transposed(self.slopes * values[:, None])


def curvature_block(part: Part, chunks: Iterable[LeastSquares]) -> np.ndarray:
    """A for the parameters of a part, from chunks, shape (k, k)."""
    block = np.zeros((len(part.columns),) * 2, order="F")
    for chunk in chunks:
        chunk.add_block(part, block)
    return np.triu(block) + np.triu(block, 1).T


@njit(cache=True, nogil=True)
def _add_mixed(column, jacobian, scale, voxel, mixed):
    for i in range(len(column)):
        for k in range(column.shape[1]):
            if column[i, k] >= 0:
                mixed[voxel[i], column[i, k]] += jacobian[i, k] * scale[i]


@njit(cache=True, nogil=True)
def _add_squares(column, jacobian, weight, block):
    """The upper triangle of sum w J^T J."""
    for i in range(len(column)):
        for k in range(column.shape[1]):
            row = column[i, k]
            if row >= 0:
                value = weight[i] * jacobian[i, k]
                for l in range(column.shape[1]):
                    if column[i, l] >= row:
                        block[row, column[i, l]] += value * jacobian[i, l]
