"""What is known of the parameters besides the data, as rows of equations with weights.

A restraint is a row r of weights of the parameters and a target t, and adds (r x - t)^2 to chi-squared: smoothness
(``smoothness.py``), the gauges (``gauges.py``), tightly, and very loosely the mean of every sweep's b near 1, of its c
near 0 and of terms of plug-ins near nothing, where no data determine them.

Equations are those of the parameters' shifts, not of the parameters, for the tight gauges would drown the loose
restraints in rounding otherwise; and in units in which all parameters are about 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from dials_diffuse.algorithms.scaling.gauges import Gauges
from dials_diffuse.algorithms.scaling.smoothness import Differences, Smoothness

#: Looseness of the restraints of the terms' means to nothing: of b relative to the mean, of others in their units.
MEAN_LOOSENESS = 10.0
#: Tightness of the gauges against the curvature of the data.
GAUGE = 1e3


@dataclass
class Restraints:
    """Restraints of shifts from parameters, shape (p,), in units, shape (p,).

    Attributes
    ----------
    gauges, means, smoothness : csr_matrix, shape (j, p)
        Rows; of the gauges with the absolute values' sum 1, of the means with the mean's weights.
    gauge_targets, mean_targets, smoothness_targets : ndarray, shape (j,)
    looseness : ndarray, shape (j,)
        Of the means.
    """

    gauges: scipy.sparse.csr_matrix
    gauge_targets: np.ndarray
    means: scipy.sparse.csr_matrix
    mean_targets: np.ndarray
    looseness: np.ndarray
    smoothness: scipy.sparse.csr_matrix
    smoothness_targets: np.ndarray

    def equations(self, curvature: float) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        """All rows, shape (j, p), and their targets, shape (j,), for data of that curvature about each parameter."""
        tight = GAUGE * np.sqrt(curvature)
        rows = [tight * self.gauges, scipy.sparse.diags(1 / self.looseness) @ self.means, self.smoothness]
        targets = [tight * self.gauge_targets, self.mean_targets / self.looseness, self.smoothness_targets]
        return scipy.sparse.vstack(rows, format="csr"), np.concatenate(targets)

    def without_data(self) -> scipy.sparse.csr_matrix:
        """All rows, with the gauges as tight against the others, and with the means in their units."""
        rows = scipy.sparse.vstack([self.means, self.smoothness], format="csr")
        squares = np.asarray(rows.multiply(rows).sum(axis=0)).ravel()
        return scipy.sparse.vstack([GAUGE * np.sqrt(np.median(squares)) * self.gauges, rows], format="csr")


def restraints(
    gauges: Gauges,
    smoothness: Smoothness,
    differences: list[Differences],
    parameters: np.ndarray,
    unit: np.ndarray,
    intensity: float,
) -> Restraints:
    """All restraints at the parameters as they are; ``intensity`` is the mean one."""
    in_units = scipy.sparse.diags(unit)
    conditions, targets = gauges.conditions(parameters, intensity)
    targets = targets - conditions @ parameters
    conditions = conditions @ in_units
    size = np.asarray(abs(conditions).sum(axis=1)).ravel()
    means, mean_targets, looseness = [], [], []
    for name, term in zip(gauges.design.names, gauges.design.classes):
        rows = gauges.mean(name)
        now = rows @ (parameters / unit)
        means.append(rows)
        mean_targets.append(rows @ (term.null_parameter_value / unit) - now)
        looseness.append(MEAN_LOOSENESS * (now if name == "scale" else np.ones(len(now))))
    rows, smoothness_targets = smoothness.equations(differences)
    return Restraints(
        scipy.sparse.diags(1 / size) @ conditions,
        targets / size,
        scipy.sparse.vstack(means, format="csr"),
        np.concatenate(mean_targets),
        np.concatenate(looseness),
        rows @ in_units,
        smoothness_targets,
    )
