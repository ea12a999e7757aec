"""process.json: what ran on what, so that nothing runs again that would give the same."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from dials.util import Sorry

from dials_diffuse.output import whole_files
from dials_diffuse.partitioned_table import PartitionedTable
from dials_diffuse.provenance import ProcessRecord, hash_file


class Record:
    """All steps that were done, kept in a file that is written after each of them.

    Parameters
    ----------
    filename : str
        Read if it is there.
    process : ProcessRecord
        Of this run of the program.

    Attributes
    ----------
    content : dict
        What the file holds. ``steps``: by ``folder/step``, the command line, key, seconds, files written and numbers
        found or results. ``folders``: those that were worked in. The rest is written for people.
    """

    def __init__(self, filename: str, process: ProcessRecord) -> None:
        self.path = Path(filename)
        self._lock = threading.Lock()
        self.content: dict = {
            "program": process.program,
            "version": process.version,
            "python": sys.version.split()[0],
            "date": process.date,
            "parameters": process.parameters,
            "sweeps": {},
            "folders": [],
            "steps": {},
        }
        if self.path.exists():
            self._read_earlier()

    def _read_earlier(self) -> None:
        try:
            earlier = json.loads(self.path.read_text())
            self.content |= {"folders": list(earlier["folders"]), "steps": dict(earlier["steps"])}
        except (ValueError, KeyError, TypeError) as error:
            raise Sorry(
                f"{self.path} is not what dials.diffuse_process writes: move it away, or choose another output.json."
            ) from error

    def enter(self, folder: Path, files: Sequence[str]) -> None:
        """Take a folder to work in.

        Raises
        ------
        Sorry
            If files of these patterns are in it that no earlier run has written.
        """
        name = relative(folder)
        with self._lock:
            if name in self.content["folders"]:
                return
            foreign = [path for pattern in files for path in sorted(folder.glob(pattern))]
            if foreign:
                raise Sorry(
                    f"{relative(foreign[0])} is not from dials.diffuse_process ({self.path} does not know {name}): "
                    "move it away, or work in another folder."
                )
            folder.mkdir(exist_ok=True)
            self.content["folders"].append(name)
            self._write()

    def done(self, step: str, key: str) -> dict | None:
        """What was recorded of a step, if it was done with the same key and its files are as it left them."""
        entry = self.content["steps"].get(step)
        if entry is None or entry["key"] != key:
            return None
        return entry if all(_unchanged(name, file) for name, file in entry["outputs"].items()) else None

    def hash(self, path: Path) -> str:
        """SHA-256 of a file; from the record if the file is as the step that wrote it left it."""
        name = relative(path)
        for entry in list(self.content["steps"].values()):
            file = entry["outputs"].get(name)
            if file and _stat(path) == file["stat"]:
                return file["sha256"]
        return hash_file(path)

    def add(self, step: str, entry: dict, outputs: list[Path]) -> None:
        """Record a step that is done."""
        entry["outputs"] = {relative(path): {"sha256": hash_file(path), "stat": _stat(path)} for path in outputs}
        with self._lock:
            self.content["steps"][step] = entry
            self._write()

    def forget(self, step: str) -> None:
        """Before a step is done anew: what it leaves behind if it is killed must not count."""
        with self._lock:
            if self.content["steps"].pop(step, None):
                self._write()

    def keep_only(self, steps: set[str]) -> None:
        """Drop what an earlier run had and this one has not."""
        with self._lock:
            self.content["steps"] = {name: entry for name, entry in self.content["steps"].items() if name in steps}

    def write(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        with whole_files(self.path) as (part,):
            part.write_text(json.dumps(self.content, indent=1))


def key_of(*parts: object) -> str:
    """One hash of everything that decides what a step gives."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def relative(path: Path) -> str:
    return os.path.relpath(path)


def _stat(path: Path) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _unchanged(name: str, file: dict) -> bool:
    path = Path(name)
    if path.is_dir():
        with contextlib.suppress(Sorry):
            return PartitionedTable(path).hash() == file["sha256"]
        return False
    return path.is_file() and (_stat(path) == file["stat"] or hash_file(path) == file["sha256"])


@contextlib.contextmanager
def alone_in_folder() -> Iterator[None]:
    """See that no other run works in the same folder at the same time.

    Raises
    ------
    Sorry
        If one does.
    """
    folder = os.open(".", os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Sorry("dials.diffuse_process is at work in this folder already: wait for it to end.") from None
        yield
    finally:
        os.close(folder)
