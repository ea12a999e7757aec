"""Export of maps."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
expand = Auto
  .type = bool
  .help = "Write all voxels that are equivalent under the Laue group; one of them, in the asymmetric unit, if False. "
          "Auto: all, but in lists of voxels (MTZ, text) one."
ndiv = None
  .type = ints(size=3, value_min=1)
  .help = "A coarser grid: divisors of the map's own ndiv. Values are means over the volume of the larger voxels."
range {
  h = None
    .type = floats(size=2)
    .help = "Lowest and highest h. The map is then this box, also where it goes beyond what was measured."
  k = None
    .type = floats(size=2)
    .help = "Lowest and highest k."
  l = None
    .type = floats(size=2)
    .help = "Lowest and highest l."
  d_min = None
    .type = float(value_min=0)
    .help = "Resolution limit in Angstrom: voxels beyond it are left out."
  d_max = None
    .type = float(value_min=0)
    .help = "Low-resolution limit in Angstrom."
}
field = *intensity intensity_errors observations pixels half_1 half_1_errors half_2 half_2_errors
  .type = choice
  .help = "What CCP4 maps and Yell's files hold, which have one number for each voxel."
unmeasured = Auto
  .type = float
  .help = "What they hold where nothing was measured. Auto: 0 in CCP4 maps, for most programs cannot do with NaN; NaN "
          "in Yell's files, as in meerkat's."
"""
)
