"""Outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from dials.util import Sorry

#: Signals that end a program early.
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def whole_files(
    *filenames: str | os.PathLike, folders: Mapping[str | os.PathLike, Path] | None = None
) -> Iterator[list[Path]]:
    """Write files beside their final names; rename all of them only when all are complete.

    Parameters
    ----------
    *filenames : path
        The final names.
    folders : mapping of path to Path, optional
        Final names of folders, and where these are being made, on the same file system: renamed with the files.

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
    folders = {Path(final): made for final, made in (folders or {}).items()}
    try:
        yield parts
        for part in parts:
            with open(part, "rb") as handle:
                os.fsync(handle.fileno())
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)  # all files or none
        try:
            for final, made in folders.items():
                _replace_folder(made, final)
            for part, final in zip(parts, finals):
                os.replace(part, final)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (*parts, *finals, *folders, *folders.values()):
            raise  # the trouble is with an input, not with what is written here
        names = ", ".join(str(final) for final in (*finals, *folders))
        raise Sorry(
            f"Cannot write {names}: {error.strerror or error}. Make room or choose another place with output.*; "
            "nothing was written."
        ) from error
    finally:
        for part in parts:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()


def _replace_folder(made: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        os.rename(final, old)  # a folder that is not empty cannot be replaced in one step
    try:
        os.rename(made, final)
    except OSError:
        if old.exists():
            os.rename(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)


class QuietFile(io.FileIO):
    """A file that keeps its first error for later, for libraries that end the interpreter if they cannot write.

    HDF5 does so on closing, the stream by which DIALS writes tables on its last part.
    """

    error: OSError | None = None

    def write(self, data: bytes) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = self.error or error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the error, if there was one."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def quiet_file(filename: str | os.PathLike) -> Iterator[QuietFile]:
    """An empty file for a library; errors of the operating system come out after the library is done with it.

    Raises
    ------
    OSError
        If something could not be written.
    """
    with QuietFile(filename, "w+") as file:
        yield file
        file.check()
