"""What is shown of a map, and how."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
field = *intensity half_1 half_2 observations pixels
  .type = choice
  .help = "Which array of the map is shown."
plane {
  zone = 0,0,1
    .type = ints(size=3)
    .help = "Zone axis u v w: shown is the plane of all h k l with h u + k v + l w = level."
  vectors = None
    .type = ints(size=6)
    .help = "Instead of the zone, two reciprocal-lattice vectors in the plane, h k l of the first, which is drawn to "
            "the right, and of the second, which is drawn upwards: 1,1,0,0,0,1."
  level = 0
    .type = float
    .help = "Which of the planes: 1.5 is h k 1.5 where the zone is 0,0,1."
  through = None
    .type = floats(size=3)
    .help = "Instead of the level, the h k l of a point in the plane."
}
colour {
  scale = *linear log percentile
    .type = choice
    .help = "Colours go with the intensity, its logarithm, or its rank among the map's voxels."
  limits = None
    .type = floats(size=2)
    .help = "Intensities of the first and the last colour; None: what shows 98 % of the map's voxels."
  map = viridis inferno magma cividis Greys RdBu_r coolwarm PuOr_r
    .type = choice
    .help = "Matplotlib's name of the colours. None: viridis, or RdBu_r with white at zero if there are many "
            "negative values."
}
rings = Auto
  .type = floats(value_min=0)
  .help = "Resolution rings, d in Angstrom. None for none."
lattice = False
  .type = bool
  .help = "Mark Bragg points."
"""
)
