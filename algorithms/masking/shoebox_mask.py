"""Masks of the Bragg peaks that are the bounding boxes of reflections."""

from __future__ import annotations

from collections.abc import Sequence

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model import Experiment

from dials_diffuse.algorithms.masking.bragg import Box, BraggMask
from dials_diffuse.algorithms.masking.peak_shape import need_columns


class ShoeboxBraggMask(BraggMask):
    """The bounding boxes of the reflections."""

    name = "shoebox"

    def __init__(
        self,
        experiment: Experiment,
        reflections: flex.reflection_table,
        d_min: float,
        params: libtbx.phil.scope_extract,
    ) -> None:
        super().__init__(experiment, reflections, d_min, params)
        need_columns(experiment, reflections, "bbox")
        self._boxes: dict[int, list[Box]] = {}
        boxes = np.stack([flumpy.to_numpy(part) for part in reflections["bbox"].parts()], axis=1)
        if experiment.scan is None:
            boxes[:, 4:] = 0, 1  # z counts the images of a stack there
        else:
            boxes[:, 4:] -= experiment.scan.get_array_range()[0]
        for panel, (x0, x1, y0, y1, z0, z1) in zip(reflections["panel"], boxes.tolist()):
            for z in range(z0, z1):
                self._boxes.setdefault(z, []).append((panel, x0, x1, y0, y1))

    def frame_boxes(self, index: int) -> Sequence[Box]:
        return self._boxes.get(index, ())
