"""Scaling of observations."""

from __future__ import annotations

from iotbx.phil import parse

#: What the scaling model itself needs; also the ``diffuse`` scope of dials.scale, through the plug-in.
model_phil_str = """
scale_interval = 5
  .type = float(value_min=0.1)
  .help = "Rotation in degrees between the knots of b(phi), the part of the scale that follows the beam, the"
          "illuminated volume and decay."
"""

phil_scope = parse(
    """
scaling {
"""
    + model_phil_str
    + """
  smoothness = Auto
    .type = float(value_min=0.0001, value_max=10)
    .help = "Expected relative change of b from one knot to the next (a standard deviation), which holds b where data"
            "are few or missing. Auto finds it by maximum marginal likelihood."
  max_cycles = 50
    .type = int(value_min=1)
    .help = "Cycles of merging and fitting at most."
  tolerance = 1e-6
    .type = float(value_min=0)
    .help = "Converged when chi-squared changes by less than this, relatively, from one cycle to the next."
}
"""
)
