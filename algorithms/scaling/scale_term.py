"""The scale b(phi): beam intensity, illuminated volume, decay."""

from __future__ import annotations

import numpy as np
from dials.algorithms.scaling.model.components.smooth_scale_components import (
    GaussianSmoother1D,
    SmoothScaleComponent1D,
)
from dials.array_family import flex

#: The basis is tabulated this finely: b moves by less than 1e-4 of its change between knots within a step.
STEPS_PER_KNOT = 1000


class ScaleTerm(SmoothScaleComponent1D):
    """b(phi) on the basis of DIALS's Gaussian smoother, or a single factor where there is one parameter (a still).

    DIALS's own component builds its smoother anew for every selection of the data and takes the smallest coordinate in
    it for the origin. Here the smoother depends on the number of parameters alone, so that coordinates mean the same
    whichever observations are looked at.
    """

    @property
    def n_intervals(self) -> int:
        """Length of the coordinate's range, from 0, in knots."""
        return self.nparam_to_val(self.n_params) if self.n_params > 1 else 1

    def update_reflection_data(self, selection=None, block_selections=None) -> None:
        """See ScaleComponentBase; the origin stays where it is."""
        x = self.data["x"] if selection is None else self.data["x"].select(selection)
        self._smoother = GaussianSmoother1D([0, self.n_intervals], self.n_intervals)
        self._normalised_values = [x.select(block) for block in block_selections] if block_selections else [x]
        self._n_refl = [values.size() for values in self._normalised_values]

    def basis_table(self) -> np.ndarray:
        """The basis functions over the whole range: b = basis_table() @ parameters.

        Returns
        -------
        ndarray, shape (n_intervals * STEPS_PER_KNOT + 1, n_params)
            Row i holds the normalised weights of the parameters at x = i / STEPS_PER_KNOT; not more than three are not
            zero (dials/algorithms/refinement/gaussian_smoother.h). A single factor has one row.
        """
        if self.n_params == 1:
            return np.ones((1, 1))
        n_rows = self.n_intervals * STEPS_PER_KNOT + 1
        smoother = GaussianSmoother1D([0, self.n_intervals], self.n_intervals)
        x = flex.double(np.linspace(0, self.n_intervals, n_rows))
        _, weight, total = smoother.multi_value_weight(x, self.parameters)
        return weight.as_dense_matrix().as_numpy_array() / total.as_numpy_array()[:, None]

    def table_row(self, x: np.ndarray) -> np.ndarray:
        """Rows of :meth:`basis_table` nearest to coordinates x, int32, shape (n,); beyond the range, the last."""
        last = self.n_intervals * STEPS_PER_KNOT if self.n_params > 1 else 0
        return np.clip(np.rint(np.asarray(x) * STEPS_PER_KNOT), 0, last).astype(np.int32)
