"""Normal equations of many parameters: the curvature of the data and restraints, solved by conjugate gradients.

The matrix is H = A + sum_j r_j r_j^T, A the curvature of the data (``least_squares.py``), known as an operator and by
its diagonal blocks (``parts.py``), r_j the rows of the restraints, nearly all of which lie within one part. The blocks
with those rows, inverted, and the few rows that tie parts together, put in by Woodbury's formula,

    M^-1 = B^-1 - G (1 + R G)^-1 G^T,   G = B^-1 R^T,

are the preconditioner: where there is but one part M is H, and the first step is exact (Golub & Van Loan (2013) Matrix
Computations, 11.5). The diagonal blocks of M^-1 are also what the covariance of the parameters is taken for: that of a
part for the data as they are, the parameters of other parts being held but for the gauges that tie them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse

from dials_diffuse.algorithms.scaling.parts import Part

logger = logging.getLogger("dials.diffuse.scaling")

#: Steps of conjugate gradients, at most.
STEPS = 300

Operator = Callable[[np.ndarray], np.ndarray]


class BlockInverse:
    """M^-1 of the module's docstring.

    Parameters
    ----------
    parts : sequence of Part
    blocks : sequence of ndarray, shape (k, k)
        Of the curvature; zeros for the inverse of the restraints alone.
    rows : csr_matrix, shape (j, p)
        Of the restraints.
    """

    def __init__(self, parts: Sequence[Part], blocks: Sequence[np.ndarray], rows: scipy.sparse.csr_matrix) -> None:
        self.parts = parts
        columns = rows.tocsc()
        touches = np.array([np.diff(columns[:, part.columns].tocsr().indptr) > 0 for part in parts])
        tying = touches.sum(axis=0) > 1
        self._factors, self._solved = [], []
        for part, block, mine in zip(parts, blocks, touches):
            own = rows[mine & ~tying][:, part.columns]
            self._factors.append(_factor(block + (own.T @ own).toarray()))
            ties = rows[tying][:, part.columns]
            self._solved.append(_solve(self._factors[-1], ties.T.toarray()))
        middle = np.eye(tying.sum())
        for part, solved in zip(parts, self._solved):
            middle += rows[tying][:, part.columns] @ solved
        self._middle = _factor(middle)

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """M^-1 x, shape (p,)."""
        found = np.empty_like(vector)
        tied = np.zeros(self._middle[1].shape)
        for part, factor, solved in zip(self.parts, self._factors, self._solved):
            found[part.columns] = _solve(factor, vector[part.columns])
            tied += solved.T @ vector[part.columns]
        tied = _solve(self._middle, tied)
        for part, solved in zip(self.parts, self._solved):
            found[part.columns] -= solved @ tied
        return found

    def covariance(self, unit: np.ndarray) -> Covariance:
        """The diagonal blocks of M^-1, times the units, shape (p,), in which the equations are."""
        found = []
        for part, factor, solved in zip(self.parts, self._factors, self._solved):
            own = unit[part.columns]
            found.append((_inverse(factor) - solved @ _solve(self._middle, solved.T)) * own * own[:, None])
        return Covariance(self.parts, found)


@dataclass
class Covariance:
    """Covariances of the parameters of each part: matrices, shape (k, k)."""

    parts: Sequence[Part]
    blocks: Sequence[np.ndarray]

    @property
    def variances(self) -> np.ndarray:
        """Of all parameters, shape (p,)."""
        variances = np.empty(sum(len(part.columns) for part in self.parts))
        for part, matrix in zip(self.parts, self.blocks):
            variances[part.columns] = np.diag(matrix)
        return variances

    def of(self, columns: slice) -> np.ndarray:
        """Of the parameters of one block of the design, shape (block, block)."""
        for part, matrix in zip(self.parts, self.blocks):
            inside = part.inside(columns)
            if inside.stop <= len(part.columns) and part.columns[inside.start] == columns.start:
                return matrix[inside, inside]
        raise KeyError(columns)


def conjugate_gradients(
    matrix_times: Operator, right: np.ndarray, inverse: Operator, relative: float, least: float = 0.0
) -> np.ndarray:
    """x of H x = right, shape (p,) (Golub & Van Loan (2013), algorithm 11.5.1).

    Parameters
    ----------
    matrix_times, inverse : callable
        H x and M^-1 x, shape (p,). M^-1 may be a solution by conjugate gradients itself, and so not quite the same
        at every step: directions are conjugated by the residual's change (Notay (2000) SIAM J. Sci. Comput. 22, 1444).
    relative : float
        Steps are made until the residual is so much of what it was, in the norm of M^-1,
    least : float
        or until one makes chi-squared less by no more than this.
    """
    found, residual = np.zeros_like(right), right.copy()
    conditioned = inverse(residual)
    direction, size = conditioned.copy(), residual @ conditioned
    small = relative**2 * size
    step = 0
    while size > small and step < STEPS:
        step += 1
        image = matrix_times(direction)
        length = size / (direction @ image)
        found += length * direction
        if length * size <= least:
            break
        change = -length * image
        residual += change
        conditioned = inverse(residual)
        direction = conditioned + (change @ conditioned) / size * direction
        size = residual @ conditioned
    logger.debug("%d steps of conjugate gradients", step)
    return found


def _factor(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factor (lower) of a matrix scaled to a unit diagonal, for the rounding's sake, and the scales."""
    scale = 1 / np.sqrt(np.diag(matrix))
    if len(scale) == 0:
        return matrix, scale
    return scipy.linalg.cholesky(matrix * scale * scale[:, None], lower=True, overwrite_a=True), scale


def _solve(factor: tuple[np.ndarray, np.ndarray], right: np.ndarray) -> np.ndarray:
    """x of matrix x = right, shape (k,) or (k, n)."""
    lower, scale = factor
    if len(scale) == 0:
        return right
    scale = scale.reshape(-1, *[1] * (right.ndim - 1))
    return scale * scipy.linalg.cho_solve((lower, True), scale * right)


def _inverse(factor: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    lower, scale = factor
    inverse, _ = scipy.linalg.lapack.dpotri(lower, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return inverse * scale * scale[:, None]
