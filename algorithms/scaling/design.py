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
        self._first = np.full((len(self.models), len(self.names)), -1, dtype=np.int32)
        self._strides = np.zeros((len(self.models), len(self.names), 3), dtype=np.int32)
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
    """A design at n observations."""

    design: Design
    experiment: np.ndarray
    rows: list[np.ndarray]
    covariates: list[np.ndarray | None]

    @property
    def covariate_sizes(self) -> list[float]:
        """Root mean square of each term's covariate over the observations that have it; 1 where there is none."""
        known = [np.ones(1) if values is None else values[values != 0] for values in self.covariates]
        return [float(np.sqrt(np.mean(np.square(values)))) if len(values) else 1.0 for values in known]

    def select(self, chosen: np.ndarray) -> PlacedDesign:
        """At those for which ``chosen``, shape (n,), bool or numbers, is true."""
        covariates = [None if values is None else values[chosen] for values in self.covariates]
        return PlacedDesign(self.design, self.experiment[chosen], [rows[chosen] for rows in self.rows], covariates)

    def basis(self, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The basis functions of a part of the observations, m.

        Returns
        -------
        column : ndarray, shape (m, k), int32
            Parameters that each observation depends on.
        weight : ndarray, shape (m, k)
            Their weights in the linear functions; 0 where there are fewer.
        edges : ndarray, shape (t + 1,), int
            Where the terms begin among the k.
        """
        design = self.design
        widths = [WIDTH ** rows.shape[1] for rows in self.rows]
        edges = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        experiment = self.experiment[part]
        column = np.zeros((len(experiment), edges[-1]), dtype=np.int32)
        weight = np.zeros((len(experiment), edges[-1]))
        for number, rows in enumerate(self.rows):
            padded = np.zeros((len(experiment), 3), dtype=np.int32)
            padded[:, : rows.shape[1]] = rows[part]
            first = np.append(design._first[:, number], np.int32(-1))
            strides = np.concatenate([design._strides[:, number], np.zeros((1, 3), dtype=np.int32)])
            to = slice(edges[number], edges[number + 1])
            _basis(
                experiment,
                padded,
                design._table_first,
                design._table_weight,
                first,
                strides,
                rows.shape[1],
                column[:, to],
                weight[:, to],
            )
            covariate = self.covariates[number]
            if covariate is not None:
                weight[:, to] *= covariate[part, None]
        return column, weight, edges

    def values(self, parameters: np.ndarray, basis: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Values:
        """The model at the observations of :meth:`basis`."""
        column, weight, edges = basis
        n = len(column)
        terms = np.empty((n, len(edges) - 1))
        outer, inner, offset = np.ones(n), np.ones(n), np.zeros(n)
        for number, term in enumerate(self.design.classes):
            to = slice(edges[number], edges[number + 1])
            nil = 0.0 if term.role == "offset" else 1.0
            _linear(column[:, to], weight[:, to], parameters, term.exponential, nil, terms, number)
            if term.role == "outer":
                outer *= terms[:, number]
            elif term.role == "inner":
                inner *= terms[:, number]
            else:
                offset += terms[:, number]
        return Values(outer, inner, offset, terms)

    def jacobian(
        self,
        basis: tuple[np.ndarray, np.ndarray, np.ndarray],
        values: Values,
        response: np.ndarray,
        intensity: np.ndarray,
    ) -> np.ndarray:
        """Derivatives of the expected signals g outer (inner I + offset) by the parameters of :meth:`basis`.

        Parameters
        ----------
        response, intensity : ndarray, shape (m,)
            g and I.

        Returns
        -------
        ndarray, shape (m, k)
            In place of the basis' weights.
        """
        _, weight, edges = basis
        crystal = response * values.outer * values.inner * intensity
        excess = response * values.outer
        for number, term in enumerate(self.design.classes):
            factor = crystal + excess * values.offset if term.role == "outer" else crystal
            if term.role == "offset":
                factor = excess
            if not term.exponential:
                factor = factor if term.role == "offset" else factor / values.terms[:, number]
            elif term.role == "offset":
                factor = factor * values.terms[:, number]
            weight[:, edges[number] : edges[number + 1]] *= factor[:, None]
        return weight


@njit(cache=True, nogil=True)
def _basis(experiment, rows, table_first, table_weight, first, strides, axes, column, weight):
    """Products of the axes' basis functions; nothing where the experiment has no such term."""
    for i in range(len(experiment)):
        e = experiment[i]
        if first[e] < 0:
            continue
        k = 0
        if axes == 1:
            row = rows[i, 0]
            for a in range(3):
                weight[i, k] = table_weight[row, a]
                column[i, k] = first[e] + (table_first[row] + a) * strides[e, 0] if weight[i, k] != 0 else first[e]
                k += 1
        elif axes == 2:
            for b in range(3):
                w_b = table_weight[rows[i, 1], b]
                at_b = first[e] + (table_first[rows[i, 1]] + b) * strides[e, 1]
                for a in range(3):
                    weight[i, k] = w_b * table_weight[rows[i, 0], a]
                    at = at_b + (table_first[rows[i, 0]] + a) * strides[e, 0]
                    column[i, k] = at if weight[i, k] != 0 else first[e]
                    k += 1
        else:
            for c in range(3):
                w_c = table_weight[rows[i, 2], c]
                at_c = first[e] + (table_first[rows[i, 2]] + c) * strides[e, 2]
                for b in range(3):
                    w_b = w_c * table_weight[rows[i, 1], b]
                    at_b = at_c + (table_first[rows[i, 1]] + b) * strides[e, 1]
                    for a in range(3):
                        weight[i, k] = w_b * table_weight[rows[i, 0], a]
                        at = at_b + (table_first[rows[i, 0]] + a) * strides[e, 0]
                        column[i, k] = at if weight[i, k] != 0 else first[e]
                        k += 1


@njit(cache=True, nogil=True)
def _linear(column, weight, parameters, exponential, nil, out, number):
    """Sums of weights times parameters, or exponentials; a term that an experiment does not have is nil."""
    for i in range(len(column)):
        total, any_weight = 0.0, False
        for k in range(column.shape[1]):
            if weight[i, k] != 0:
                total += weight[i, k] * parameters[column[i, k]]
                any_weight = True
        if not any_weight:
            out[i, number] = nil
        else:
            out[i, number] = np.exp(total) if exponential else total
