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
  terms = Auto
    .type = strings
    .help = "Terms of the model I_obs = a d (b I + c): scale (b), absorption (a), offset (c), detector or modules (d),"
            "and those of plug-ins. Auto: b, and each other one that improves the prediction of held-out observations"
            "(a only if a sweep turns by 30 degrees or more)."
"""
    + model_phil_str
    + """
  absorption
    .help = "a(x, y, phi)"
  {
    interval = Auto
      .type = float(value_min=0.1)
      .help = "Rotation in degrees between knots. Auto: a sixth of the sweep, but 10 to 30."
    intervals = 3
      .type = int(value_min=1)
      .help = "Intervals between knots over the width, and over the height, of the detector."
  }
  offset
    .help = "c(|q|, phi)"
  {
    interval = Auto
      .type = float(value_min=0.1)
      .help = "Rotation in degrees between knots. Auto: a tenth of the sweep, but 5 to 20."
    q_interval = 0.04
      .type = float(value_min=0.001)
      .help = "Distance in 1/A between knots along |q|."
  }
  detector
    .help = "d(x, y)"
  {
    intervals = 6
      .type = int(value_min=1)
      .help = "Intervals between knots along the longer edge of a detector of one panel (the term detector)."
    tile_size = None
      .type = ints(size=2, value_min=1)
      .help = "Pixels along fast and slow of a module or chip (the term modules). Every panel is one if not given."
  }
  smoothness
    .help = "Expected change of a term from one knot to the next (a standard deviation), which holds it where data are"
            "few or missing: relative to the term, of c relative to the mean intensity. Auto finds it by maximum"
            "marginal likelihood, for every axis of the term."
  {
    scale = Auto
      .type = float(value_min=0.0001, value_max=10)
      .help = "Of b."
    absorption = Auto
      .type = float(value_min=0.0001, value_max=10)
      .help = "Of a."
    offset = Auto
      .type = float(value_min=0.0001, value_max=10)
      .help = "Of c."
    detector = Auto
      .type = float(value_min=0.0001, value_max=10)
      .help = "Of d, smooth."
  }
  held_out = 0.2
    .type = float(value_min=0.01, value_max=0.9)
    .help = "Part of the observations that are held out to choose terms by."
  max_cycles = 50
    .type = int(value_min=1)
    .help = "Cycles of merging and fitting at most."
  tolerance = 5e-5
    .type = float(value_min=0)
    .help = "Converged when chi-squared changes by less than this, relatively, from one cycle to the next."
  seed = 0
    .type = int(value_min=0)
    .help = "Seed of the choice of held-out observations."
}
reference = None
  .type = path
  .help = "A map, merged.nxs: the data are put on its scale."
include scope dials_diffuse.phil_scope.error_model.phil_scope
include scope dials_diffuse.phil_scope.outliers.phil_scope
""",
    process_includes=True,
)
