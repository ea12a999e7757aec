"""Time and memory of scaling and merging against the number of observations: ``make bench-scale`` prints the table.

Twenty sweeps of 60 degrees on a 300K detector with all four terms, 1, 4 and 15 million observations of 40 photons each
on the average; made once, without images, in bench/scaling/. The last columns are the errors of the refined terms.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import dials_diffuse  # noqa: F401, I001  sets LIBTBX_BUILD

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

from run import watch
from simulated_observations import make_truth, simulated_observations
from true_terms import term_errors

SWEEPS = 20
MILLIONS = (1, 4, 15)
PROGRAMS = ("scale", "merge")
HEADER = (
    "| million observations | processes | scale | its CPU time | peak memory | merge | its CPU time | peak memory "
    "| errors of b, a, d, c |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main(folder: str, *options: str) -> None:
    """Make the observations where they are missing, measure, print the table.

    Parameters
    ----------
    folder : str
        Where they are kept.
    options : str
        Of dials.diffuse_scale.
    """
    truth = make_truth(f"sweeps={SWEEPS}")
    print(HEADER, flush=True)
    for millions in MILLIONS:
        path = Path(folder).resolve() / f"{millions}M"
        if not (path / "corrected.refl").exists():
            path.mkdir(parents=True, exist_ok=True)
            simulated_observations(truth, int(1.04e6 * millions)).write(
                path / "corrected.expt", path / "corrected.refl"
            )
            gc.collect()
        print(measure(path, truth, options), flush=True)


def measure(path: Path, truth, options: tuple[str, ...], nproc: int = 2) -> str:
    """One line of the table."""
    from dials_diffuse.algorithms.scaling.apply import term_values
    from dials_diffuse.dataset import Dataset

    figures = []
    terms = "scaling.terms=scale,absorption,offset,detector"
    scale = ["dials.diffuse_scale", "corrected.expt", "corrected.refl", f"nproc={nproc}", terms, *options]
    for command in (scale, ["dials.diffuse_merge", "scaled.expt", "scaled.refl"]):
        _, wall, cpu, memory = watch(command, path)
        figures.append(f"{wall:.0f} s | {cpu:.0f} s | {memory / 1e6:.0f} MB")
    dataset = Dataset.from_files(path / "scaled.expt", path / "scaled.refl")
    errors = term_errors(dataset, truth, term_values(dataset))
    n = len(dataset.observations) / 1e6
    percent = ", ".join(f"{100 * getattr(errors, name):.2f}" for name in "badc")
    return f"| {n:.1f} | {nproc} | {figures[0]} | {figures[1]} | {percent} % |"


if __name__ == "__main__":
    main("bench/scaling", *sys.argv[1:])
