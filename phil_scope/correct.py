"""Corrections and background. The scopes of plug-ins are in it, so that importing it may raise Sorry."""

from __future__ import annotations

from iotbx.phil import parse

from dials_diffuse.algorithms.correction.combined import correction_scope

phil_scope = parse(
    """
background = None
  .type = path
  .multiple = True
  .help = "Experiment file of images taken without a crystal, as dials.import writes it: any number of frames, any"
          "exposure time. One for all experiments, or one for each in their order (give the parameter again)."
background_model {
  half_width = 10
    .type = int(value_min=0)
    .help = "The background of a pixel is the mean over the valid pixels of a box of 2 half_width + 1 pixels around it."
  mask = None
    .type = path
    .help = "Mask for the background images (pixels.mask of dials.diffuse_mask): without it, the shadow of the beam"
            "stop lowers the background near its edge. The masks that come with the images, and those that"
            "dials.apply_mask has given to the crystal's, are used if none is given."
  rotation_bins = 1
    .type = int(value_min=1)
    .help = "Bins of rotation angle in which the background is determined separately, for a background that depends on"
            "the goniometer's position."
  scale = 1
    .type = floats(value_min=0)
    .help = "Factor on the background beyond the ratio of exposure times, e.g. the ratio of a beam monitor's readings"
            "(crystal over background). One for all, or one for each background file."
}
variance {
  shells = 50
    .type = int(value_min=1)
    .help = "Resolution shells, with equal numbers of observations, of an experiment. An observation's expected counts,"
            "and from them its variance, come from the mean intensity of its shell."
}
""",
)
phil_scope.adopt_scope(correction_scope())
