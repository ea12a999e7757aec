"""Absorption in the crystal and its mount, a(x, y, phi)."""

from __future__ import annotations

import libtbx
import libtbx.phil
from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent3D
from dxtbx.model import Experiment

from dials_diffuse.algorithms.scaling.axis import Axis
from dials_diffuse.algorithms.scaling.places import detector_places
from dials_diffuse.algorithms.scaling.term import Term
from dials_diffuse.stills import is_still


class AbsorptionTerm(Term, SmoothScaleComponent3D):
    """a(x, y, phi), with x and y the angles of the scattered ray."""

    name = "absorption"
    role = "outer"
    #: In less, few voxels meet the detector in several places, and a pattern fixed to it looks like one of the crystal.
    least_rotation = 30.0

    @classmethod
    def for_experiment(
        cls, experiment: Experiment, params: libtbx.phil.scope_extract, d_min: float
    ) -> AbsorptionTerm | None:
        if is_still(experiment):
            return None
        places, options = detector_places(experiment), params.absorption
        axes = []
        for name, angle in (("x", places.x), ("y", places.y)):
            low, high = angle.min(), angle.max()
            axes.append(Axis.over(name, low, high, max(high - low, 1e-3) / options.intervals))
        start, end = experiment.scan.get_oscillation_range()
        interval = options.interval
        if interval is libtbx.Auto:
            interval = min(max((end - start) / 6, 10.0), 30.0)
        return cls((*axes, Axis.over("phi", start, end, interval)))
