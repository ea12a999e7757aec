"""The table at the end."""

from __future__ import annotations

from collections.abc import Sequence

from dials.util import tabulate

from dials_diffuse.algorithms.processing.sweeps import Sweep

HEADER = ("Sweep", "Spots", "Indexed", "RMSD x, y, z", "Cell", "Mosaicity", "Observations", "Reindexed")
UNITS = "RMSDs in pixels, pixels and images; cell in A and degrees; mosaicity (sigma_m) in degrees"


def table(sweeps: Sequence[Sweep]) -> str:
    """Key numbers of all sweeps, one a row; of lattices in the same images, the first one's cell."""
    return f"{tabulate([_row(sweep.name, sweep.numbers) for sweep in sweeps], HEADER, disable_numparse=True)}\n{UNITS}"


def _row(name: str, found: dict) -> list[str]:
    cells = found.get("cells", [])
    indexed = f"{100 * found['indexed'] / found['spots']:.1f} %" if found.get("spots") else ""
    if "stills" in found:
        indexed = f"{found['indexed stills']} of {found['stills']} stills"
    cell = " ".join(f"{value:.2f}" for value in cells[0][:3]) + "  " if cells else ""
    cell += " ".join(f"{value:.1f}" for value in cells[0][3:]) if cells else ""
    return [
        name,
        str(found.get("spots", "")),
        indexed,
        ", ".join(f"{value:.3f}" for value in found.get("rmsd", [])),
        cell + (f" (of {len(cells)})" if len(cells) > 1 else ""),
        f"{found['mosaicity']:.3f}" if found.get("mosaicity") is not None else "",
        str(found.get("observations", "")),
        found.get("operator", ""),
    ]
