"""The error model of scaled observations."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
error_model {
  a = None
    .type = float(value_min=0.01)
    .help = "Value of a in the error model, variance = a^2 (expected photons + variance of the background + (b I)^2)."
            "Refined from the scatter between Laue mates if not given. a=1 and b=0 leave counting statistics alone."
  b = None
    .type = float(value_min=0)
    .help = "Value of b in the error model. Refined if not given."
}
"""
)
