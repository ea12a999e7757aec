"""One step: one program run on files in one folder, unless that was done before."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dials_diffuse.algorithms.processing.children import Children
from dials_diffuse.algorithms.processing.record import Record, key_of, relative

logger = logging.getLogger("dials.diffuse.process")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_VALUE = re.compile(r"=\s*[\"']?([^\s\"']+)")
_BUG_REPORT = re.compile(r"Please report this error at .*?: ")


class LeftOut(Exception):
    """Why a sweep cannot be in the map."""


class StepFailed(LeftOut):
    """A program did not do its work; the text is its own message and the place of its log."""


@dataclass
class Step:
    """What a program is to do.

    Attributes
    ----------
    program : str
        As on the command line, e.g. ``dials.index``.
    folder : Path
        Where it works.
    inputs : sequence of Path
        Its files, the first arguments.
    outputs : sequence of str
        Names, or patterns, of the files that it must write in the folder.
    args : sequence of str
        Further arguments. Files that are values of parameters are inputs, too.
    phil : str
        Parameters as text: goes into ``<program>.phil``.
    aside : sequence of str
        Arguments that make no difference to the result, such as nproc.
    depends : object
        Whatever else decides the result.
    """

    program: str
    folder: Path
    inputs: Sequence[Path]
    outputs: Sequence[str]
    args: Sequence[str] = ()
    phil: str = ""
    aside: Sequence[str] = ()
    depends: object = None

    @property
    def name(self) -> str:
        """The folder and the program's last name: what process.json knows the step by."""
        return f"{relative(self.folder)}/{self.program.removeprefix('dials.')}"

    @property
    def module(self) -> str:
        last = self.program.removeprefix("dials.")
        if last.startswith("diffuse_"):
            return f"dials_diffuse.command_line.{last}"
        return f"dials.command_line.{'dials_import' if last == 'import' else last}"

    def arguments(self) -> list[str]:
        """All arguments; parameters in the order in which later ones win."""
        files = [os.path.relpath(path, self.folder) for path in self.inputs]
        return [*files, *self.aside, *([f"{self.program}.phil"] if self.phil else []), *self.args]

    def written(self) -> list[Path]:
        """The outputs that are there."""
        return sorted({path for pattern in self.outputs for path in self.folder.glob(pattern)})


class Runner:
    """Runs steps, or keeps what they did before.

    Parameters
    ----------
    record : Record
    children : Children
    version : str
        Of everything that decides results: if it changes, all steps are done anew.
    """

    def __init__(self, record: Record, children: Children, version: str) -> None:
        self.record = record
        self.children = children
        self.version = version
        self.used: set[str] = set()

    def key(self, step: Step) -> str:
        """The hash of all that decides what the step gives."""
        values = {value for text in (step.phil, *step.args) for value in _VALUE.findall(text)}
        named = [step.folder / value for value in sorted(values) if os.path.isfile(step.folder / value)]
        files = [(relative(path), self.record.hash(path)) for path in [*step.inputs, *named]]
        return key_of(self.version, step.program, files, list(step.args), step.phil, step.depends)

    def is_done(self, step: Step) -> bool:
        """Whether nothing is left to do."""
        return self.record.done(step.name, self.key(step)) is not None

    def run(self, step: Step) -> list[Path]:
        """Do a step; the files that it wrote.

        Raises
        ------
        StepFailed
        """
        self.used.add(step.name)
        key = self.key(step)
        if entry := self.record.done(step.name, key):
            logger.info("%-40s kept", step.name)
            return [Path(name) for name in entry["outputs"]]
        self.record.forget(step.name)
        for path in step.written():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if step.phil:
            (step.folder / f"{step.program}.phil").write_text(step.phil)
        arguments = step.arguments()
        began = time.perf_counter()
        output = step.folder / f"{step.program}.out"
        status, errors = self.children.run(step.program, step.module, arguments, step.folder, output)
        seconds = time.perf_counter() - began
        written = step.written()
        complete = all(any(step.folder.glob(pattern)) for pattern in step.outputs)
        if status != 0 or not complete:
            raise StepFailed(f"{step.program}: {_message(errors, output, status, step)} (see {relative(output)})")
        if (step.folder / f"{step.program}.log").is_file():
            output.unlink()  # the log says the same
        logger.info("%-40s %6.1f s", step.name, seconds)
        entry = {"command": " ".join([step.program, *arguments]), "key": key, "seconds": round(seconds, 2)}
        self.record.add(step.name, entry, written)
        return written

    def compute(self, step: str, key: str, function: Callable[[], Any], outputs: Sequence[Path] = ()) -> Any:
        """What a function gives (JSON-ready), or gave before with the same key.

        Parameters
        ----------
        step : str
            To know it by.
        key : str
            Of everything that decides the result.
        function : callable
        outputs : sequence of Path
            Files that it writes.
        """
        self.used.add(step)
        entry = self.record.done(step, key)
        if entry is None:
            self.record.forget(step)
            entry = {"key": key, "result": function()}
            self.record.add(step, entry, list(outputs))
        return entry["result"]


def _message(errors: str, output: Path, status: int, step: Step) -> str:
    """The last thing a program said, in one line."""
    if status < 0:
        return f"it was ended by signal {-status}, perhaps for want of memory"
    said, printed = _lines(errors), _lines(output.read_text(errors="replace"))
    starts = [i for i, line in enumerate(said) if re.match(r"(\w+\.)*\w*(Error|Exception|Abort|Sorry)\b", line)]
    if starts:
        message = " ".join(said[starts[-1] : starts[-1] + 4])
    elif status == 0:
        missing = [pattern for pattern in step.outputs if not any(step.folder.glob(pattern))]
        reasons = [line for line in printed if "Error: " in line] or [line for line in printed if "n't " in line]
        message = f"it wrote no {' and no '.join(missing)}{': ' * bool(reasons)}{''.join(reasons[-1:])}"
    else:
        message = (said or printed or [f"it ended with status {status}"])[-1]
    return _BUG_REPORT.sub("", message).removeprefix("Sorry: ").rstrip(".")


def _lines(text: str) -> list[str]:
    """The lines that are not empty, without colours."""
    return [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
