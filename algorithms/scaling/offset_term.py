"""The excess isotropic background c(|q|, phi): what the mount, liquid and ice scatter besides the crystal."""

from __future__ import annotations

import libtbx
import libtbx.phil
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent2D
from dxtbx.model import Experiment

from dials_diffuse.algorithms.scaling.axis import Axis
from dials_diffuse.algorithms.scaling.term import Term
from dials_diffuse.stills import is_still


class OffsetTerm(Term, SmoothScaleComponent2D):
    """c(|q|, phi) in photons / (s sr)."""

    name = "offset"
    role = "offset"
    null_parameter_value = 0.0

    @classmethod
    def for_experiment(
        cls, experiment: Experiment, params: libtbx.phil.scope_extract, d_min: float
    ) -> OffsetTerm | None:
        if is_still(experiment):
            return None
        start, end = experiment.scan.get_oscillation_range()
        interval = params.offset.interval
        if interval is libtbx.Auto:
            interval = min(max((end - start) / 10, 5.0), 20.0)
        return cls((Axis.over("q", 0.0, 1 / d_min, params.offset.q_interval), Axis.over("phi", start, end, interval)))
