"""The command line of dials.diffuse_process: images, DIALS's files, parameters of DIALS's programs, and our own."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libtbx.phil
from dials.util import Sorry

from dials_diffuse.phil_scope.process import DIALS_PROGRAMS

#: Parameters of dials.import that are understood without its name.
IMPORT_SCOPES = ("geometry", "format", "lookup", "identifier_type")

PHIL_ENDINGS = (".phil", ".param", ".params", ".eff", ".def")
MODEL_ENDINGS = (".expt", ".json")
REFLECTION_ENDINGS = (".refl", ".pickle")


@dataclass
class CommandLine:
    """Arguments, sorted.

    Attributes
    ----------
    own : list of str
        Options and parameters of the program itself; PHIL as in a file ends with a line break.
    images, models, reflections : list of Path
        Files, in the order given.
    dials : dict of str to list of str
        For every one of :data:`DIALS_PROGRAMS`, pieces of PHIL in the order given: assignments as on a command line, or
        text with line breaks as in a file.
    """

    own: list[str] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    models: list[Path] = field(default_factory=list)
    reflections: list[Path] = field(default_factory=list)
    dials: dict[str, list[str]] = field(default_factory=lambda: {program: [] for program in DIALS_PROGRAMS})

    @contextlib.contextmanager
    def own_arguments(self) -> Iterator[list[str]]:
        """``own`` as arguments for DIALS's parser, which takes repeated scopes apart unless they come in files."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = []
            for number, piece in enumerate(self.own):
                if piece.endswith("\n"):
                    file = Path(folder) / f"{number}.phil"
                    file.write_text(piece)
                    piece = str(file)
                arguments.append(piece)
            yield arguments


def sort_arguments(args: list[str]) -> CommandLine:
    """Sort the arguments of the program.

    Raises
    ------
    Sorry
        If a parameter is for a program that is not run, a PHIL file is broken, or an argument is a folder.
    """
    line = CommandLine()
    for arg in args:
        path = Path(arg)
        if arg.startswith("-"):
            line.own.append(arg)
        elif path.is_file():
            _sort_file(arg, line)
        elif match := re.match(r"dials\s*\.\s*(\w+)\s*\.(.*=.*)", arg, re.DOTALL):
            _check_program(match[1])
            name, _, value = match[2].partition("=")
            line.dials[match[1]].append(f"{name}={_absolute(value.strip())}")
        elif re.match(rf"({'|'.join(IMPORT_SCOPES)})\b.*=", arg, re.DOTALL) or "{" in arg:
            _sort_phil(_parse(arg, arg), line)
        elif path.is_dir():
            raise Sorry(f"{arg} is a folder: name the images in it.")
        else:
            line.own.append(arg)
    return line


def _sort_file(name: str, line: CommandLine) -> None:
    if name.endswith(PHIL_ENDINGS):
        _sort_phil(_parse(Path(name).read_text(), name), line)
    elif name.endswith(MODEL_ENDINGS):
        line.models.append(Path(name))
    elif name.endswith(REFLECTION_ENDINGS):
        line.reflections.append(Path(name))
    else:
        line.images.append(Path(name))


def _sort_phil(phil: libtbx.phil.scope, line: CommandLine) -> None:
    """Put what is for DIALS's programs in its place."""
    own = ""
    for item in phil.objects:
        if item.is_disabled:
            continue
        if item.name == "dials" and item.is_scope:
            for block in item.objects:
                _check_program(block.name)
                line.dials[block.name] += [_file_text(parameter) for parameter in block.objects if block.is_scope]
        elif item.name in IMPORT_SCOPES:
            line.dials["import"].append(_file_text(item))
        else:
            own += item.as_str()
    if own:
        line.own.append(own)


def read_phil(name: str) -> list[str]:
    """The parameters in a PHIL file, each as text, with the names of files in full.

    Raises
    ------
    Sorry
        If it is none.
    """
    return [_file_text(item) for item in _parse(Path(name).read_text(), name).objects if not item.is_disabled]


def _file_text(item: libtbx.phil.scope | libtbx.phil.definition) -> str:
    """PHIL as in a file: a line break at its end tells it from an assignment."""
    definitions = [found.object for found in item.all_definitions()] if item.is_scope else [item]
    for word in (word for definition in definitions for word in definition.words):
        word.value = _absolute(word.value)
    return item.as_str()


def _absolute(value: str) -> str:
    """A value that names a file names it in full: DIALS's programs work in other folders."""
    return os.path.abspath(value) if os.path.isfile(value) else value


def _parse(text: str, name: str) -> libtbx.phil.scope:
    try:
        return libtbx.phil.parse(text)
    except RuntimeError as error:
        raise Sorry(f"{name} is not PHIL: {error}.") from error


def _check_program(name: str) -> None:
    if name not in DIALS_PROGRAMS:
        known = ", ".join(f"dials.{program}" for program in DIALS_PROGRAMS)
        raise Sorry(
            f"dials.{name} is not run: parameters can be given to {known}, and to our own programs as they are."
        )
