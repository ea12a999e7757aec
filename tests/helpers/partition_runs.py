"""Extraction and correction of the small session into partitions or single tables."""

from __future__ import annotations

import time
from pathlib import Path

from small_session import program

from dials_diffuse.dataset import Dataset

INPUTS = ["refined_1.expt", "refined_1.refl", "refined_2.expt", "refined_2.refl", "grid.ndiv=1,1,1", "d_min=1.5"]
WORK = Path(".extracted.parts.work")


def run(step, inputs, name, *args):
    """A program with outputs of a name; the observations."""
    stem, _, _ = name.partition(".")
    outputs = [f"output.reflections={name}", f"output.experiments={stem}.expt"]
    program(step)([*inputs, *args, *outputs, *(["output.json=" + stem + ".json"] if step == "correct" else [])])
    return Dataset.from_files(f"{stem}.expt", name).observations


def extract(name="extracted.parts", *args):
    return run("extract", INPUTS, name, *(args or ("nproc=1",)))


def correct(extracted, name, *args):
    stem, _, _ = extracted.partition(".")
    return run("correct", [extracted, f"{stem}.expt", "background=background.expt"], name, *(args or ("nproc=1",)))


def finished():
    return sorted((WORK / "parts").glob("*.h5"))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
