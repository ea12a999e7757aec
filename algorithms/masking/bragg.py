"""What a mask of Bragg peaks is: the base class of the built-in strategies and of plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.masking.bragg_ellipsoids import BraggEllipsoids
from dials_diffuse.algorithms.masking.mask_file import PixelMask
from dials_diffuse.geometry import IndexMapping, resolution
from dials_diffuse.images import sweep_name
from dials_diffuse.rays import detector_rays

Box = tuple[int, int, int, int, int]


class BraggMask:
    """Where the Bragg peaks of one experiment are, on any frame.

    A strategy may say it in three ways, which add up: by ``ellipsoids``, ``static`` and :meth:`frame_boxes`.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
    reflections : flex.reflection_table or None
        Of that experiment alone; None if none were given.
    d_min : float
        Resolution in Angstrom that the detector reaches.
    params : libtbx.phil.scope_extract
        Values of the class's :attr:`phil_scope`.

    Attributes
    ----------
    name : str
        Of the strategy: ``bragg_mask.mode`` takes it, its PHIL scope is ``bragg_mask.<name>``.
    phil_scope : libtbx.phil.scope
        The strategy's parameters.
    needs_reflections : bool
        Whether it can do nothing without reflections.
    ellipsoids : BraggEllipsoids
        Regions round the lattice points; tested for every pixel of every frame within the extraction itself.
    static : tuple of ndarray, bool, or None
        One a panel: pixels (False) that are masked on all frames.
    """

    name: ClassVar[str]
    phil_scope: ClassVar[libtbx.phil.scope] = parse("")
    needs_reflections: ClassVar[bool] = True

    ellipsoids: BraggEllipsoids = BraggEllipsoids.none()
    static: PixelMask | None = None

    def __init__(
        self,
        experiment: Experiment,
        reflections: flex.reflection_table | None,
        d_min: float,
        params: libtbx.phil.scope_extract,
    ) -> None:
        self.experiment = experiment
        self.mapping = IndexMapping(experiment)

    @classmethod
    def for_experiments(
        cls,
        experiments: ExperimentList,
        reflections: flex.reflection_table | None,
        params: libtbx.phil.scope_extract,
    ) -> list[BraggMask]:
        """The masks of all experiments, in their order: made one by one here.

        To be overridden where experiments have to be looked at together.

        Parameters
        ----------
        experiments : ExperimentList
        reflections : flex.reflection_table or None
            Of all experiments, told apart by ``id``.
        params : libtbx.phil.scope_extract
            Values of :attr:`phil_scope`.
        """
        return [
            cls(experiment, own, resolution(experiment), params)
            for experiment, own in zip(experiments, cls.own_reflections(experiments, reflections))
        ]

    @classmethod
    def own_reflections(
        cls, experiments: ExperimentList, reflections: flex.reflection_table | None
    ) -> list[flex.reflection_table | None]:
        """The reflections of each experiment.

        Raises
        ------
        Sorry
            If an experiment that needs reflections has none, or they are not on its panels.
        """
        if reflections is None and not cls.needs_reflections:
            return [None] * len(experiments)
        tables = _split(reflections, len(experiments))
        if cls.needs_reflections:
            for experiment, table in zip(experiments, tables):
                _check(cls.name, experiment, table)
        return tables

    def frame_boxes(self, index: int) -> Sequence[Box]:
        """Rectangles (panel, x0, x1, y0, y1) that are masked on a frame, which is counted from 0; ends excluded."""
        return ()

    def mask_frame(self, index: int, arrays: Sequence[np.ndarray], values: Sequence[bool | int | float]) -> None:
        """Put a value into all pixels that see a Bragg peak on one frame.

        Parameters
        ----------
        index : int
            Frame of the experiment, from 0.
        arrays : sequence of ndarray, shape (slow, fast)
            One a panel, changed in place: masks, or the frame itself.
        values : sequence
            What to put there, one value a panel.
        """
        if self.ellipsoids.largest > 0:
            ray_to_hkl = self.mapping.ray_to_hkl(self.mapping.array_range[0] + index + 0.5)
            for array, value, rays in zip(arrays, values, detector_rays(self.experiment.detector)):
                self.ellipsoids.mask_pixels(array, value, rays, ray_to_hkl)
        if self.static is not None:
            for array, value, good in zip(arrays, values, self.static):
                array[~good] = value
        self.mask_boxes(index, arrays, values)

    def mask_boxes(self, index: int, arrays: Sequence[np.ndarray], values: Sequence[bool | int | float]) -> None:
        """As :meth:`mask_frame`, for what :meth:`frame_boxes` says alone."""
        for panel, x0, x1, y0, y1 in self.frame_boxes(index):
            arrays[panel][max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = values[panel]


class NoBraggMask(BraggMask):
    """Nothing is masked."""

    name = "none"
    needs_reflections = False


def _split(reflections: flex.reflection_table | None, number: int) -> list[flex.reflection_table]:
    """The table's parts by ``id``, 0 to ``number`` - 1."""
    if reflections is None:
        return [flex.reflection_table() for _ in range(number)]
    order = flex.sort_permutation(reflections["id"], stable=True)
    edges = np.searchsorted(flumpy.to_numpy(reflections["id"].select(order)), np.arange(number + 1)).tolist()
    return [reflections.select(order[begin:end]) for begin, end in zip(edges[:-1], edges[1:])]


def _check(name: str, experiment: Experiment, reflections: flex.reflection_table) -> None:
    """Raise Sorry unless an experiment has reflections, all on its own panels."""
    if not len(reflections):
        raise Sorry(
            f"bragg_mask.mode={name} needs reflections, and there are none of {sweep_name(experiment)}: give "
            "the .refl file that belongs to its .expt file, or set bragg_mask.mode=none."
        )
    if flex.max(reflections["panel"].as_int()) >= len(experiment.detector):
        raise Sorry(
            f"Reflections of {sweep_name(experiment)} lie on panels that its detector has not: give the .refl file "
            "that was written together with the .expt file."
        )
