"""Pixel masks and Bragg masks."""

from __future__ import annotations

from iotbx.phil import parse

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
      .help = "How many frames, evenly spread over each sweep, are looked at."
    n_sigma = 6
      .type = float(value_min=3)
      .help = "A pixel is hot (dead) if its count over the sample is this many Poisson standard deviations above"
              "(below) that of its neighbourhood."
    ratio = 3
      .type = float(value_min=1)
      .help = "... and at least this many times more (less) than it."
  }
}
bragg_mask {
  mode = none *ellipsoid shoebox file
    .type = choice
    .help = "How Bragg peaks are masked. ellipsoid: pixels whose fractional Miller indices lie within an ellipsoid of a"
            "lattice point, following the peaks through the sweep. shoebox: the bounding boxes of the reflections."
            "file: one static mask for the whole sweep. none: nothing is masked."
  file = None
    .type = path
    .help = "For mode=file: a pickled tuple of flex.bool, one a panel, False where masked."
  n_sigma = 3.5
    .type = float(value_min=0)
    .help = "Smallest radius of the ellipsoid in standard deviations of the measured peaks."
  residual = 0.02
    .type = float(value_min=0)
    .help = "The ellipsoid grows with the strength of the peak until what a Gaussian tail leaves outside is below this"
            "share of the mean count a pixel."
  max_spots = 3000
    .type = int(value_min=10)
    .help = "How many of the spots, drawn at random, serve to measure the shape of the peaks."
  seed = 42
    .type = int
    .help = "Seed of that draw."
}
""",
    process_includes=True,
)
phil_scope.get_without_substitution("mask.ice_rings.filter")[0].help = "Mask the rings of ice."  # DIALS says nothing
