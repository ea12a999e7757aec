"""Merging of observations."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
merging {
  n_shells = 10
    .type = int(value_min=1)
    .help = "Resolution shells, of equal volume in reciprocal space, in the table of statistics."
  seed = 0
    .type = int(value_min=0)
    .help = "Seed of the random split of the observations into half sets."
}
"""
)
