"""Pixel masks and Bragg masks. The scopes of plug-ins are in it, so that importing it may raise Sorry."""

from __future__ import annotations

from iotbx.phil import parse

from dials_diffuse.algorithms.masking.strategies import bragg_mask_scope

phil_scope = parse(
    """
mask {
  include scope dials.util.masking.phil_scope
  virtual_pixels = True
    .type = bool
    .help = "Mask the pixels between the readout chips of known modules (Pilatus, Eiger): their counts are shared out"
            "among several pixels, which is right on average but not in its noise."
  beam_stop {
    find = False
      .type = bool
      .help = "Find the shadow of the beam stop from the sampled frames."
    threshold = 0.3
      .type = float(value_min=0, value_max=1)
      .help = "A pixel is in shadow where it has less than this share of the counts expected at its resolution."
    margin = 3
      .type = int(value_min=0)
      .help = "Pixels by which the shadow is widened."
  }
  bad_pixels {
    find = True
      .type = bool
      .help = "Mask pixels that behave badly over a sample of frames: hot, dead, or outside the trusted range"
              "in half of them."
    frames = 24
      .type = int(value_min=4)
      .help = "How many frames, evenly spread over each sweep (or over all stills of one kind), are looked at."
    n_sigma = 6
      .type = float(value_min=3)
      .help = "A pixel is hot (dead) if its count over the sample is this many Poisson standard deviations above"
              "(below) that of its neighbourhood."
    ratio = 3
      .type = float(value_min=1)
      .help = "... and at least this many times more (less) than it."
  }
}
""",
    process_includes=True,
)
phil_scope.get_without_substitution("mask.ice_rings.filter")[0].help = "Mask the rings of ice."  # DIALS says nothing
phil_scope.adopt_scope(bragg_mask_scope())
