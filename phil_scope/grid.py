"""The grid of voxels."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
grid {
  ndiv = 3,3,3
    .type = ints(size=3, value_min=1)
    .help = "Voxels to a reciprocal-lattice spacing along a*, b*, c*: every Bragg point is the centre of a voxel. Must"
            "be equal on axes that the Laue group mixes. Large cells (over 150 A) rarely carry more than 1,1,1."
  unit_cell = None
    .type = unit_cell
    .help = "Reference cell of the map, for |q| of a voxel. The mean cell of the experiments if not given."
  space_group = None
    .type = space_group
    .help = "Space group whose Laue group makes voxels equivalent. The crystals' own if not given."
}
d_min = None
  .type = float(value_min=0)
  .help = "Resolution limit of the grid in Angstrom. The detectors' reach if not given."
""",
)
