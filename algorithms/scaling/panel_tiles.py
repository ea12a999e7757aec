"""Tiles of a detector's panels, to count in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dxtbx.model import Detector

from dials_diffuse.algorithms.scaling.observations import GroupedObservations


@dataclass
class PanelTiles:
    """Tiles of all panels, numbered one panel after the other, and in each by rows.

    Attributes
    ----------
    sizes : ndarray, shape (panels, 2), int
        Pixels along fast and slow of each panel.
    shapes : ndarray, shape (panels, 2), int
        Tiles along them.
    """

    sizes: np.ndarray
    shapes: np.ndarray

    @classmethod
    def of(cls, detector: Detector, longest: int) -> PanelTiles:
        """Nearly square ones, so many along the detector's longest edge."""
        sizes = np.array([panel.get_image_size() for panel in detector])
        return cls(sizes, np.ceil(longest * sizes / sizes.max()).astype(np.int64))

    @property
    def first(self) -> np.ndarray:
        """Number of each panel's first tile, and of all, shape (panels + 1,)."""
        return np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1))])

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def edges(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of the tiles of each panel along fast and slow, pixels."""
        return [
            tuple(np.linspace(0, size, n + 1) for size, n in zip(sizes, shape))
            for sizes, shape in zip(self.sizes, self.shapes)
        ]

    def number(self, observations: GroupedObservations) -> np.ndarray:
        """The tile that each observation was made in, shape (n,); the number of tiles for panels that are not here."""
        panel = np.minimum(observations.panel, len(self.sizes) - 1)
        shape = self.shapes[panel]
        x, y = np.clip((observations.position[:, :2] / self.sizes[panel] * shape).astype(np.int64), 0, shape - 1).T
        return np.where(panel == observations.panel, self.first[panel] + y * shape[:, 0] + x, len(self))

    def of_panel(self, values: np.ndarray, panel: int) -> np.ndarray:
        """Values of all tiles, shape (tiles,), of one panel: shape (slow, fast)."""
        return values[self.first[panel] : self.first[panel + 1]].reshape(self.shapes[panel, ::-1])
