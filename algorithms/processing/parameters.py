"""Which parameters go to which program."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import libtbx.phil

from dials_diffuse.algorithms.processing.command_line import CommandLine, read_phil
from dials_diffuse.parameters import phil_scope

#: What every program has its own of.
NOT_SHARED = ("output", "mp", "background", "pixel_mask")


class Parameters:
    """All parameters of a run, ready to be handed on.

    Parameters
    ----------
    line : CommandLine
        With those of DIALS's programs.
    phil : libtbx.phil.scope
        With those of the program itself, ours included.

    Attributes
    ----------
    values : libtbx.phil.scope_extract
        The latter, extracted; files by their full names.
    """

    def __init__(self, line: CommandLine, phil: libtbx.phil.scope) -> None:
        values = phil.extract()
        self.dials = {
            program: [text for name in getattr(values, program).phil for text in read_phil(name)] + pieces
            for program, pieces in line.dials.items()
        }
        self.phil = with_full_names(phil)
        self.values = self.phil.extract()

    def of_dials(self, program: str) -> tuple[str, list[str]]:
        """Parameters of one of DIALS's programs (named without ``dials.``), as the text of a file and as arguments."""
        pieces = self.dials[program]
        text = "".join(piece for piece in pieces if piece.endswith("\n"))
        return text, [piece for piece in pieces if not piece.endswith("\n")]

    def of_ours(self, program: str, without: Sequence[str] = ()) -> str:
        """Parameters of one of our programs that are not its defaults, as the text of a file.

        Parameters
        ----------
        program : str
            ``diffuse_extract``, and so on.
        without : sequence of str
            Names of those that mean something else to that program.
        """
        scope = phil_scope(program.removeprefix("diffuse_"))
        return scope.fetch_diff(source=scope.fetch(source=shared(self.phil, without))).as_str()


def shared(phil: libtbx.phil.scope, without: Sequence[str] = ()) -> libtbx.phil.scope:
    """The parameters that a program passes on to the programs that it runs."""
    kept = [item for item in phil.objects if item.name not in (*NOT_SHARED, *without)]
    return phil.customized_copy(objects=kept)


def with_full_names(phil: libtbx.phil.scope) -> libtbx.phil.scope:
    """The same parameters with full names of files, for programs that work in other folders."""
    phil = copy.deepcopy(phil)
    for found in phil.all_definitions():
        if found.object.type.phil_type == "path" and not found.path.startswith("output."):
            for word in found.object.words:
                if word.value not in ("None", "Auto"):
                    word.value = os.path.abspath(word.value)
    return phil


def sets_rotation(pieces: list[str]) -> bool:
    """Whether parameters of dials.import say how far the crystal rotates in an image."""
    paths = [found.path for piece in pieces for found in libtbx.phil.parse(piece).all_definitions()]
    return any(path.endswith("oscillation") and not path.startswith("input") for path in paths)


def without_rotation(pieces: list[str]) -> list[str]:
    """Parameters of dials.import without those of the scan, for images of another scan."""
    kept = []
    for piece in pieces:
        phil = libtbx.phil.parse(piece)
        for scope in (item for item in phil.objects if item.is_scope and item.name == "geometry"):
            scope.objects = [item for item in scope.objects if item.name != "scan"]
        if phil.all_definitions():
            kept.append(phil.as_str() if piece.endswith("\n") else piece)
    return kept
