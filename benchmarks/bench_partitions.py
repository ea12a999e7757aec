"""How to keep observations that are larger than memory: `benchmarks/bench_partitions.py [corrected.refl]`.

One partition of 500,000 observations in every form that came into question: bytes an observation, and megabytes (of
columns in memory) a second of one core to write it, to read it and to read four of its columns (files in the system's
cache: a disk comes on top). Best of five. The file is any table of observations that dials.diffuse_correct wrote.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dials_diffuse.partitioned_table import read_part, save_part
from dials_diffuse.table_file import columns_of, flex

ROWS = 500_000
SOME = ("miller_index", "counts", "response", "background.sum.value")

Columns = dict[str, np.ndarray]


def write_npy(path: Path, columns: Columns) -> None:
    path.mkdir(exist_ok=True)
    for name, values in columns.items():
        np.save(path / f"{name}.npy", values)


def read_npy(path: Path, names: tuple[str, ...]) -> Columns:
    return {name: np.load(path / f"{name}.npy") for name in names}


def hdf5_writer(**options) -> Callable[[Path, Columns], None]:
    def write(path: Path, columns: Columns) -> None:
        import h5py

        with h5py.File(path, "w", libver="latest") as file:
            for name, values in columns.items():
                file.create_dataset(name, data=values, **options)

    return write


def read_hdf5(path: Path, names: tuple[str, ...]) -> Columns:
    import h5py

    with h5py.File(path, "r") as file:
        return {name: file[name][()] for name in names}


def write_refl(path: Path, table: flex.reflection_table) -> None:
    table.as_msgpack_file(str(path))


def read_refl(path: Path, names: tuple[str, ...]) -> Columns:
    table = flex.reflection_table.from_msgpack_file(str(path))
    return {name: table[name] for name in names}


def best(function: Callable, *args, times: int = 5) -> float:
    """The shortest of the times it takes, in seconds of the processor."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        function(*args)
        taken.append(time.process_time() - began)
    return min(taken)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def main() -> None:
    source = sys.argv[1] if len(sys.argv) > 1 else "bench/scaling/1M/corrected.refl"
    table = flex.reflection_table.from_file(source)[:ROWS]
    columns = columns_of(table)
    names, megabytes = tuple(columns), sum(values.nbytes for values in columns.values()) / 1e6
    chunked = {"chunks": True, "fletcher32": True}
    forms = {
        ".refl (DIALS)": (write_refl, read_refl, table),
        "HDF5, contiguous": (hdf5_writer(), read_hdf5, columns),
        "HDF5, chunks with checksums": (hdf5_writer(**chunked), read_hdf5, columns),
        "... + shuffle + lzf": (hdf5_writer(**chunked, shuffle=True, compression="lzf"), read_hdf5, columns),
        "... + shuffle + gzip 1": (
            hdf5_writer(**chunked, shuffle=True, compression="gzip", compression_opts=1),
            read_hdf5,
            columns,
        ),
        ".npy a column": (write_npy, read_npy, columns),
        "**a partition**": (lambda path, part: save_part(path.parent, path.stem, part), read_part, columns),
    }
    print(f"{len(table)} observations, {len(names)} columns, {megabytes:.0f} MB in memory\n")
    print("| form | bytes an observation | write MB/s | read MB/s | read four columns, ms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for form, (write, read, content) in forms.items():
        folder = Path(tempfile.mkdtemp(dir="."))
        try:
            path = folder / "partition.h5"
            times = best(write, path, content), best(read, path, names), best(read, path, SOME)
            speeds = [megabytes / seconds for seconds in times[:2]]
            print(
                f"| {form} | {size(path) / len(table):.1f} | {speeds[0]:.0f} | {speeds[1]:.0f} | {1e3 * times[2]:.0f} |"
            )
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
