"""One coordinate of a smooth term: knots at equal distances, and the basis of DIALS's Gaussian smoother over them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from dials.algorithms.scaling.model.components.smooth_scale_components import GaussianSmoother1D, SmoothMixin
from dials.array_family import flex

#: The basis is tabulated this finely: a term moves by less than 1e-4 of its change between knots within a step.
STEPS_PER_KNOT = 1000
#: Parameters that a point depends on (naverage in dials/algorithms/refinement/gaussian_smoother.h).
WIDTH = 3


@dataclass(frozen=True)
class Axis:
    """Knots along a coordinate.

    Parameters
    ----------
    coordinate : str
        An attribute of :class:`~dials_diffuse.algorithms.scaling.places.Places`.
    origin, spacing : float
        Of the knots, in the coordinate's unit.
    n_params : int
        As DIALS counts them: one more than intervals if these are one or two, two more otherwise.
    """

    coordinate: str
    origin: float
    spacing: float
    n_params: int

    @classmethod
    def over(cls, coordinate: str, low: float, high: float, spacing: float) -> Axis:
        """Knots over a range, their spacing made a little smaller so that they fit."""
        n_intervals = max(int(np.ceil((high - low) / spacing - 1e-6)), 1)
        n_params = n_intervals + (1 if n_intervals < WIDTH else 2)
        return cls(coordinate, float(low), float(max(high - low, 1e-9) / n_intervals), n_params)

    @property
    def n_intervals(self) -> int:
        """Intervals between knots."""
        return SmoothMixin.nparam_to_val(self.n_params)

    def knots(self, values: np.ndarray) -> np.ndarray:
        """Values of the coordinate, shape (n,), in units of the spacing, from 0."""
        return (np.asarray(values) - self.origin) / self.spacing

    def table_row(self, values: np.ndarray) -> np.ndarray:
        """Rows of :func:`basis_table` nearest to values, int32, shape (n,); beyond the range, the ends."""
        last = self.n_intervals * STEPS_PER_KNOT
        return np.clip(np.rint(self.knots(values) * STEPS_PER_KNOT), 0, last).astype(np.int32)

    def samples(self, n: int) -> np.ndarray:
        """n values at equal distances over the whole range."""
        return self.origin + self.spacing * self.n_intervals * np.linspace(0, 1, n)

    def to_dict(self) -> dict:
        """JSON-ready; ``Axis(**values)`` gives it back."""
        return asdict(self)


@cache
def basis_table(n_params: int) -> tuple[np.ndarray, np.ndarray]:
    """The normalised weights of the parameters over the whole range, in steps of 1 / :data:`STEPS_PER_KNOT`.

    The weights of DIALS's smoothers in two and three dimensions are products of these.

    Returns
    -------
    first : ndarray, shape (rows,), int32
        First of the parameters that have a weight at a point.
    weight : ndarray, shape (rows, 3)
        Of that and the next two.
    """
    n_intervals = SmoothMixin.nparam_to_val(n_params)
    x = flex.double(np.linspace(0, n_intervals, n_intervals * STEPS_PER_KNOT + 1))
    smoother = GaussianSmoother1D([0, n_intervals], n_intervals)
    _, weight, total = smoother.multi_value_weight(x, flex.double(n_params))
    dense = weight.as_dense_matrix().as_numpy_array() / total.as_numpy_array()[:, None]
    dense = np.pad(dense, ((0, 0), (0, max(WIDTH - n_params, 0))))
    first = np.minimum((dense > 0).argmax(axis=1), dense.shape[1] - WIDTH)
    return first.astype(np.int32), np.take_along_axis(dense, first[:, None] + np.arange(WIDTH), axis=1)


def mean_basis(axis: Axis) -> np.ndarray:
    """Weights of all parameters of an axis in the mean over its range, shape (n_params,)."""
    return dense_basis(axis, axis.samples(50 * axis.n_intervals + 1)).mean(axis=0)


def dense_basis(axis: Axis, values: np.ndarray) -> np.ndarray:
    """Weights of all parameters of an axis at values, shape (n,): shape (n, n_params)."""
    first, weight = basis_table(axis.n_params)
    row = axis.table_row(values)
    dense = np.zeros((len(row), max(axis.n_params, WIDTH)))
    np.put_along_axis(dense, first[row][:, None] + np.arange(WIDTH), weight[row], axis=1)
    return dense[:, : axis.n_params]
