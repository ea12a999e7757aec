"""Outliers, bad frames, and what the user leaves out."""

from __future__ import annotations

from iotbx.phil import parse

outlier_phil_str = """
outlier {
  n_sigma = 5
    .type = float(value_min=2)
    .help = "An observation is left out if its photons are as improbable, given its symmetry mates, as a normal deviate"
            "beyond this many standard deviations. Observations without mates are judged with their voxel."
  least_n_sigma = 3
    .type = float(value_min=2)
    .help = "Where outliers are so many that most observations at a lower limit than n_sigma are outliers, the lower limit"
            "is taken, but not below this. The same as n_sigma: no lower limit."
  voxel_n_sigma = 7
    .type = float(value_min=2)
    .help = "A voxel is left out if it is as improbable, given its neighbours and the other voxels that lie like it"
            "about Bragg points. None leaves out no voxels."
}
"""

phil_scope = parse(outlier_phil_str)
