"""Outliers, frames that fit badly, and what the user leaves out."""

from __future__ import annotations

from iotbx.phil import parse

outliers_phil_str = """
outlier {
  reject = True
    .type = bool
    .help = "Leave out observations and voxels that the others contradict."
  n_sigma = 5
    .type = float(value_min=2)
    .help = "An observation is left out if its photons are as improbable, given its symmetry mates, as a normal deviate"
            "beyond this many standard deviations. Observations without mates are judged with their voxel."
  least_n_sigma = 3
    .type = float(value_min=2)
    .help = "Where outliers are so many that most observations at a lower limit than n_sigma are outliers, that lower"
            "limit is taken, but not below this. The same as n_sigma: no lower limit."
  voxel_n_sigma = 7
    .type = float(value_min=2)
    .help = "A voxel is left out if it is as improbable, given its neighbours and the other voxels that lie like it"
            "about Bragg points. None leaves out no voxels."
}
bad_frames {
  deviation = 0.1
    .type = float(value_min=0)
    .help = "A range of frames is reported if its signal differs by more than this part from what is expected (and"
            "significantly), on the whole detector or a part of it."
  chi_squared = 1.5
    .type = float(value_min=1)
    .help = "A range of frames is reported if chi-squared there is larger than elsewhere by this factor (and"
            "significantly)."
  exclude = False
    .type = bool
    .help = "Leave these frames out, as exclude_images does."
}
"""

#: As in dials.scale; dials.util.exclude_images reads the same.
exclude_images_phil_str = """
exclude_images = None
  .type = strings
  .multiple = True
  .help = "Images to leave out, both ends included: experiment:start:end, or start:end if there is one experiment."
          "Several as exclude_images=0:150:200,1:200:250 or exclude_images='0:150:200 1:200:250'. A batch of frames"
          "that overlaps such a range is left out whole."
  .short_caption = "Exclude images"
  .expert_level = 1
"""

phil_scope = parse(outliers_phil_str + exclude_images_phil_str)
