"""How work is shared out."""

from __future__ import annotations

from iotbx.phil import parse

_nproc = """
nproc = Auto
  .type = int(value_min=1)
  .help = "Number of processes on this machine; Auto: one a processor. A cluster has as many workers as it has."
"""

#: For programs that work on this machine only.
local_scope = parse("mp {" + _nproc + "}")

phil_scope = parse(
    """
mp {
  method = *processes dask
    .type = choice
    .help = "Processes on this machine, or workers of Dask, which may be on many machines that share a file system:"
            "docs/cluster.md."
"""
    + _nproc
    + """
  scheduler = None
    .type = str
    .help = "With dask: the address of the cluster's scheduler, tcp://..., or the scheduler file that it wrote. None: a"
            "cluster of nproc processes on this machine, for as long as the program runs."
}
"""
)
