"""The map file: three-dimensional intensities as NeXus, which NeXpy, nxs-analysis-tools, h5web and silx open as it is.

Conventions: the NeXus manual (FAIRmat/NIAC) on NXdata (``signal``, ``axes``,
``<axis>_indices``, ``<field>_errors``), NXroot, NXentry, NXsample, NXbeam, NXprocess.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dials_diffuse.grid import GlobalGrid
from dials_diffuse.nexus import new_group, write_quantity
from dials_diffuse.output import quiet_file
from dials_diffuse.provenance import ProcessRecord

#: The fields of the map: name, type, value of a voxel that was not measured, group.
FIELDS = (
    ("intensity", "f4", np.nan, "data"),
    ("intensity_errors", "f4", np.nan, "data"),
    ("observations", "i4", 0, "data"),
    ("pixels", "i8", 0, "data"),
    ("filled", "i1", 0, "data"),
    ("half_1", "f4", np.nan, "halves"),
    ("half_1_errors", "f4", np.nan, "halves"),
    ("half_2", "f4", np.nan, "halves"),
    ("half_2_errors", "f4", np.nan, "halves"),
)
INTENSITY_UNITS = "photons/(s*sr)"
#: Of absolute maps: electrons squared per unit cell.
ABSOLUTE_UNITS = "electrons^2"

#: Voxels of one array that are held in memory while the file is written.
SLAB = 32_000_000
CHUNK = 32


@dataclass
class DiffuseMap:
    """A map in memory: arrays over (h, k, l), shape (nh, nk, nl).

    Attributes
    ----------
    grid : GlobalGrid
    h, k, l : ndarray, float64
        Voxel centres in fractional Miller indices.
    fields : dict of str to ndarray
        ``intensity``, ``intensity_errors``, ``observations``, ``pixels``, ``half_1``, ``half_1_errors``, ``half_2``,
        ``half_2_errors``; NaN or 0 where nothing was measured. ``filled``: 1 where a value was not
        measured but put there.
    wavelengths : ndarray
        Angstrom.
    history : list of ProcessRecord
    units : str
        Of intensities and errors: :data:`INTENSITY_UNITS` or :data:`ABSOLUTE_UNITS`.
    """

    grid: GlobalGrid
    h: np.ndarray
    k: np.ndarray
    l: np.ndarray
    fields: dict[str, np.ndarray]
    wavelengths: np.ndarray
    history: list[ProcessRecord]
    units: str = INTENSITY_UNITS

    @classmethod
    def from_voxels(
        cls,
        grid: GlobalGrid,
        index: np.ndarray,
        columns: dict[str, np.ndarray],
        *,
        wavelengths: np.ndarray,
        history: Sequence[ProcessRecord] = (),
        expand: bool = True,
        units: str = INTENSITY_UNITS,
    ) -> DiffuseMap:
        """The map that :func:`write_map` would write, with the fields that there are columns of."""
        _check_names(columns)
        rotations, lowest, shape = _box(grid, index, expand)
        fields = {name: np.full(shape, empty, dtype) for name, dtype, empty, _ in FIELDS if name in columns}
        _put(fields, index, columns, rotations, lowest)
        return cls(grid, *grid.axes(lowest, shape), fields, np.atleast_1d(wavelengths), list(history), units)

    def with_voxels(
        self, index: np.ndarray, columns: dict[str, np.ndarray], grid: GlobalGrid | None = None, *, expand: bool = True
    ) -> DiffuseMap:
        """A map of other voxels, as :meth:`from_voxels` makes it, of another grid if there is one."""
        origin = {"wavelengths": self.wavelengths, "history": self.history, "units": self.units}
        return DiffuseMap.from_voxels(grid or self.grid, index, columns, expand=expand, **origin)

    @property
    def intensity(self) -> np.ndarray:
        return self.fields["intensity"]

    @property
    def intensity_errors(self) -> np.ndarray:
        return self.fields["intensity_errors"]

    def at(self, index: np.ndarray, field: str = "intensity") -> np.ndarray:
        """Values of voxels, shape (n, 3) to (n,).

        Raises
        ------
        IndexError
            If a voxel lies outside the map.
        """
        position = np.asarray(index) - self.lowest
        if (position < 0).any():
            raise IndexError("A voxel lies outside the map.")
        return self.fields[field][tuple(position.T)]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.h), len(self.k), len(self.l)

    @property
    def lowest(self) -> np.ndarray:
        """The voxel of the first element of the arrays, shape (3,), int."""
        return np.array([round(axis[0] * n) for axis, n in zip((self.h, self.k, self.l), self.grid.ndiv)])

    def q(self, planes: slice = slice(None)) -> np.ndarray:
        """|q| = 1/d in 1/A of the voxels in some planes along h, shape (planes, nk, nl), float32."""
        orthogonal = np.array(self.grid.unit_cell.fractionalization_matrix()).reshape(3, 3).astype(np.float32)
        h, k, l = (axis.astype(np.float32) for axis in (self.h[planes], self.k, self.l))
        squared = np.zeros((len(h), len(k), len(l)), dtype=np.float32)
        for a, b, c in orthogonal.T:
            squared += ((h * a)[:, None, None] + (k * b)[:, None] + l * c) ** 2
        return np.sqrt(squared, out=squared)

    def write(self, filename: str | os.PathLike) -> None:
        """Write the map as it is; fields that it does not have stay empty.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        planes = _planes(self.shape)

        def slabs(name: str, empty: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
            for begin in range(0, self.shape[0], planes):
                yield begin, self.fields[name][begin : begin + planes]

        _write(
            filename, self.grid, self.lowest, self.shape, self.fields, slabs, self.wavelengths, self.history, self.units
        )


def write_map(
    filename: str | os.PathLike,
    grid: GlobalGrid,
    index: np.ndarray,
    columns: dict[str, np.ndarray],
    *,
    wavelengths: np.ndarray,
    history: Sequence[ProcessRecord] = (),
    expand: bool = True,
    units: str = INTENSITY_UNITS,
) -> None:
    """Write a map of voxels.

    Parameters
    ----------
    filename : path
    grid : GlobalGrid
    index : ndarray, shape (m, 3), int
        The voxels that were measured.
    columns : dict of str to ndarray, shape (m,)
        Their values, for some or all of :data:`FIELDS`; the others stay empty.
    wavelengths : ndarray
        The experiments' wavelengths, Angstrom.
    history : sequence of ProcessRecord
        What ran, oldest first.
    expand : bool
        Give the values to all voxels that are equivalent in the grid. The map is the box that holds them all.
    units : str
        Of intensities and errors.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If a column has another name.
    """
    rotations, lowest, shape = _box(grid, index, expand)

    def slabs(name: str, empty: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        return _slabs(index, columns[name], rotations, lowest, shape, empty)

    _write(filename, grid, lowest, shape, columns, slabs, wavelengths, history, units)


def _write(
    filename: str | os.PathLike,
    grid: GlobalGrid,
    lowest: np.ndarray,
    shape: tuple[int, int, int],
    names: Collection[str],
    slabs: Callable[[str, np.ndarray], Iterator[tuple[int, np.ndarray]]],
    wavelengths: np.ndarray,
    history: Sequence[ProcessRecord],
    units: str,
) -> None:
    """The file of a box of voxels; the fields ``names`` come in slabs along h: number of the first plane, planes."""
    import h5py

    _check_names(names)
    with quiet_file(filename) as file, h5py.File(file, "w") as handle:
        handle.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": "dials_diffuse"})
        entry = new_group(handle, "entry", "NXentry", default="data", dials_diffuse_grid=grid.as_json())
        entry["title"] = "Diffuse scattering"
        data = new_group(entry, "data", "NXdata", signal="intensity")
        halves = new_group(entry, "halves", "NXdata", signal="half_1", auxiliary_signals=["half_2"])
        _write_axes(data, halves, grid, lowest, shape)
        for name, dtype, empty, group in FIELDS:
            chunks = tuple(min(CHUNK, n) for n in shape)
            field = entry[group].create_dataset(
                name, shape, dtype, chunks=chunks, fillvalue=empty, compression="gzip", compression_opts=1, shuffle=True
            )
            if dtype == "f4":
                field.attrs["units"] = units
            if name not in names:
                continue
            for begin, slab in slabs(name, np.full(1, empty, dtype)):
                field[begin : begin + len(slab)] = slab
                file.check()
        _write_sample(entry, grid)
        instrument = new_group(entry, "instrument", "NXinstrument")
        beam = new_group(instrument, "beam", "NXbeam")
        wavelength = wavelengths[0] if len(wavelengths) == 1 else wavelengths
        write_quantity(beam, "incident_wavelength", wavelength, "angstrom")
        for number, record in enumerate(history, start=1):
            _write_process(entry, number, record)


def read_map(filename: str | os.PathLike, names: Collection[str] | None = None) -> DiffuseMap:
    """Read a map that :func:`write_map` wrote.

    Parameters
    ----------
    filename : path
    names : collection of str, optional
        Read these fields alone, of :data:`FIELDS`; all if None, which takes 37 bytes a voxel.

    Raises
    ------
    Sorry
        If the file is no such map.
    """
    import h5py
    from dials.util import Sorry

    try:
        handle = h5py.File(filename, "r")
    except OSError as error:
        raise Sorry(
            f"{filename} cannot be read as a map ({error}): give a file that dials.diffuse_merge wrote."
        ) from error
    with handle:
        if "entry" not in handle or "dials_diffuse_grid" not in handle["entry"].attrs:
            raise Sorry(f"{filename} holds no map of dials_diffuse: give a file that dials.diffuse_merge wrote.")
        entry = handle["entry"]
        return DiffuseMap(
            GlobalGrid.from_json(entry.attrs["dials_diffuse_grid"]),
            *(entry["data"][axis][()] for axis in "hkl"),
            {field[0]: _read_field(entry, *field) for field in FIELDS if names is None or field[0] in names},
            np.atleast_1d(entry["instrument/beam/incident_wavelength"][()]),
            [_read_process(entry[name]) for name in sorted(entry) if name.startswith("process_")],
            str(entry["data/intensity"].attrs["units"]),
        )


def _read_field(entry: Any, name: str, dtype: str, empty: float, group: str) -> np.ndarray:
    if name in entry[group]:
        return entry[group][name][()]
    return np.full(entry["data/intensity"].shape, empty, dtype)  # the file of an older version


def _check_names(names: Collection[str]) -> None:
    if unknown := set(names) - {name for name, *_ in FIELDS}:
        raise ValueError(f"A map has no column {unknown.pop()}: {', '.join(name for name, *_ in FIELDS)}.")


def _planes(shape: tuple[int, int, int]) -> int:
    """Planes of a slab: whole chunks."""
    return max(SLAB // (shape[1] * shape[2]) // CHUNK, 1) * CHUNK


def _slabs(
    index: np.ndarray,
    values: np.ndarray,
    rotations: np.ndarray,
    lowest: np.ndarray,
    shape: tuple[int, int, int],
    empty: np.ndarray,
) -> Iterator[tuple[int, np.ndarray]]:
    """The dense array in slabs along h: the first plane's number and the planes, of the type and value of ``empty``."""
    planes = _planes(shape)
    for begin in range(0, shape[0], planes):
        count = min(planes, shape[0] - begin)
        slab = np.full((count, *shape[1:]), empty[0], dtype=empty.dtype)
        _put({"": slab}, index, {"": values}, rotations, lowest + [begin, 0, 0])
        yield begin, slab


def _put(
    fields: dict[str, np.ndarray],
    index: np.ndarray,
    columns: dict[str, np.ndarray],
    rotations: np.ndarray,
    lowest: np.ndarray,
) -> None:
    """Give the values of voxels to these and their equivalents in boxes that need not hold all along h."""
    nh, nk, nl = next(iter(fields.values())).shape
    for rotation in rotations:
        plane = index @ rotation[:, 0] - lowest[0]
        chosen = (plane >= 0) & (plane < nh)
        chosen = slice(None) if chosen.all() else chosen
        k, l = (index[chosen] @ rotation[:, i] - lowest[i] for i in (1, 2))
        place = (plane[chosen] * nk + k) * nl + l
        for name, field in fields.items():
            field.reshape(-1)[place] = columns[name][chosen]


def _box(grid: GlobalGrid, index: np.ndarray, expand: bool) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """The rotations that give all equivalent voxels, the first voxel of the box that holds these, and its shape."""
    rotations = grid.rotations if expand else np.eye(3, dtype=np.int64)[None]
    mates = (index @ rotation for rotation in rotations)
    lows, highs = zip(*((mate.min(axis=0), mate.max(axis=0)) for mate in mates))
    lowest, highest = np.min(lows, axis=0), np.max(highs, axis=0)
    return rotations, lowest, tuple(int(n) for n in highest - lowest + 1)


def _write_axes(data: Any, halves: Any, grid: GlobalGrid, lowest: np.ndarray, shape: tuple[int, int, int]) -> None:
    """The axes in one group, linked into the other, with the attributes by which NXdata finds them."""
    for number, (name, values) in enumerate(zip("hkl", grid.axes(lowest, shape))):
        write_quantity(data, name, values, "r.l.u.")
        data[name].attrs["long_name"] = name
        halves[name] = data[name]
        for group in (data, halves):
            group.attrs[f"{name}_indices"] = number
    for group in (data, halves):
        group.attrs["axes"] = list("hkl")


def _write_sample(entry: Any, grid: GlobalGrid) -> None:
    sample = new_group(entry, "sample", "NXsample")
    write_quantity(sample, "unit_cell", grid.unit_cell.parameters(), "angstrom, degree")
    write_quantity(sample, "unit_cell_volume", grid.unit_cell.volume(), "angstrom^3")
    sample["space_group"] = str(grid.space_group.info())  # with the change of basis where the setting is not tabulated
    sample["laue_group"] = grid.laue_symbol


def _write_process(entry: Any, number: int, record: ProcessRecord) -> None:
    """One program's run; input files and their hashes are two lists of equal length."""
    import h5py

    process = new_group(entry, f"process_{number:02d}", "NXprocess")
    for name in ("program", "version", "date", "folder"):
        process[name] = getattr(record, name)
    process["sequence_index"] = number
    process["phil"] = record.parameters
    lists = {"input_files": record.inputs, "input_sha256": record.inputs.values(), "experiments": record.experiments}
    for name, strings in lists.items():
        process.create_dataset(name, data=list(strings), dtype=h5py.string_dtype())


def _read_process(process: Any) -> ProcessRecord:
    program, version, date, phil = (process[name].asstr()[()] for name in ("program", "version", "date", "phil"))
    inputs = dict(zip(process["input_files"].asstr()[()], process["input_sha256"].asstr()[()]))
    if "folder" not in process:  # older versions
        return ProcessRecord(program, version, date, phil, inputs)
    folder, experiments = (process[name].asstr()[()] for name in ("folder", "experiments"))
    return ProcessRecord(program, version, date, phil, inputs, folder, list(experiments))
