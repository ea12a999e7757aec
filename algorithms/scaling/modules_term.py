"""The detector's response by modules or chips, the same in all sweeps."""

from __future__ import annotations

from typing import Any

import libtbx.phil
import numpy as np
from dials.algorithms.scaling.model.components.scale_components import ScaleComponentBase
from dials.array_family import flex
from dxtbx.model import Experiment
from scitbx import sparse

from dials_diffuse.algorithms.scaling.places import Places
from dials_diffuse.algorithms.scaling.term import Term


class ModulesTerm(Term, ScaleComponentBase):
    """d, constant over each panel or each tile of a panel.

    Parameters
    ----------
    tiles : list of [panel's size along fast, slow, tile's size along fast, slow]
        In pixels, one entry a panel.
    """

    name = "modules"
    role = "outer"
    shared = True

    def __init__(
        self, tiles: list[list[int]], parameters: flex.double | None = None, esds: flex.double | None = None
    ) -> None:
        self.tiles = np.array(tiles)
        self.counts = -(-self.tiles[:, :2] // self.tiles[:, 2:])
        self.first = np.concatenate([[0], np.cumsum(self.counts.prod(axis=1))])
        self.axes = ()
        if parameters is None:
            parameters = flex.double(int(self.first[-1]), self.null_parameter_value)
        ScaleComponentBase.__init__(self, parameters, esds)

    @classmethod
    def for_experiment(
        cls, experiment: Experiment, params: libtbx.phil.scope_extract, d_min: float
    ) -> ModulesTerm | None:
        sizes = [panel.get_image_size() for panel in experiment.detector]
        wanted = params.detector.tile_size
        if len(sizes) == 1 and wanted is None:
            return None
        return cls([[*size, *(size if wanted is None else wanted)] for size in sizes])

    def to_config(self) -> dict[str, Any]:
        return {"tiles": self.tiles.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any], parameters: flex.double, esds: flex.double | None) -> ModulesTerm:
        return cls(config["tiles"], parameters, esds)

    @property
    def shape(self) -> tuple[int]:
        return (int(self.first[-1]),)

    def tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.arange(self.first[-1], dtype=np.int32), np.tile([1.0, 0.0, 0.0], (self.first[-1], 1)))]

    def rows(self, places: Places) -> list[np.ndarray]:
        """The tile of each place."""
        size, counts = self.tiles[places.panel], self.counts[places.panel]
        column = np.clip(places.fast // size[:, 2], 0, counts[:, 0] - 1)
        row = np.clip(places.slow // size[:, 3], 0, counts[:, 1] - 1)
        return [(self.first[places.panel] + row * counts[:, 0] + column).astype(np.int32)]

    def update_reflection_data(self, selection=None, block_selections=None) -> None:
        """See ScaleComponentBase."""
        tile = self.data["x"] if selection is None else self.data["x"].select(selection)
        self._blocks = [tile.select(block) for block in block_selections] if block_selections else [tile]
        self._n_refl = [block.size() for block in self._blocks]

    def calculate_scales(self, block_id: int = 0) -> flex.double:
        """See ScaleComponentBase."""
        return self._parameters.select(self._blocks[block_id].iround().as_size_t())

    def calculate_scales_and_derivatives(self, block_id: int = 0) -> tuple[flex.double, sparse.matrix]:
        """See ScaleComponentBase."""
        derivatives = sparse.matrix(self._n_refl[block_id], self.n_params)
        for i, tile in enumerate(self._blocks[block_id]):
            derivatives[i, int(tile)] = 1.0
        return self.calculate_scales(block_id), derivatives
