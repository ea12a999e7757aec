"""Functions that hold much, for workers on other machines: read from a file, once, where the workers see the disk."""

from __future__ import annotations

import contextlib
import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

from dials_diffuse.parallel import Mp


@contextlib.contextmanager
def through_file(function: Callable, folder: str | os.PathLike, mp: Mp) -> Iterator[Callable]:
    """What to give to :func:`~dials_diffuse.parallel.parallel_map` in place of a function that is not small.

    Parameters
    ----------
    function : callable
        Of one argument; picklable by cloudpickle.
    folder : path
        That all workers see.
    mp : libtbx.phil.scope_extract or int
        The scope ``mp``: processes of this machine share its memory and get the function itself.
    """
    if getattr(mp, "method", None) != "dask":
        yield function
        return
    import cloudpickle

    path = Path(folder).resolve() / f"{uuid.uuid4().hex}.pickle"
    path.write_bytes(cloudpickle.dumps(function))
    try:
        yield partial(_call, os.fspath(path))
    finally:
        path.unlink(missing_ok=True)


def _call(path: str, argument):
    return _read(path)(argument)


@lru_cache(maxsize=2)
def _read(path: str) -> Callable:
    return pickle.loads(Path(path).read_bytes())
