"""Writing of reflection tables; those larger than memory are gathered as parts on disk, then written by columns."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dials.util.ext import streambuf
from dxtbx import flumpy

from dials_diffuse.grid import miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.output import quiet_file

Columns = dict[str, np.ndarray]

#: Names that DIALS gives to column types in .refl files, by numpy's kind, size and the length of a row
#: (dials/array_family/reflection_table_msgpack_adapter.h).
TYPE_NAMES = {
    ("b", 1, 1): "bool",
    ("i", 4, 1): "int",
    ("u", 8, 1): "std::size_t",
    ("f", 8, 1): "double",
    ("f", 8, 3): "vec3<double>",
    ("i", 4, 3): "cctbx::miller::index<>",
}


#: Columns of integers that DIALS holds as size_t.
UNSIGNED = ("panel", "flags")


class TableParts:
    """A table in parts, each a set of columns in a folder of its own.

    Parameters
    ----------
    folder : path
        Where the parts are kept; must exist.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.parts: list[tuple[str, int]] = []

    def save(self, name: str, columns: Columns) -> tuple[str, int]:
        """Save a part; its name and number of rows, to give to :meth:`add`. May be called in another process.

        Raises
        ------
        Sorry
            If the disk is full.
        """
        path = self.folder / name
        try:
            path.mkdir()
            for column, values in columns.items():
                np.save(path / f"{column}.npy", np.ascontiguousarray(values))
        except OSError as error:
            raise Sorry(
                f"Cannot write temporary files to {self.folder.parent}: {error.strerror or error}. Make room or choose "
                "another place for the output; nothing was written."
            ) from error
        return name, len(next(iter(columns.values())))

    def add(self, name: str, rows: int) -> None:
        """Append a saved part to the table."""
        if rows:
            self.parts.append((name, rows))

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.parts)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order in which DIALS writes them."""
        if not self.parts:
            return []
        return sorted(path.stem for path in (self.folder / self.parts[0][0]).glob("*.npy"))

    def column(self, name: str) -> Iterator[np.ndarray]:
        """The parts of one column, one at a time, mapped from disk."""
        for part, _ in self.parts:
            yield np.load(self.folder / part / f"{name}.npy", mmap_mode="r")

    def write(self, filename: str | os.PathLike, identifiers: dict[int, str]) -> None:
        """Write all parts as one reflection table; memory does not grow with its length.

        The file is what ``flex.reflection_table.as_file`` would write.

        Parameters
        ----------
        filename : path
        identifiers : dict of int to str
            Experiment identifiers by ``id``.

        Raises
        ------
        Sorry
            If a column would be larger than the format's limit of 4 GiB.
        """
        packer = msgpack.Packer()
        with open(filename, "wb") as handle:
            handle.write(packer.pack_array_header(3))
            handle.write(packer.pack("dials::af::reflection_table"))
            handle.write(packer.pack(1))
            handle.write(packer.pack_map_header(3))
            handle.write(packer.pack("identifiers") + packer.pack(identifiers))
            handle.write(packer.pack("nrows") + packer.pack(self.rows))
            handle.write(packer.pack("data") + packer.pack_map_header(len(self.columns)))
            for name in self.columns:
                first = next(self.column(name))
                width = int(np.prod(first.shape[1:]))
                size = self.rows * width * first.dtype.itemsize
                if size >= 2**32:
                    raise Sorry(
                        f"{self.rows} observations are too many for one .refl file (4 GiB a column): extract fewer "
                        "sweeps at a time, with a wider extract.batch_width or a smaller grid.ndiv."
                    )
                type_name = TYPE_NAMES[first.dtype.kind, first.dtype.itemsize, width]
                handle.write(packer.pack(name) + packer.pack_array_header(2) + packer.pack(type_name))
                handle.write(packer.pack_array_header(2) + packer.pack(self.rows))
                handle.write(_binary_header(size))
                for values in self.column(name):
                    handle.write(memoryview(values).cast("B"))

    def table(self, identifiers: dict[int, str]) -> flex.reflection_table:
        """All parts as one table in memory."""
        path = self.folder / "table.refl"
        self.write(path, identifiers)
        table = flex.reflection_table.from_file(os.fspath(path))
        path.unlink()
        return table


def columns_of(table: flex.reflection_table) -> Columns:
    """The columns of a table as arrays, with the precision of partitions: float32, int32 or bool."""
    columns = {}
    for name in table.keys():
        values = table[name]
        array = miller_index_to_numpy(values) if isinstance(values, flex.miller_index) else flumpy.to_numpy(values)
        kind = {"f": np.float32, "i": np.int32, "u": np.int32}.get(array.dtype.kind, array.dtype)
        columns[name] = array.astype(kind)
    return columns


def flex_table(columns: Columns, identifiers: dict[int, str]) -> flex.reflection_table:
    """A table of columns, with the types that docs/data_model.md gives them.

    Parameters
    ----------
    columns : dict of str to ndarray, shape (n,) or (n, 3)
        Integers or floats of any size, or bool.
    identifiers : dict of int to str
        Experiment identifiers by ``id``.
    """
    table = flex.reflection_table()
    for name, values in columns.items():
        values = np.ascontiguousarray(values.astype(refl_dtype(name, values.dtype), copy=False))
        if values.ndim == 1:
            table[name] = flumpy.from_numpy(values)
        elif values.dtype.kind == "i":
            table[name] = miller_index_from_numpy(values)
        else:
            table[name] = flumpy.vec_from_numpy(values)
    for key, identifier in identifiers.items():
        table.experiment_identifiers()[key] = identifier
    return table


def refl_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """What .refl files hold instead of a column in partitions."""
    if dtype.kind == "f":
        return np.dtype(np.float64)
    if dtype.kind in "iu":
        return np.dtype(np.uint64 if name in UNSIGNED else np.int32)
    return dtype


def write_table(table: flex.reflection_table, filename: str | os.PathLike) -> None:
    """Write a table in memory as ``flex.reflection_table.as_file`` does, but survive a full disk.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with quiet_file(filename) as file:
        table.as_msgpack_to_file(streambuf(python_file_obj=file, buffer_size=1 << 20))


def _binary_header(size: int) -> bytes:
    """Head of a run of bytes in MessagePack, as short as its length allows."""
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size)
    if size < 2**16:
        return struct.pack(">BH", 0xC5, size)
    return struct.pack(">BI", 0xC6, size)
