"""Masks of the Bragg peaks that somebody else has made."""

from __future__ import annotations

import libtbx.phil
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.masking.bragg import BraggMask
from dials_diffuse.algorithms.masking.mask_file import read_mask


class FileBraggMask(BraggMask):
    """One static mask for all frames, from a file."""

    name = "file"
    phil_scope = parse(
        """
  filename = None
    .type = path
    .help = "A pickled tuple of flex.bool, one a panel, False where masked."
"""
    )
    needs_reflections = False

    @classmethod
    def for_experiments(
        cls,
        experiments: ExperimentList,
        reflections: flex.reflection_table | None,
        params: libtbx.phil.scope_extract,
    ) -> list[BraggMask]:
        """All have the mask in common, which is read once for each kind of detector."""
        if params.filename is None:
            raise Sorry("bragg_mask.mode=file needs bragg_mask.file.filename=<a pickled tuple of flex.bool>.")
        masks = super().for_experiments(experiments, reflections, params)
        read = {}
        for mask in masks:
            detector = mask.experiment.detector
            sizes = tuple(panel.get_image_size() for panel in detector)
            if sizes not in read:
                read[sizes] = read_mask(params.filename, detector)
            mask.static = read[sizes]
        return masks
