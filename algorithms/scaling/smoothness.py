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

from dataclasses import dataclass

import libtbx
import libtbx.phil
import numpy as np

from dials_diffuse.algorithms.scaling.axis import mean_basis
from dials_diffuse.algorithms.scaling.design import Block, Design

#: Standard deviations of differences, in the terms' units (MultiBatchScaler.units): at first, and limits.
INITIAL, LOWEST, HIGHEST = 0.02, 1e-4, 0.5
#: Part of an update's way (in logarithms) that is gone: updates of weakly determined terms go up to twice as far.
DAMPING = 0.6


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
        """Expected sum of the squares of the differences' errors, for the covariance of all parameters."""
        inside = covariance[self.columns, self.columns]
        return float(np.einsum("ij,jk,ik->", self.jacobian, inside, self.jacobian, optimize=True))


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
        self._free: list[str] = []
        for block in design.blocks:
            given = getattr(params, block.term.name, libtbx.Auto)
            for key in _keys(block):
                self.size[key] = INITIAL if given is libtbx.Auto else given
                if given is libtbx.Auto:
                    self._free.append(key)

    def differences(self, parameters: np.ndarray, unit: np.ndarray) -> list[Differences]:
        """Differences of all blocks' parameters, shape (p,), in their units, shape (p,)."""
        found = []
        for block in self.design.blocks:
            found += _differences(block, parameters[block.columns], unit[block.columns.start])
        return found

    def restraints(self, differences: list[Differences]) -> tuple[np.ndarray, np.ndarray]:
        """What the differences add to the normal equations of shifts: matrix, shape (p, p), and right side, (p,)."""
        size = self.design.size
        left, right = np.zeros((size, size)), np.zeros(size)
        for these in differences:
            precision = self.size[these.key] ** -2
            left[these.columns, these.columns] += precision * these.jacobian.T @ these.jacobian
            right[these.columns] -= precision * these.jacobian.T @ these.now
        return left, right

    def update(
        self, differences: list[Differences], shift: np.ndarray, covariance: np.ndarray, prior_covariance: np.ndarray
    ) -> None:
        """One step of the module's formula.

        Parameters
        ----------
        differences : list of Differences
            Before the shift.
        shift : ndarray, shape (p,)
            Of the parameters.
        covariance : ndarray, shape (p, p)
            The inverse of the curvature with the restraints.
        prior_covariance : ndarray, shape (p, p)
            That of the restraints without the data.
        """
        prior, posterior, squares = ({key: 0.0 for key in self.size} for _ in range(3))
        for these in differences:
            step = these.now + these.jacobian @ shift[these.columns]
            squares[these.key] += step @ step
            prior[these.key] += these.trace(prior_covariance)
            posterior[these.key] += these.trace(covariance)
        for key in self._free:
            if prior[key] == 0:
                continue
            gain = max(prior[key] - posterior[key], 1e-6 * prior[key])
            size = self.size[key] * (squares[key] / gain) ** (DAMPING / 2)
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
