"""Two small simulated sweeps that dials.diffuse_process has processed to a map, in one call with real DIALS."""

from __future__ import annotations

from pathlib import Path

from dials_session import working_directory
from small_session import program

SIMULATION = (
    "sweeps=2 frames=32 oscillation.width=1 detector.model=100K detector.distance=60 "
    "crystal.unit_cell=20,22,24,90,90,90 photons=2 background.images=4"
)
CRYSTAL = ("unit_cell=20,22,24,90,90,90", "space_group=P212121")
OURS = ("grid.ndiv=1,1,1", "d_min=1.5", "nproc=2", "background=images/background_####.cbf")
OPTIONS = """
dials.find_spots { spotfinder.filter.d_min = 1.5 }
dials.index { indexing.method = fft1d }
"""
IMAGES = [f"images/sweep_{sweep}_{frame:04d}.cbf" for sweep in (1, 2) for frame in range(1, 33)]
ARGS = [*IMAGES, *CRYSTAL, *OURS, "fast.phil", "dials.index.n_macro_cycles=1"]


def make_processed(folder: Path) -> None:
    """For the fixture make_once: images, fast.phil, and whatever comes of them."""
    with working_directory(folder):
        program("simulate")(SIMULATION.split())
        Path("fast.phil").write_text(OPTIONS)
        program("process")(ARGS)


def files_of_sweep(made: Path, sweep: str, state: str) -> list[str]:
    """The .expt and .refl file of a sweep in a state."""
    return [str(made / sweep / f"{state}.{ending}") for ending in ("expt", "refl")]
