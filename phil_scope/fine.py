"""Merging on another grid than that of scaling."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
grid {
  ndiv = None
    .type = ints(size=3, value_min=1)
    .help = "Merge on a grid of so many voxels to a reciprocal-lattice spacing along a*, b*, c*, instead of that of "
            "scaling: the images are extracted and corrected again, as they were before, and the refined scaling "
            "model is applied."
}
d_min = None
  .type = float(value_min=0)
  .help = "Resolution limit in Angstrom, instead of that of scaling. Beyond that of scaling, the images are extracted "
          "again."
include scope dials_diffuse.phil_scope.mp.phil_scope
""",
    process_includes=True,
)
