"""The parameters of all experiments' terms in one vector, and how every observation depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList
from numba import njit

from dials_diffuse.algorithms.scaling.axis import WIDTH
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.places import Places
from dials_diffuse.algorithms.scaling.term import Term
from dials_diffuse.algorithms.scaling.terms import term_class


@dataclass
class Block:
    """One term's parameters.

    Attributes
    ----------
    term : Term
    columns : slice
        Of the vector of parameters.
    experiments : list of int
        Which have it: one, or all that share it.
    """

    term: Term
    columns: slice
    experiments: list[int]


@dataclass
class Values:
    """The scaling model at n observations, shape (n,) each.

    Attributes
    ----------
    outer, inner, offset : ndarray
        Products of the terms of that role, and c: the signal is g outer (inner I + offset).
    terms : ndarray, shape (n, terms)
        The values of each term.
    """

    outer: np.ndarray
    inner: np.ndarray
    offset: np.ndarray
    terms: np.ndarray


class Design:
    """See the module's docstring. n observations, p parameters, t terms.

    Parameters
    ----------
    models : sequence of DiffuseScalingModel
        Of the experiments, in their order. Shared terms are taken from the first experiment that has them.
    """

    def __init__(self, models: Sequence[DiffuseScalingModel]) -> None:
        self.models = list(models)
        names = dict.fromkeys(name for model in self.models for name in model.components)
        self.names = list(names)
        self.classes = [term_class(name) for name in self.names]
        self.blocks: list[Block] = []
        # The last row is that of experiments that are scaled already: all terms are nil.
        self._first = np.full((len(self.models) + 1, len(self.names)), -1, dtype=np.int32)
        self._strides = np.zeros((len(self.models) + 1, len(self.names), 3), dtype=np.int32)
        shared: dict[tuple, Block] = {}
        size = 0
        for i, model in enumerate(self.models):
            for number, name in enumerate(self.names):
                term = model.components.get(name)
                if term is None:
                    continue
                key = (name, repr(term.to_config())) if term.shared else (name, i)
                if key not in shared:
                    n_params = int(np.prod(term.shape))
                    shared[key] = Block(term, slice(size, size + n_params), [])
                    self.blocks.append(shared[key])
                    size += n_params
                shared[key].experiments.append(i)
                self._first[i, number] = shared[key].columns.start
                strides = np.cumprod([1, *term.shape])[: len(term.shape)]
                self._strides[i, number, : len(strides)] = strides
        self.size = size
        self._number_tables()

    def _number_tables(self) -> None:
        """All tables of basis functions in one; the first row is that of an axis which a term does not have."""
        first, weight = [np.zeros(1, dtype=np.int32)], [np.array([[1.0, 0.0, 0.0]])]
        self._table_start: dict[tuple[int, int], list[int]] = {}
        known: dict[int, int] = {}
        size = 1
        for number, name in enumerate(self.names):
            for i, model in enumerate(self.models):
                if name not in model.components:
                    continue
                starts = []
                for table in model.components[name].tables():
                    if id(table[0]) not in known:
                        known[id(table[0])] = size
                        first.append(table[0])
                        weight.append(table[1])
                        size += len(table[0])
                    starts.append(known[id(table[0])])
                self._table_start[i, number] = starts
        self._table_first, self._table_weight = np.concatenate(first), np.concatenate(weight)
        self._axes = (
            [
                max(1, *(len(s) for (_, t), s in self._table_start.items() if t == number))
                for number in range(len(self.names))
            ]
            if self.names
            else []
        )

    @property
    def parameters(self) -> np.ndarray:
        """The models' parameters, shape (p,)."""
        return np.concatenate([np.asarray(block.term.parameters) for block in self.blocks])

    def put(self, parameters: np.ndarray, errors: np.ndarray) -> None:
        """Put parameters and their standard deviations, shape (p,) each, into the models."""
        for block in self.blocks:
            name = block.term.name
            for i in block.experiments:
                term = self.models[i].components[name]
                term.parameters = flex.double(parameters[block.columns])
                term.parameter_esds = flex.double(errors[block.columns])

    def _in_experiments_with(self, name: str, experiment: np.ndarray) -> np.ndarray:
        """1 for observations of experiments that have a term, 0 for others, float32, shape (n,)."""
        having = np.array([name in model.components for model in self.models] + [False], dtype=np.float32)
        return having[np.minimum(experiment, len(self.models))]

    def place(
        self,
        experiments: ExperimentList,
        experiment: np.ndarray,
        panel: np.ndarray,
        position: np.ndarray,
        q: np.ndarray,
    ) -> PlacedDesign:
        """The design at observations.

        Parameters
        ----------
        experiments : ExperimentList
            Those of the models; observations may come from further ones, which are scaled already (all terms are nil).
        experiment, panel : ndarray, shape (n,), int
        position : ndarray, shape (n, 3)
            ``xyzobs.px.value``.
        q : ndarray, shape (n,)
            1/d in 1/Angstrom.
        """
        rows = [np.zeros((len(q), axes), dtype=np.int32) for axes in self._axes]
        covariates: list[np.ndarray | None] = [None] * len(self.names)
        order = np.argsort(experiment, kind="stable")
        edges = np.searchsorted(experiment[order], np.arange(len(self.models) + 1))
        for i, model in enumerate(self.models):
            here = order[edges[i] : edges[i + 1]]
            if len(here) == 0:
                continue
            places = Places(experiments[i], panel[here], *position[here].T.astype(float), q[here])
            for number, name in enumerate(self.names):
                if name not in model.components:
                    continue
                term = model.components[name]
                for axis, (start, row) in enumerate(zip(self._table_start[i, number], term.rows(places))):
                    rows[number][here, axis] = start + row
                covariate = term.covariate(places)
                if covariate is not None:
                    if covariates[number] is None:
                        covariates[number] = self._in_experiments_with(name, experiment)
                    covariates[number][here] = covariate
        return PlacedDesign(self, np.minimum(experiment, len(self.models)).astype(np.int32), rows, covariates)


