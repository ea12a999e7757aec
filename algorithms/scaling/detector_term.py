"""The detector's response d(x, y), the same in all sweeps."""

from __future__ import annotations

import libtbx.phil
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent2D
from dxtbx.model import Experiment

from dials_diffuse.algorithms.scaling.axis import Axis
from dials_diffuse.algorithms.scaling.term import Term


class DetectorTerm(Term, SmoothScaleComponent2D):
    """d(x, y), smooth over the pixels of a detector of one panel."""

    name = "detector"
    role = "outer"
    shared = True

    @classmethod
    def for_experiment(
        cls, experiment: Experiment, params: libtbx.phil.scope_extract, d_min: float
    ) -> DetectorTerm | None:
        if len(experiment.detector) > 1:
            return None
        fast, slow = experiment.detector[0].get_image_size()
        spacing = max(fast, slow) / params.detector.intervals
        return cls((Axis.over("fast", 0, fast, spacing), Axis.over("slow", 0, slow, spacing)))
