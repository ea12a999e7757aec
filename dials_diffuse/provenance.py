"""What ran: the record that every output carries, so that each number can be traced to its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from dials.util.version import dials_version
from iotbx.phil import parse

from dials_diffuse import __version__
from dials_diffuse.partitioned_table import MANIFEST

#: Scopes of parameters that change nothing in the numbers.
NO_MATTER = ("output", "mp", "input")


@dataclass
class ProcessRecord:
    """One run of one program.

    Attributes
    ----------
    program, version, date : str
        Name of the program, versions of dials_diffuse and DIALS, UTC date in ISO 8601.
    parameters : str
        All parameters as PHIL.
    inputs : dict of str to str
        SHA-256 (hexadecimal) of each input file, by name.
    folder : str
        Where it ran, which relative names start from; empty in files of older versions.
    experiments : list of str
        Identifiers of the experiments it was given; empty there, too.
    """

    program: str
    version: str
    date: str
    parameters: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    experiments: list[str] = field(default_factory=list)

    @classmethod
    def now(cls, program: str, parameters: str = "") -> ProcessRecord:
        """A record of a program that starts now, in the working directory."""
        version = f"dials_diffuse {__version__}, {dials_version()}"
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(program, version, date, parameters, folder=os.getcwd())

    def to_dict(self) -> dict:
        return asdict(self)

    def fingerprint(self) -> str:
        """A hash of all that decides what comes out: program, versions, the inputs' contents, and the parameters except
        where the outputs go and how the work is divided. Without inputs no two are the same."""
        scope = parse(self.parameters)
        scope.objects = [item for item in scope.objects if item.name not in NO_MATTER]
        inputs = list(self.inputs.values()) or [uuid.uuid4().hex]
        return hashlib.sha256(json.dumps([self.program, self.version, inputs, scope.as_str()]).encode()).hexdigest()

    @classmethod
    def from_dict(cls, values: dict) -> ProcessRecord:
        return cls(**values)


def hash_file(filename: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal; of a folder of partitions: of its manifest, which holds theirs."""
    if os.path.isdir(filename):
        filename = Path(filename) / MANIFEST
    digest = hashlib.sha256()
    with open(filename, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
