"""Observations larger than memory: a folder NAME.parts of partitions, each a file of columns.

A partition is an HDF5 file with a dataset a column: float32 and int32, shuffled, compressed by LZF and with a checksum
for every chunk. Chosen by benchmarks/bench_partitions.py: a quarter of the bytes of a .refl file, read and written
about as fast. (gzip at level 1 would save another tenth, and take three times as long to write.) The same columns make
the same bytes. ``manifest.json`` lists the partitions and is written last: a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from dials.array_family import flex
from dials.util import Sorry

from dials_diffuse.table_file import Columns, flex_table

#: Ending of the folders.
ENDING = ".parts"
MANIFEST = "manifest.json"
#: Observations that make a good partition: small in memory, large enough for any disk.
GOOD_SIZE = 500_000
#: Rows of a chunk.
CHUNK = 1 << 16
#: Columns in double precision: refinement gives the same up to the last digits, not the same to the digit that rounding
#: leaves, and bright voxels would show it.
DOUBLE = ("inverse_scale_factor", "offset.sum.value")
#: Of the manifest; to be raised when an older version of this package could not read it.
FORMAT = 1


@dataclass(frozen=True)
class Part:
    """One partition.

    Attributes
    ----------
    name : str
        Of the file, without its ending.
    rows : int
    bytes : int
        Of the file.
    sha256 : str
        Of the file.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


class PartitionedTable:
    """A finished folder of partitions, or several seen as one table.

    It is small and can be pickled: give it, and the number of a partition, to another process.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    folder : Path
        The (first) folder.
    parts : list of Part
    identifiers : dict of int to str
        Experiment identifiers by ``id``.
    attributes : dict
        Whatever the writer says of it. ``order``: ``frame``, partitions are runs of whole batches of a sweep's frames;
        ``voxel``, each holds whole voxels of the asymmetric unit, in its order; ``none``.
    columns : list of str
        Names, in alphabetical order.

    Raises
    ------
    Sorry
        If it is not a whole one.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder).absolute()  # for processes that work in another folder
        content = _read_manifest(self.folder)
        self.parts = [Part(**part) for part in content["parts"]]
        self.identifiers = {int(key): name for key, name in content["identifiers"].items()}
        self.attributes: dict = content["attributes"]
        self.columns: list[str] = content["columns"]
        self._places = [(self.folder, 0)] * len(self.parts)  # of each partition: folder, what is added to id
        for number, part in enumerate(self.parts):
            path = self.path(number)
            size = path.stat().st_size if path.is_file() else None
            if size != part.bytes:
                trouble = "is missing" if size is None else f"has {size} bytes instead of {part.bytes}"
                raise Sorry(f"{path} {trouble}: copy {self.folder} again from where it is whole, or make it again.")

    @classmethod
    def joined(cls, tables: Sequence[PartitionedTable], first_ids: Sequence[int]) -> PartitionedTable:
        """Several tables as one, without copying: partitions one after the other.

        Parameters
        ----------
        tables : sequence of PartitionedTable
        first_ids : sequence of int
            What is added to the ``id`` of each table on reading.
        """
        one = cls.__new__(cls)
        one.folder = tables[0].folder
        one.parts = [part for table in tables for part in table.parts]
        one.identifiers = {
            key + first: name for table, first in zip(tables, first_ids) for key, name in table.identifiers.items()
        }
        orders = {table.attributes.get("order") for table in tables}
        one.attributes = {"order": "frame" if orders == {"frame"} else "none"}
        one.columns = sorted(set.intersection(*(set(table.columns) for table in tables)))
        one._places = [
            (folder, id_ + first) for table, first in zip(tables, first_ids) for folder, id_ in table._places
        ]
        return one

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def __len__(self) -> int:
        return self.rows

    def path(self, number: int) -> Path:
        """File of a partition."""
        return _path(self._places[number][0], self.parts[number].name)

    def read(self, number: int, names: Iterable[str] | None = None) -> Columns:
        """Columns of a partition.

        Parameters
        ----------
        number : int
        names : iterable of str, optional
            All if None.

        Returns
        -------
        dict of str to ndarray, shape (rows,) or (rows, 3), as on disk: float32 (some float64), int32 or bool

        Raises
        ------
        Sorry
            If the file is damaged.
        """
        columns = read_part(self.path(number), self.columns if names is None else names)
        if (first := self._places[number][1]) and "id" in columns:
            columns["id"] += np.int32(first)
        return columns

    def table(self, number: int, names: Iterable[str] | None = None) -> flex.reflection_table:
        """A partition as a .refl file would give it: see docs/data_model.md for the types.

        Parameters and what is raised: as of :meth:`read`.
        """
        return flex_table(self.read(number, names), self.identifiers)

    def column(self, name: str) -> Iterator[np.ndarray]:
        """One column, partition by partition."""
        for number in range(len(self.parts)):
            yield self.read(number, [name])[name]

    def whole_table(self, names: Iterable[str] | None = None) -> flex.reflection_table:
        """All partitions as one table in memory."""
        names = self.columns if names is None else names
        return flex_table({name: np.concatenate([*self.column(name)]) for name in names}, self.identifiers)

    def hash(self) -> str:
        """SHA-256 of the manifest, which holds those of the partitions."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()


def is_partitioned(name: str | os.PathLike) -> bool:
    """Whether a file name asks for partitions."""
    return os.fspath(name).rstrip("/").endswith(ENDING)


