"""The parameters cut into parts that are few enough for a dense matrix each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dials_diffuse.algorithms.scaling.design import Block, Design, PlacedDesign

#: Parameters that are one part: all of them, if they are no more; or those of several experiments, else.
ALL, SEVERAL = 1000, 400


@dataclass
class Part:
    """Some terms' parameters, k in all.

    Attributes
    ----------
    design : Design
    blocks : list of Block
        In the order of their columns.
    """

    design: Design
    blocks: list[Block]

    @cached_property
    def columns(self) -> np.ndarray:
        """Numbers of the parameters among all, shape (k,), increasing."""
        return np.concatenate([np.arange(block.columns.start, block.columns.stop) for block in self.blocks])

    @cached_property
    def experiments(self) -> list[int]:
        """Which depend on them."""
        return sorted({i for block in self.blocks for i in block.experiments})

    def inside(self, columns: slice) -> slice:
        """Where a block's columns are among the part's."""
        start = int(np.searchsorted(self.columns, columns.start))
        return slice(start, start + columns.stop - columns.start)

    def jacobian(self, placed: PlacedDesign, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of n observations' signals by the part's parameters.

        Parameters
        ----------
        slopes : ndarray, shape (n, terms)
            See :meth:`PlacedDesign.slopes`.

        Returns
        -------
        column : ndarray, shape (n, m), int32
            Parameters, from 0 to k; -1: none.
        jacobian : ndarray, shape (n, m)
        """
        own = np.full(self.design.size + 1, -1, dtype=np.int32)  # the last for the column -1
        own[self.columns] = np.arange(len(self.columns))
        names = {block.term.name for block in self.blocks}
        columns, jacobians = [], []
        for number, name in enumerate(self.design.names):
            if name in names:
                column, weight = placed.basis(number)
                columns.append(own[column])
                jacobians.append(weight * slopes[:, number, None])
        return np.concatenate(columns, axis=1), np.concatenate(jacobians, axis=1)


def parts_of(design: Design) -> list[Part]:
    """All parameters together if they are few; else by experiments, several in one part, and shared terms apart."""
    if design.size <= ALL:
        return [Part(design, design.blocks)]
    own: dict[int, list[Block]] = {}
    for block in design.blocks:
        own.setdefault(block.experiments[0] if len(block.experiments) == 1 else -1, []).append(block)
    shared = own.pop(-1, [])
    groups: list[list[Block]] = [[]]
    for blocks in own.values():
        if _size(groups[-1]) + _size(blocks) > SEVERAL:
            groups.append([])
        groups[-1] += blocks
    return [Part(design, blocks) for blocks in [*groups, shared] if blocks]


def _size(blocks: list[Block]) -> int:
    return sum(block.columns.stop - block.columns.start for block in blocks)
