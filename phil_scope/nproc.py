"""Number of processes."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
nproc = Auto
  .type = int(value_min=1)
  .help = "Number of processes; Auto: one a processor."
"""
)