def save_part(folder: str | os.PathLike, name: str, columns: Columns, note: object = None) -> Part:
    """Write a partition, whole or not at all; in any process. Writing the same again is harmless.

    Parameters
    ----------
    folder : path
        Must exist.
    name : str
        Of the partition.
    columns : dict of str to ndarray, shape (rows,) or (rows, 3)
        float64 is rounded to float32, integers become int32.
    note : object
        Small results of the work that made it, for :func:`finished_part`: whatever can be told in JSON.

    Raises
    ------
    Sorry
        If it cannot be written.
    """
    content = _as_hdf5({column: on_disk(column, values) for column, values in columns.items()}, json.dumps(note))
    path = _path(folder, name)
    part = path.with_name(f".{name}.{uuid.uuid4().hex}.part")
    try:
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Sorry(
            f"Cannot write {path}: {error.strerror or error}. Make room or choose another place; the output "
            "was not written."
        ) from error
    return Part(name, len(next(iter(columns.values()))), len(content), hashlib.sha256(content).hexdigest())


def finished_part(folder: str | os.PathLike, name: str) -> tuple[Part, object] | None:
    """A partition that an earlier run left, and its note, if it is there and every byte of it can be read."""
    import h5py

    try:
        content = _path(folder, name).read_bytes()
        with h5py.File(io.BytesIO(content), "r") as file:
            columns = {column: values[()] for column, values in file.items()}
            note = json.loads(file.attrs["note"])
    except Exception:  # not there, or whatever HDF5 says to a damaged file
        return None
    part = Part(name, len(next(iter(columns.values()))), len(content), hashlib.sha256(content).hexdigest())
    return part, note


def write_manifest(
    folder: str | os.PathLike, parts: Iterable[Part], identifiers: dict[int, str], attributes: dict
) -> None:
    """Make a folder of partitions a table; the last thing to be done.

    Parameters
    ----------
    folder : path
    parts : iterable of Part
        In their order; empty ones are left out. Other partitions in the folder are deleted.
    identifiers : dict of int to str
        Experiment identifiers by ``id``.
    attributes : dict
        Whatever can be told in JSON; see :class:`PartitionedTable`.

    Raises
    ------
    Sorry
        If it cannot be written.
    """
    folder = Path(folder)
    parts = list(parts)
    columns = _names(_path(folder, parts[0].name)) if parts else []
    parts = [part for part in parts if part.rows]
    for path in set(folder.glob("*.h5")) - {_path(folder, part.name) for part in parts}:
        path.unlink()
    content = {
        "format": FORMAT,
        "rows": sum(part.rows for part in parts),
        "columns": columns,
        "attributes": attributes,
        "identifiers": identifiers,
        "parts": [asdict(part) for part in parts],
    }
    part = folder / f".{MANIFEST}.part"
    try:
        with open(part, "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / MANIFEST)
    except OSError as error:
        raise Sorry(f"Cannot write {folder / MANIFEST}: {error.strerror or error}. Make room.") from error


def read_part(path: str | os.PathLike, names: Iterable[str] | None = None) -> Columns:
    """Columns of the file of a partition; parameters and what is raised: as of :meth:`PartitionedTable.read`."""
    import h5py

    try:
        # a Python file: HDF5 itself would lock it, which not all file systems can
        with open(path, "rb") as file, h5py.File(file, "r") as content:
            return {name: content[name][()] for name in (content.keys() if names is None else names)}
    except Exception as error:  # OSError, RuntimeError, KeyError: whatever HDF5 says to a damaged file
        raise Sorry(
            f"{path} is damaged or cannot be read: copy {Path(path).parent} again from where it is whole, or make it "
            "again."
        ) from error


def on_disk(name: str, values: np.ndarray) -> np.ndarray:
    """A column as partitions hold it: float32, int32 or bool; what scaling refines in double precision."""
    if values.dtype.kind == "f":
        return values.astype(float if name in DOUBLE else np.float32, copy=False)
    if values.dtype.kind in "iu":
        return values.astype(np.int32, copy=False)
    return values


def _as_hdf5(columns: Columns, note: str) -> bytes:
    """Made in memory, for HDF5 ends the interpreter if the disk is full. The same bytes for the same columns."""
    import h5py

    memory = io.BytesIO()
    creation, access = (h5py.h5p.create(kind) for kind in (h5py.h5p.FILE_CREATE, h5py.h5p.FILE_ACCESS))
    creation.set_obj_track_times(False)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, memory)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_LATEST)  # metadata with checksums, too
    with h5py.File(h5py.h5f.create(b"memory", h5py.h5f.ACC_TRUNC, creation, access)) as file:
        file.attrs["note"] = note
        for name, values in columns.items():
            chunks = (min(len(values), CHUNK), *[1] * (values.ndim - 1)) if len(values) else None
            filters = {"shuffle": True, "compression": "lzf", "fletcher32": True} if chunks else {}
            file.create_dataset(name, data=values, chunks=chunks, **filters)
            file.flush()  # or its place would depend on when Python lets go of the column
    return memory.getvalue()


def _names(path: Path) -> list[str]:
    import h5py

    with open(path, "rb") as file, h5py.File(file, "r") as content:
        return sorted(content)


def _path(folder: str | os.PathLike, name: str) -> Path:
    return Path(folder) / f"{name}.h5"


def _read_manifest(folder: Path) -> dict:
    if not folder.is_dir():
        raise Sorry(f"{folder} is not a folder of partitions: check its name.")
    try:
        content = json.loads((folder / MANIFEST).read_text())
        if content["format"] != FORMAT:
            raise Sorry(f"{folder} was written by a newer version of dials_diffuse: install that one.")
    except FileNotFoundError:
        raise Sorry(
            f"{folder} is unfinished or not a table of observations (it has no {MANIFEST}): run the program that "
            "writes it again."
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Sorry(f"{folder / MANIFEST} is damaged: copy it again, or make {folder} again.") from error
    return content
