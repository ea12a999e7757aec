"""Extraction."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
extract {
  mode = *voxel pixel
    .type = choice
    .help = "voxel: an observation is the sum over the pixels of a panel that fall into a voxel during a batch of"
            "frames. pixel: every pixel of every frame is an observation, for stills, small data and checks."
  experiments = None
    .type = ints(value_min=0)
    .help = "Numbers, from 0, of the experiments to extract; all if not given. Of the others only the Bragg peaks"
            "matter, which are masked where they share images: 0 leaves the map to the first of two lattices."
  batch_width = 1.0
    .type = float(value_min=0)
    .help = "Width in degrees of the batches of frames that are summed. Whatever varies during data collection is"
            "taken as constant over a batch."
}
pixel_mask = None
  .type = path
  .multiple = True
  .help = "Pixel mask to use instead of making one (see dials.diffuse_mask): one for all sweeps, or one each."
""",
)