@dataclass
class PlacedDesign:
    """A design at n observations; the Jacobian J of their signals as an operator, for it is too large to be kept."""

    design: Design
    experiment: np.ndarray
    rows: list[np.ndarray]
    covariates: list[np.ndarray | None]

    def select(self, chosen: slice | np.ndarray) -> PlacedDesign:
        """At some: a slice, or shape (n,), bool."""
        covariates = [None if values is None else values[chosen] for values in self.covariates]
        return PlacedDesign(self.design, self.experiment[chosen], [rows[chosen] for rows in self.rows], covariates)

    def values(self, parameters: np.ndarray) -> Values:
        """The model at the observations."""
        terms = self._linear(parameters)
        outer, inner, offset = np.ones(len(terms)), np.ones(len(terms)), np.zeros(len(terms))
        for number, term in enumerate(self.design.classes):
            value = terms[:, number]
            if term.exponential:
                np.exp(value, out=value)
            absent = self.design._first[:, number] < 0
            value[absent[self.experiment]] = 0.0 if term.role == "offset" else 1.0
            if term.role == "outer":
                outer *= value
            elif term.role == "inner":
                inner *= value
            else:
                offset += value
        return Values(outer, inner, offset, terms)

    def slopes(self, values: Values, response: np.ndarray, intensity: np.ndarray) -> np.ndarray:
        """Derivatives of the expected signals g outer (inner I + offset) by each term's linear function.

        Parameters
        ----------
        response, intensity : ndarray, shape (n,)
            g and I.

        Returns
        -------
        ndarray, shape (n, t)
        """
        crystal = response * values.outer * values.inner * intensity
        excess = response * values.outer
        slopes = np.empty_like(values.terms)
        for number, term in enumerate(self.design.classes):
            value = values.terms[:, number]
            if term.role == "offset":
                slopes[:, number] = excess * value if term.exponential else excess
            else:
                signal = crystal + excess * values.offset if term.role == "outer" else crystal
                slopes[:, number] = signal if term.exponential else signal / value
        return slopes

    def apply(self, slopes: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """J x, shape (n,): changes of the signals with :meth:`slopes` by a change of the parameters, shape (p,)."""
        return np.einsum("ij,ij->i", slopes, self._linear(vector))

    def apply_transposed(self, slopes: np.ndarray) -> np.ndarray:
        """J^T y, shape (p,), for slopes that each observation's y has been multiplied into."""
        total = np.zeros(self.design.size)
        for number in range(slopes.shape[1]):
            _add_transposed(*self._arrays(number), slopes[:, number], total)
        return total

    def basis(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The basis functions of one term, the number of which is given.

        Returns
        -------
        column : ndarray, shape (n, k), int32
            Parameters that each observation's linear function depends on; -1 where there are fewer.
        weight : ndarray, shape (n, k)
            Their weights.
        """
        shape = (len(self.experiment), WIDTH ** self.rows[number].shape[1])
        column, weight = np.full(shape, -1, dtype=np.int32), np.zeros(shape)
        _basis(*self._arrays(number), column, weight)
        return column, weight

    def _linear(self, parameters: np.ndarray) -> np.ndarray:
        """Each term's linear function, shape (n, t); 0 where the experiment has no such term."""
        linear = np.empty((len(self.experiment), len(self.rows)))
        for number in range(len(self.rows)):
            _evaluate(*self._arrays(number), parameters, linear[:, number])
        return linear

    def _arrays(self, number: int) -> tuple[np.ndarray, ...]:
        """What the compiled loops need of one term."""
        design, covariate = self.design, self.covariates[number]
        return (
            self.experiment,
            self.rows[number],
            np.empty(0) if covariate is None else covariate,
            design._table_first,
            design._table_weight,
            design._first[:, number],
            design._strides[:, number],
        )


@njit(cache=True, nogil=True)
def _functions(i, experiment, rows, covariate, table_first, table_weight, first, strides, column, weight):
    """Columns and weights of the basis functions at observation i that are not 0; their number is returned."""
    e = experiment[i]
    if first[e] < 0:
        return 0
    axes = rows.shape[1]
    row_a, row_b, row_c = rows[i, 0], np.int32(0), np.int32(0)  # row 0: an axis that the term does not have
    if axes > 1:
        row_b = rows[i, 1]
    if axes > 2:
        row_c = rows[i, 2]
    factor = covariate[i] if len(covariate) else 1.0
    n = 0
    for c in range(3):
        w_c = factor * table_weight[row_c, c]
        if w_c == 0:
            continue
        at_c = first[e] + (table_first[row_c] + c) * strides[e, 2]
        for b in range(3):
            w_b = w_c * table_weight[row_b, b]
            if w_b == 0:
                continue
            at_b = at_c + (table_first[row_b] + b) * strides[e, 1]
            for a in range(3):
                w_a = w_b * table_weight[row_a, a]
                if w_a != 0:
                    column[n] = at_b + (table_first[row_a] + a) * strides[e, 0]
                    weight[n] = w_a
                    n += 1
    return n


@njit(cache=True, nogil=True)
def _evaluate(experiment, rows, covariate, table_first, table_weight, first, strides, parameters, out):
    column, weight = np.empty(27, dtype=np.int64), np.empty(27)
    for i in range(len(experiment)):
        n = _functions(i, experiment, rows, covariate, table_first, table_weight, first, strides, column, weight)
        total = 0.0
        for k in range(n):
            total += weight[k] * parameters[column[k]]
        out[i] = total


@njit(cache=True, nogil=True)
def _add_transposed(experiment, rows, covariate, table_first, table_weight, first, strides, values, total):
    column, weight = np.empty(27, dtype=np.int64), np.empty(27)
    for i in range(len(experiment)):
        n = _functions(i, experiment, rows, covariate, table_first, table_weight, first, strides, column, weight)
        for k in range(n):
            total[column[k]] += weight[k] * values[i]


@njit(cache=True, nogil=True)
def _basis(experiment, rows, covariate, table_first, table_weight, first, strides, column_out, weight_out):
    column, weight = np.empty(27, dtype=np.int64), np.empty(27)
    for i in range(len(experiment)):
        n = _functions(i, experiment, rows, covariate, table_first, table_weight, first, strides, column, weight)
        for k in range(n):
            column_out[i, k] = column[k]
            weight_out[i, k] = weight[k]
