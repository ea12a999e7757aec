"""Time and memory of scaling and merging against the number of observations: part of ``make bench-scale``.

Twenty sweeps of 60 degrees on a 300K detector with all four terms, 0.1, 1 and 10 million observations (and 30 million,
if asked for by --all) of 40 photons each on the average; made once, without images, in bench/scaling/, in partitions.
The last column is the errors (rms) of the refined terms, of c in parts of the mean intensity.
"""

from __future__ import annotations

import gc
import shutil
import sys
from pathlib import Path

import dials_diffuse  # noqa: F401, I001  sets LIBTBX_BUILD

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

from measure import Cost, exponent, header, line, megabytes, on_disk, watch
from simulated_observations import make_truth, simulated_observations
from true_terms import term_errors

SWEEPS, NPROC = 20, 2
MILLIONS = (0.1, 1, 10)
MOST = 30
INPUT, OUTPUT = ["corrected.expt", "corrected.parts"], "output.reflections=scaled.parts"
SCALE = ["dials.diffuse_scale", *INPUT, OUTPUT, f"nproc={NPROC}"]
TERMS = "scaling.terms=scale,absorption,offset,detector"
MERGE = ["dials.diffuse_merge", "scaled.expt", "scaled.parts", f"nproc={NPROC}"]
HEADINGS = ("time", "CPU time", "memory", "own process", "largest worker")


def main(folder: str, *options: str) -> None:
    """Make the observations where they are missing, measure, print the table.

    Parameters
    ----------
    folder : str
        Where they are kept.
    options : str
        --all, or of dials.diffuse_scale.
    """
    truth = make_truth(f"sweeps={SWEEPS}")
    steps = (f"{step}, {what}" for step in ("scale", "merge") for what in HEADINGS)
    print(header("million observations", *steps, "on disk", "errors of b, a, d, c"), flush=True)
    sizes, costs = [], []
    for millions in (*MILLIONS, *((MOST,) if "--all" in options else ())):
        path = Path(folder).resolve() / f"{millions}M"
        if not (path / "corrected.parts").exists():
            path.mkdir(parents=True, exist_ok=True)
            simulated_observations(truth, int(1.04e6 * millions)).write(
                path / "corrected.expt", path / "corrected.parts"
            )
            gc.collect()
        size, cost = measure(path, truth, [option for option in options if option != "--all"])
        sizes.append(size)
        costs.append(cost)
    for name, pair in zip(("scale", "merge"), zip(*costs)):
        cpu, memory = ([getattr(cost, what) for cost in pair] for what in ("cpu", "memory"))
        further = (cpu[-1] - cpu[0]) / (sizes[-1] - sizes[0])
        powers = f"{exponent(sizes, cpu):.2f}; memory ~ observations^{exponent(sizes, memory):.2f}"
        print(f"\n{name}: CPU time ~ observations^{powers}; {further:.1f} s for each further million")


def measure(path: Path, truth, options: list[str]) -> tuple[float, tuple[Cost, Cost]]:
    """Print one line of the table; millions of observations, and what scaling and merging take."""
    from dials_diffuse.algorithms.scaling.apply import term_values
    from dials_diffuse.dataset import Dataset

    shutil.rmtree(path / "scaled.parts", ignore_errors=True)
    costs = watch([*SCALE, TERMS, *options], path), watch(MERGE, path)
    dataset = Dataset.from_files(path / "scaled.expt", path / "scaled.parts")
    millions = len(dataset.observations) / 1e6
    if millions < 20:
        dataset = dataset.in_memory()
        errors = term_errors(dataset, truth, term_values(dataset))
        percent = ", ".join(f"{100 * getattr(errors, name):.2f}" for name in "badc") + " %"
    else:
        percent = ""
    figures = []
    for cost in costs:
        figures += [f"{cost.wall:.0f} s", f"{cost.cpu:.0f} s"]
        figures += map(megabytes, (cost.memory, cost.driver, cost.worker))
    made = [path / name for name in ("corrected.parts", "scaled.parts", "merged.refl", "merged.nxs")]
    print(line(f"{millions:.1f}", *figures, megabytes(on_disk(*made)), percent), flush=True)
    return millions, costs


if __name__ == "__main__":
    main("bench/scaling", *sys.argv[1:])
