"""Outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from dials.util import Sorry

#: Signals that end a program early.
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def whole_files(*filenames: str | os.PathLike) -> Iterator[list[Path]]:
    """Write files beside their final names; rename all of them only when all are complete.

    Parameters
    ----------
    *filenames : path
        The final names.

    Yields
    ------
    list of Path
        Names to write to, in the same order, in the same folders and with the same endings.

    Raises
    ------
    Sorry
        If the operating system refuses to write (disk full, no permission). Nothing is left behind then, and files that
        stood under the final names are as they were.
    """
    finals = [Path(name) for name in filenames]
    parts = [final.with_name(f".{final.stem}.{os.getpid()}.part{final.suffix}") for final in finals]
    try:
        yield parts
        for part in parts:
            with open(part, "rb") as handle:
                os.fsync(handle.fileno())
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)  # all files or none
        try:
            for part, final in zip(parts, finals):
                os.replace(part, final)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (*parts, *finals):
            raise  # the trouble is with an input, not with what is written here
        names = ", ".join(str(final) for final in finals)
        raise Sorry(
            f"Cannot write {names}: {error.strerror or error}. Make room or choose another place with output.*; "
            "nothing was written."
        ) from error
    finally:
        for part in parts:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
