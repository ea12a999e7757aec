"""The scale b(phi): beam intensity, illuminated volume, decay."""

from __future__ import annotations

import libtbx.phil
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent1D
from dxtbx.model import Experiment

from dials_diffuse.algorithms.scaling.axis import Axis
from dials_diffuse.algorithms.scaling.term import Term
from dials_diffuse.stills import is_still


class ScaleTerm(Term, SmoothScaleComponent1D):
    """b(phi), or a single factor of a still."""

    name = "scale"
    role = "inner"
    nil_in_reference = True

    @classmethod
    def for_experiment(cls, experiment: Experiment, params: libtbx.phil.scope_extract, d_min: float) -> ScaleTerm:
        if is_still(experiment):
            return cls(())
        return cls((Axis.over("phi", *experiment.scan.get_oscillation_range(), params.scale_interval),))
