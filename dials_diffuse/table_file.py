"""Reflection tables: as columns, and in .refl files, which are written by columns if they are larger than memory."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import msgpack
import numpy as np
from dials.array_family import flex
from dials.util.ext import streambuf
from dxtbx import flumpy

from dials_diffuse.grid import miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.output import quiet_file

if TYPE_CHECKING:
    from dials_diffuse.partitioned_table import PartitionedTable

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


#: Bytes of a column in a .refl file: a limit of MessagePack.
MOST_BYTES = 2**32

#: Columns of integers that DIALS holds as size_t.
UNSIGNED = ("panel", "flags")


def write_refl(table: PartitionedTable, filename: str | os.PathLike) -> None:
    """Write all partitions as one reflection table; memory does not grow with its length.

    The file is what ``flex.reflection_table.as_file`` would write.

    Parameters
    ----------
    table : PartitionedTable
        Of no more rows than :func:`fits_refl` allows.
    filename : path
    """
    packer = msgpack.Packer()
    with open(filename, "wb") as handle:
        handle.write(packer.pack_array_header(3))
        handle.write(packer.pack("dials::af::reflection_table"))
        handle.write(packer.pack(1))
        handle.write(packer.pack_map_header(3))
        handle.write(packer.pack("identifiers") + packer.pack(table.identifiers))
        handle.write(packer.pack("nrows") + packer.pack(table.rows))
        handle.write(packer.pack("data") + packer.pack_map_header(len(table.columns)))
        for name in table.columns:
            for number, values in enumerate(table.column(name)):
                dtype = refl_dtype(name, values.dtype)
                if number == 0:
                    width = int(np.prod(values.shape[1:]))
                    type_name = TYPE_NAMES[dtype.kind, dtype.itemsize, width]
                    handle.write(packer.pack(name) + packer.pack_array_header(2) + packer.pack(type_name))
                    handle.write(packer.pack_array_header(2) + packer.pack(table.rows))
                    handle.write(_binary_header(table.rows * width * dtype.itemsize))
                handle.write(memoryview(np.ascontiguousarray(values, dtype=dtype)).cast("B"))


def fits_refl(rows: int) -> bool:
    """Whether a .refl file can hold so many observations, whose positions take 24 bytes each."""
    return 24 * rows < MOST_BYTES


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
