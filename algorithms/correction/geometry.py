"""Where observations were made: what corrections are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from dxtbx.model import Beam, Experiment, Panel

from dials_diffuse.geometry import pixel_positions
from dials_diffuse.stills import is_still


@dataclass(frozen=True, eq=False)
class PixelGeometry:
    """Positions on one panel of one experiment.

    Attributes
    ----------
    experiment : Experiment
        With its beam, detector and, where it has them, goniometer, scan and crystal.
    panel_index : int
        Index of the panel in the experiment's detector.
    xyz : ndarray, shape (n, 3), float
        Pixels, pixels and frame as in ``xyzobs.px.value``: pixel centres at halves, z in array index units.
    """

    experiment: Experiment
    panel_index: int
    xyz: np.ndarray

    @property
    def panel(self) -> Panel:
        return self.experiment.detector[self.panel_index]

    @property
    def beam(self) -> Beam:
        return self.experiment.beam

    @property
    def pixel_area(self) -> float:
        """Area of a pixel of the panel in mm^2."""
        width, height = self.panel.get_pixel_size()
        return width * height

    @cached_property
    def position(self) -> np.ndarray:
        """Laboratory coordinates in mm, shape (n, 3), of :func:`dials_diffuse.geometry.pixel_positions`."""
        return pixel_positions(self.panel, self.xyz[:, 0], self.xyz[:, 1])

    @cached_property
    def distance(self) -> np.ndarray:
        """Distance from the crystal in mm, shape (n,)."""
        return np.linalg.norm(self.position, axis=-1)

    @cached_property
    def s1(self) -> np.ndarray:
        """Unit vectors from the crystal in the laboratory frame, shape (n, 3)."""
        return self.position / self.distance[:, None]

    @cached_property
    def cos_incidence(self) -> np.ndarray:
        """Cosine of the angle omega between the ray and the panel's normal, shape (n,), positive."""
        return np.abs(self.s1 @ np.array(self.panel.get_normal()))

    @cached_property
    def rotation_angle(self) -> np.ndarray | None:
        """Rotation about the scan axis in radians, shape (n,); None for a still."""
        scan = self.experiment.scan
        if is_still(self.experiment):
            return None
        start, width = scan.get_oscillation(deg=False)
        return start + (self.xyz[:, 2] - scan.get_array_range()[0]) * width
