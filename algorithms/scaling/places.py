"""Where observations were made: the variables of the scaling terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from dxtbx.model import Experiment

from dials_diffuse.stills import is_still


@dataclass
class Places:
    """Places of n observations of one experiment.

    Attributes
    ----------
    experiment : Experiment
    panel : ndarray, shape (n,), int
    fast, slow : ndarray, shape (n,)
        Position on the panel in pixels.
    frame : ndarray, shape (n,)
        Array index units.
    q : ndarray, shape (n,)
        1/d in 1/Angstrom.
    """

    experiment: Experiment
    panel: np.ndarray
    fast: np.ndarray
    slow: np.ndarray
    frame: np.ndarray
    q: np.ndarray

    @cached_property
    def phi(self) -> np.ndarray:
        """Rotation angle in degrees, shape (n,); 0 for a still."""
        if is_still(self.experiment):
            return np.zeros(len(self.frame))
        scan = self.experiment.scan
        start, width = scan.get_oscillation()
        return start + width * (self.frame - scan.get_array_range()[0])

    @property
    def x(self) -> np.ndarray:
        """Angle in degrees of the scattered ray above the plane normal to the rotation axis, shape (n,)."""
        return self._directions[0]

    @property
    def y(self) -> np.ndarray:
        """Angle in degrees of the scattered ray from the beam about the rotation axis, shape (n,)."""
        return self._directions[1]

    @cached_property
    def _directions(self) -> tuple[np.ndarray, np.ndarray]:
        beam, axis, across = _axes(self.experiment)
        return np.degrees(np.arcsin(self.rays @ axis)), np.degrees(np.arctan2(self.rays @ across, self.rays @ beam))

    @cached_property
    def rays(self) -> np.ndarray:
        """Unit vectors of the scattered rays in the laboratory, shape (n, 3)."""
        ray = np.empty((len(self.panel), 3))
        for number, panel in enumerate(self.experiment.detector):
            here = self.panel == number
            size = panel.get_pixel_size()
            frame = np.array([panel.get_fast_axis(), panel.get_slow_axis(), panel.get_origin()])
            on_panel = np.stack([self.fast[here] * size[0], self.slow[here] * size[1], np.ones(here.sum())], axis=1)
            ray[here] = on_panel @ frame
        return ray / np.linalg.norm(ray, axis=1)[:, None]


def detector_places(experiment: Experiment, points: int = 2000) -> Places:
    """About so many points spread evenly over the panels of an experiment's detector, at frame 0, with their |q|."""
    sizes = np.array([panel.get_image_size() for panel in experiment.detector])
    step = np.sqrt(np.sum(sizes[:, 0] * sizes[:, 1]) / points)
    panels, fast, slow = [], [], []
    for number, size in enumerate(sizes):
        f, s = ((np.arange(n) + 0.5) / n * edge for n, edge in zip(np.maximum(np.rint(size / step), 1), size))
        panels.append(np.full(len(f) * len(s), number))
        fast.append(np.tile(f, len(s)))
        slow.append(np.repeat(s, len(f)))
    n = sum(map(len, panels))
    places = Places(experiment, *map(np.concatenate, (panels, fast, slow)), frame=np.zeros(n), q=np.zeros(n))
    along_beam = places.rays @ np.array(experiment.beam.get_unit_s0())
    places.q = np.sqrt(np.maximum(2 - 2 * along_beam, 0)) / experiment.beam.get_wavelength()
    return places


def _axes(experiment: Experiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along the beam, along the rotation axis normal to it, and normal to both."""
    beam = np.array(experiment.beam.get_unit_s0())
    axes = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    if experiment.goniometer is not None:
        axes.insert(0, experiment.goniometer.get_rotation_axis())
    for candidate in axes:
        axis = np.array(candidate) - (beam @ candidate) * beam
        if np.linalg.norm(axis) > 0.1:
            axis /= np.linalg.norm(axis)
            return beam, axis, np.cross(beam, axis)
    raise AssertionError("one of two axes is not along the beam")
