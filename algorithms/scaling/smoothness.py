r"""How far terms may change from knot to knot, found from the data.

Differences between neighbouring parameters of a term along an axis are expected to be normal with standard deviation s,
the same for all experiments: a random walk. With lambda = 1 / s^2 for each kind of difference k (a term and an axis),
S_k the sum of their squares as a quadratic form of the parameters, and H the curvature of the data's half chi-squared,
the marginal likelihood of the data (the parameters integrated out) rises with every update

    lambda_k <- lambda_k [tr(S_lambda^- S_k) - tr((H + S_lambda)^-1 S_k)] / |differences|^2
    S_lambda = sum lambda_k S_k

(Wood & Fasiolo (2017) Biometrics 73, 1071, eq. 5: the generalised Fellner-Schall method). What the data do not
determine so stays level, and what they determine well is hardly held. Both traces are taken where the gauges hold:
directions that the gauges fix, and these are many, are no evidence that a term is smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libtbx
import libtbx.phil
import numpy as np
import scipy.sparse

from dials_diffuse.algorithms.scaling.axis import mean_basis
from dials_diffuse.algorithms.scaling.design import Block, Design

#: Standard deviations of differences, in the terms' units (MultiBatchScaler.units): at first, and limits.
INITIAL, LOWEST, HIGHEST = 0.02, 1e-4, 0.5


@dataclass
class Differences:
    """Differences of one block's parameters along one axis, in the unit of their smoothness.

    Attributes
    ----------
    key : str
        Term and axis, ``scale.phi``.
    columns : slice
        Of the parameters.
    now : ndarray, shape (k,)
        Their values.
    jacobian : ndarray, shape (k, block)
        By the block's parameters.
    """

    key: str
    columns: slice
    now: np.ndarray
    jacobian: np.ndarray

    def trace(self, covariance: np.ndarray) -> float:
        """Expected sum of the squares of the differences' errors, for the covariance of the block's parameters."""
        return float(np.einsum("ij,jk,ik->", self.jacobian, covariance, self.jacobian, optimize=True))


class Smoothness:
    """The sizes of all kinds of differences.

    Parameters
    ----------
    design : Design
    params : libtbx.phil.scope_extract
        The scope ``smoothness``: a number, or Auto, for each built-in term.
    """

    def __init__(self, design: Design, params: libtbx.phil.scope_extract) -> None:
        self.design = design
        self.size: dict[str, float] = {}
        self._free: set[str] = set()
        for block in design.blocks:
            given = getattr(params, block.term.name, libtbx.Auto)
            self.size.update(dict.fromkeys(_keys(block), INITIAL if given is libtbx.Auto else given))
            if given is libtbx.Auto:
                self._free.update(_keys(block))

    @property
    def is_sought(self) -> bool:
        """Whether some sizes are to be found from the data."""
        return len(self._free) > 0

    def differences(self, parameters: np.ndarray, unit: np.ndarray) -> list[Differences]:
        """Differences of all blocks' parameters, shape (p,), in their units, shape (p,)."""
        found = []
        for block in self.design.blocks:
            found += _differences(block, parameters[block.columns], unit[block.columns.start])
        return found

    def equations(self, differences: list[Differences]) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        """The differences after a shift of the parameters, in units of their sizes, are nothing.

        Returns
        -------
        rows : csr_matrix, shape (k, p)
        targets : ndarray, shape (k,)
        """
        rows, targets = [scipy.sparse.csr_matrix((0, self.design.size))], [np.empty(0)]
        for these in differences:
            size, part = self.size[these.key], scipy.sparse.coo_matrix(these.jacobian)
            shape = (len(these.now), self.design.size)
            at = (part.row, part.col + these.columns.start)
            rows.append(scipy.sparse.csr_matrix((part.data / size, at), shape=shape))
            targets.append(-these.now / size)
        return scipy.sparse.vstack(rows, format="csr"), np.concatenate(targets)

    def update(
        self,
        differences: list[Differences],
        shift: np.ndarray,
        covariance: Callable[[slice], np.ndarray],
        prior_covariance: Callable[[slice], np.ndarray],
    ) -> None:
        """One step of the module's formula.

        Parameters
        ----------
        differences : list of Differences
            Before the shift.
        shift : ndarray, shape (p,)
            Of the parameters.
        covariance : callable
            The inverse of the curvature with the restraints, of a block's columns: shape (block, block).
        prior_covariance : callable
            That of the restraints without the data.
        """
        prior, posterior, squares = ({key: 0.0 for key in self.size} for _ in range(3))
        for these in differences:
            step = these.now + these.jacobian @ shift[these.columns]
            squares[these.key] += step @ step
            prior[these.key] += these.trace(prior_covariance(these.columns))
            posterior[these.key] += these.trace(covariance(these.columns))
        for key in self._free:
            if prior[key] == 0:
                continue
            gain = max(prior[key] - posterior[key], 1e-6 * prior[key])
            size = self.size[key] * (squares[key] / gain) ** 0.5
            self.size[key] = float(np.clip(size, max(LOWEST, 0.5 * self.size[key]), min(HIGHEST, 2 * self.size[key])))


def _keys(block: Block) -> list[str]:
    """Kinds of differences in a block, one for each axis."""
    if not block.term.axes:
        return [f"{block.term.name}.level"] if len(block.term.shape) else []
    return [f"{block.term.name}.{axis.coordinate}" for axis in block.term.axes]


def _differences(block: Block, parameters: np.ndarray, unit: float) -> list[Differences]:
    term = block.term
    if not term.axes:
        if not term.shape:
            return []
        n = len(parameters)  # unordered: each on its own, about nil
        now = (parameters - term.null_parameter_value) / unit
        return [Differences(_keys(block)[0], block.columns, now, np.eye(n) / unit)]
    if term.name == "scale":
        return [_relative_differences(block, parameters)]
    found = []
    for i, key in enumerate(_keys(block)):
        operator = np.ones((1, 1))
        for j, n in enumerate(term.shape):  # the first axis runs fastest
            operator = np.kron(np.diff(np.eye(n), axis=0) if i == j else np.eye(n), operator)
        found.append(Differences(key, block.columns, operator @ parameters / unit, operator / unit))
    return found


def _relative_differences(block: Block, parameters: np.ndarray) -> Differences:
    """Of b: relative to its mean.

    The derivative of the mean is in them: else the restraint would draw a whole sweep towards 0.
    """
    (axis,) = block.term.axes
    mean_of = mean_basis(axis)
    mean = mean_of @ parameters
    change = np.diff(parameters) / mean
    jacobian = (np.diff(np.eye(len(parameters)), axis=0) - np.outer(change, mean_of)) / mean
    return Differences(_keys(block)[0], block.columns, change, jacobian)
