"""What the data cannot tell, fixed by convention.

- b I stays the same if b is multiplied and I divided by a number: the mean b of the reference is 1. Terms of plug-ins
  can ask for the same (``nil_in_reference``).
- a and b (with c) can exchange any function of phi: the mean of a over the detector is 1 at every phi.
- d and a can exchange any function of the detector's position: where both are refined, the mean of a over all sweeps
  and angles is 1 at every (x, y). The mean of d over the detector is 1.
- b I + c stays the same if c loses b times a function of |q| that I gains: the least value of c, over all phi of all
  sweeps, is 0 at every |q|.

One more is left to the smoothness, which holds it level: whatever depends on |q| alone, I has as well as d (or the part
of a that all sweeps and angles share), as long as all sweeps see a |q| at the same places of the detector.

Every convention is a linear combination of parameters that has a given value.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.sparse
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.scaling.axis import dense_basis, mean_basis
from dials_diffuse.algorithms.scaling.design import Block, Design
from dials_diffuse.algorithms.scaling.places import detector_places

#: c is said to be least at another angle if it is lower there by this part of the mean intensity, and by so much more
#: with every cycle: what the smoothness makes of c depends a little on where it is said to be least, so that two angles
#: can take turns for ever.
SLACK, GROWTH = 0.003, 1.2


class Gauges:
    """The conventions for a design.

    Parameters
    ----------
    design : Design
    experiments : ExperimentList
    reference : sequence of int
        Experiments whose mean b is 1 together; empty if an outer reference fixes all that is relative.
    """

    def __init__(self, design: Design, experiments: ExperimentList, reference: np.ndarray) -> None:
        self.design = design
        self.experiments = experiments
        self._by_name: dict[str, list[Block]] = {}
        for block in design.blocks:
            self._by_name.setdefault(block.term.name, []).append(block)
        self._has_reference = len(reference) == 0
        self._lowest: np.ndarray | None = None
        self._slack = SLACK
        self._means = {id(block): self._mean(block) for block in design.blocks}
        rows, targets = [], []
        for blocks in self._by_name.values():
            inside = [block for block in blocks if np.isin(block.experiments, reference).any()]
            if inside and inside[0].term.nil_in_reference:
                rows.append(self._rows_of((block, self._means[id(block)] / len(inside)) for block in inside))
                targets.append(inside[0].term.null_parameter_value)
        for block in self._by_name.get("absorption", []):
            rows.append(self._absorption_at_every_angle(block))
            targets += [1.0] * rows[-1].shape[0]
        for block in [*self._by_name.get("detector", []), *self._by_name.get("modules", [])]:
            rows.append(self._rows_of([(block, self._means[id(block)])]))
            targets.append(1.0)
            if block.term.axes:  # steps from tile to tile are nothing that a or I could have in their place
                rows.append(self._absorption_of_all_sweeps(block.experiments))
                targets += [1.0] * rows[-1].shape[0]
        self._rows = scipy.sparse.vstack([self._rows_of([]), *rows], format="csr")
        self._targets = np.array(targets)

    def conditions(self, parameters: np.ndarray, intensity: float) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
        """Combinations, shape (k, p), and their targets, shape (k,).

        Those of c depend on where it is least; ``intensity``, the mean one, is the unit of what is less.
        """
        if self._has_reference or "offset" not in self._by_name:
            return self._rows, self._targets
        lowest = self._offset_at_its_lowest(parameters, self._slack * intensity)
        self._slack *= GROWTH
        rows = scipy.sparse.vstack([self._rows, lowest], format="csr")
        return rows, np.append(self._targets, np.zeros(lowest.shape[0]))

    def mean(self, name: str) -> scipy.sparse.csr_matrix:
        """Rows that give the mean of a term (of its linear function) of every block that has it, shape (blocks, p)."""
        rows = [self._rows_of([(block, self._means[id(block)])]) for block in self._by_name.get(name, [])]
        return scipy.sparse.vstack([self._rows_of([]), *rows], format="csr")

    def _rows_of(self, parts: Iterable[tuple[Block, np.ndarray]]) -> scipy.sparse.csr_matrix:
        """Combinations of the parameters of some blocks: weights of shape (k, block) or (block,) each."""
        number, column, weight, k = [], [], [], 0
        for block, weights in parts:
            weights = np.atleast_2d(weights)
            k = len(weights)
            at = np.nonzero(weights)
            number.append(at[0])
            column.append(block.columns.start + at[1])
            weight.append(weights[at])
        if not k:
            return scipy.sparse.csr_matrix((0, self.design.size))
        entries = (np.concatenate(weight), (np.concatenate(number), np.concatenate(column)))
        return scipy.sparse.csr_matrix(entries, shape=(k, self.design.size))

    def _mean(self, block: Block) -> np.ndarray:
        """Weights of a block's parameters in the mean over the detector and all angles, shape (block,)."""
        term = block.term
        if not term.shape:
            return np.ones(1)
        if not term.axes:
            places = detector_places(self.experiments[block.experiments[0]])
            return np.bincount(term.rows(places)[0], minlength=term.shape[0]) / len(places.panel)
        mean, axes = np.ones(1), list(term.axes)
        if tuple(axis.coordinate for axis in axes[:2]) in (("x", "y"), ("fast", "slow")):
            mean = _mean_on_detector(axes[:2], self.experiments[block.experiments[0]])
            axes = axes[2:]
        for axis in axes:
            mean = np.kron(mean_basis(axis), mean)
        return mean

    def _absorption_at_every_angle(self, block: Block) -> scipy.sparse.csr_matrix:
        x, y, phi = block.term.axes
        plane = _mean_on_detector([x, y], self.experiments[block.experiments[0]])
        return self._rows_of([(block, np.kron(np.eye(phi.n_params), plane))])

    def _absorption_of_all_sweeps(self, experiments: list[int]) -> scipy.sparse.csr_matrix:
        blocks = [b for b in self._by_name.get("absorption", []) if b.experiments[0] in experiments]
        parts = []
        for block in blocks:
            x, y, phi = block.term.axes
            parts.append((block, np.kron(mean_basis(phi), np.eye(x.n_params * y.n_params)) / len(blocks)))
        return self._rows_of(parts)

    def _offset_at_its_lowest(self, parameters: np.ndarray, slack: float) -> scipy.sparse.csr_matrix:
        """Rows that give, for every knot along |q|, the least value over all angles.

        Knots, not values between them: c is a mean of its neighbouring knots along |q|, and to prescribe such means
        would set knots swinging up and down.
        """
        values, places = [], []
        for block in self._by_name["offset"]:
            q, phi = block.term.axes
            of_phi = dense_basis(phi, phi.samples(4 * phi.n_intervals + 1))
            values.append(of_phi @ parameters[block.columns].reshape(phi.n_params, q.n_params))
            places += [(block, row) for row in of_phi]
        values = np.concatenate(values)
        lowest, which = values.argmin(axis=0), np.arange(values.shape[1])
        if self._lowest is not None:
            stay = values[lowest, which] > values[self._lowest, which] - slack
            lowest[stay] = self._lowest[stay]
        self._lowest = lowest
        rows = []
        for i, at in enumerate(lowest):
            block, of_phi = places[at]
            rows.append(self._rows_of([(block, np.kron(of_phi, np.eye(len(which))[i]))]))
        return scipy.sparse.vstack(rows, format="csr")


def _mean_on_detector(axes: list, experiment) -> np.ndarray:
    """Weights of the parameters of two axes, the first fastest, in the mean over an experiment's detector."""
    places = detector_places(experiment)
    first, second = (dense_basis(axis, getattr(places, axis.coordinate)) for axis in axes)
    return (second.T @ first / len(places.panel)).ravel()
