"""Folders for what is unfinished, beside the output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dials.util import Sorry

from dials_diffuse.partitioned_table import is_partitioned
from dials_diffuse.provenance import ProcessRecord

logger = logging.getLogger("dials.diffuse.work")

#: The folder in it that becomes the output.
PARTS = "parts"


@contextlib.contextmanager
def work_folder(output: str | os.PathLike, fingerprint: str) -> Iterator[Path]:
    """A folder to make partitions in, which the same work finds again if it is interrupted.

    Parameters
    ----------
    output : path
        The folder of partitions that is to be made: this one is beside it, ``.NAME.parts.work``.
    fingerprint : str
        Of everything that decides what the partitions hold. What another work has left is deleted.

    Yields
    ------
    Path
        The folder, for whatever the work needs; the partitions go to :data:`PARTS` in it. Gone if all went well.

    Raises
    ------
    Sorry
        If it cannot be written to or another program is at work in it; those of the work, which then say how many
        partitions are finished.
    """
    output = Path(output).absolute()
    folder = output.with_name(f".{output.name}.work")
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(output.parent, error) from error
    try:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Sorry(f"Another program is writing {output}: wait for it to end.") from None
        try:
            _take(folder, fingerprint)
        except OSError as error:
            raise _cannot_write(output.parent, error) from error
        try:
            with _room(output.parent):
                yield folder
        except BaseException as error:
            finished = len(list(folder.rglob("*.h5")))
            if not finished:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            kept = f"{finished} finished partitions of {output} are kept: the same command goes on from there."
            if isinstance(error, Sorry):
                raise Sorry(f"{error} {kept}") from error
            logger.warning(kept)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def folder_for(refl: str | os.PathLike, record: ProcessRecord) -> contextlib.AbstractContextManager[Path]:
    """Where the partitions of observations are made: if they are the output, the same work finds them again."""
    if is_partitioned(refl):
        return work_folder(refl, record.fingerprint())
    return temporary_folder(Path(refl).resolve().parent)


@contextlib.contextmanager
def temporary_folder(parent: str | os.PathLike) -> Iterator[Path]:
    """As :func:`work_folder`, but gone afterwards whatever happens."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".diffuse.", dir=parent))
        (folder / PARTS).mkdir()
    except OSError as error:
        raise _cannot_write(parent, error) from error
    try:
        with _room(parent):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _room(folder: str | os.PathLike) -> Iterator[None]:
    """Turn the error of a full disk, wherever a program or its workers met it, into a user error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):  # None: numpy's
            raise
        raise _cannot_write(folder, error) from error


def _take(folder: Path, fingerprint: str) -> None:
    """See that what is in the folder belongs to this work."""
    mark = folder / "fingerprint"
    found = list(folder.rglob("*.h5"))
    if mark.exists() and mark.read_text() == fingerprint:
        if found:
            logger.info("Going on from %d partitions that an earlier run finished.", len(found))
        return
    if found:
        logger.info("An earlier run with other inputs or parameters left %d partitions: deleted.", len(found))
    mark.unlink(missing_ok=True)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / PARTS).mkdir()
    mark.write_text(fingerprint)


def _cannot_write(folder: str | os.PathLike, error: OSError) -> Sorry:
    return Sorry(f"Cannot write to {folder}: {error.strerror or error}. Make room or choose another place.")
