"""Merging of observations."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
merging {
  n_shells = 10
    .type = int(value_min=1)
    .help = "Resolution shells, of equal volume in reciprocal space, in the table of statistics."
  friedel = apart *together
    .type = choice
    .help = "Merge voxels n and -n as equivalent (the Laue group), or apart (the crystal's point group; two voxels and "
            "two places in the map). Apart, there is no CC_Friedel."
  halves = *observation sweep operation friedel
    .type = choice
    .help = "What the half sets, in the map and for CC1/2, are divided by at random: observations; whole sweeps "
            "(lattices, stills); voxels that the Laue group makes equivalent; by Friedel: the two hands."
  halo_radius = 1
    .type = float(value_min=0, value_max=10)
    .help = "Voxels at most so many voxels from a Bragg point count as its halo in the statistics: 1 for the "
            "point's own and the six beside it, 1.8 for all 26 around it."
  test_symmetry = True
    .type = bool
    .help = "Find which Laue group the diffuse data themselves support, among those of the lattice."
  seed = 0
    .type = int(value_min=0)
    .help = "Seed of the random division of the observations into half sets."
}
"""
)
