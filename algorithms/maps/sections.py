"""Planes of a map, as tables, arrays and pictures."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
from dials.util import Sorry

from dials_diffuse.map_file import DiffuseMap

LETTERS = "hkl"


@dataclass
class Section:
    """A plane of voxels.

    Attributes
    ----------
    name : str
        As it was asked for, e.g. ``hk0``.
    axes : tuple of 2 str
        The indices that vary along the arrays' two directions.
    x, y : ndarray, shapes (nx,), (ny,)
        Their values.
    hkl : ndarray, shape (nx, ny, 3)
        Fractional Miller indices.
    intensity, errors : ndarray, shape (nx, ny)
        NaN where nothing was measured.
    filled : ndarray, shape (nx, ny), bool
    units : str
    basis : ndarray, shape (2, 2)
        Components in 1/A, along x and y of a picture, of one step of each of the two indices.
    """

    name: str
    axes: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    hkl: np.ndarray
    intensity: np.ndarray
    errors: np.ndarray
    filled: np.ndarray
    units: str
    basis: np.ndarray

    def write(self, filename: str | os.PathLike, format: str) -> None:
        """As ``csv`` (h, k, l, intensity, error, filled of measured voxels), ``npz`` (the arrays) or ``png``."""
        {"csv": self._write_csv, "npz": self._write_npz, "png": self._write_png}[format](filename)

    def _write_csv(self, filename: str | os.PathLike) -> None:
        known = np.isfinite(self.intensity)
        columns = [*self.hkl[known].T, self.intensity[known], self.errors[known], self.filled[known]]
        header = "h,k,l,intensity,intensity_error,filled"
        np.savetxt(
            filename, np.transpose(columns), fmt=["%.6g"] * 5 + ["%d"], delimiter=",", header=header, comments=""
        )

    def _write_npz(self, filename: str | os.PathLike) -> None:
        names = ("axes", "x", "y", "hkl", "intensity", "errors", "filled", "units", "basis")
        np.savez_compressed(filename, **{name: getattr(self, name) for name in names})

    def _write_png(self, filename: str | os.PathLike) -> None:
        """In 1/A, so that angles are right; colours over the inner 98 % of the intensities."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise Sorry("Pictures need matplotlib: install it, or leave png out of sections.format.") from error
        figure = Figure(figsize=(8, 7), layout="constrained")
        FigureCanvasAgg(figure)
        plot = figure.add_subplot()
        corners = np.stack(np.meshgrid(_edges(self.x), _edges(self.y), indexing="ij"), axis=-1) @ self.basis
        known = self.intensity[np.isfinite(self.intensity)]
        low, high = np.percentile(known, [1, 99]) if len(known) else (0, 1)
        drawn = plot.pcolormesh(
            corners[..., 0], corners[..., 1], np.ma.masked_invalid(self.intensity), vmin=low, vmax=high, rasterized=True
        )
        figure.colorbar(drawn, label=self.units)
        plot.set_aspect("equal")
        plot.set_facecolor("0.8")
        plot.set_title(f"{self.name}: {self.axes[0]} to the right, {self.axes[1]} up")
        plot.set_xlabel("1/A")
        plot.set_ylabel("1/A")
        figure.savefig(filename, dpi=150, format="png")


def section(diffuse_map: DiffuseMap, plane: str) -> Section:
    """A plane of a map.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    plane : str
        Three entries, for h, k and l: a letter, its negative, or a number, with or without commas: ``hk0``, ``0kl``,
        ``h,k,0.5``, ``hhl``, ``h,-h,l``. Two letters appear in all.

    Raises
    ------
    Sorry
        If it is no such plane, does not go through voxels' centres, or misses the map.
    """
    letters, own, steps, origin = directions(plane, diffuse_map.grid.ndiv)
    ndiv = diffuse_map.grid.ndiv
    ranges = [np.arange(n) + diffuse_map.lowest[i] for i, n in ((i, diffuse_map.shape[i]) for i in own)]
    x, y = (numbers * steps[which, own[which]] for which, numbers in enumerate(ranges))
    x, y = np.sort(x), np.sort(y)
    index = origin + x[:, None, None] * steps[0] + y[:, None] * steps[1]
    place = index - diffuse_map.lowest
    inside = ((place >= 0) & (place < diffuse_map.shape)).all(axis=-1)
    if not inside.any():
        raise Sorry(f"sections.plane={plane} is outside the map.")
    place = tuple(place[inside].T)
    values = {}
    for name, empty in (("intensity", np.nan), ("intensity_errors", np.nan), ("filled", 0)):
        values[name] = np.full(inside.shape, empty, dtype=np.float32)
        values[name][inside] = diffuse_map.fields[name][place]
    return Section(
        plane,
        (letters[0], letters[1]),
        x / ndiv[own[0]],
        y / ndiv[own[1]],
        index / np.array(ndiv),
        values["intensity"],
        values["intensity_errors"],
        values["filled"] > 0,
        diffuse_map.units,
        _basis(diffuse_map, steps),
    )


def directions(plane: str, ndiv: tuple[int, int, int]) -> tuple[list[str], list[int], np.ndarray, np.ndarray]:
    """How a plane lies in the grid.

    Returns
    -------
    letters : list of 2 str
        Indices that vary.
    own : list of 2 int
        The first axis along which each does.
    steps : ndarray, shape (2, 3), int
        Voxels to the next one along each.
    origin : ndarray, shape (3,), int
        The plane's voxel where both are 0.

    Raises
    ------
    Sorry
        If it is no plane, or does not go through voxels' centres.
    """
    entries = _parse(plane)
    letters = [letter for letter in LETTERS if any(letter in entry for entry in entries)]
    if len(letters) != 2:
        raise Sorry(f"sections.plane={plane} is no plane: two of h, k, l must vary, as in hk0, h,k,0.5 or hhl.")
    own = [next(i for i, entry in enumerate(entries) if letter in entry) for letter in letters]
    steps, origin = np.zeros((2, 3), dtype=int), np.zeros(3, dtype=int)
    for i, entry in enumerate(entries):
        if entry.lstrip("-") in letters:
            which = letters.index(entry[-1])
            if ndiv[i] != ndiv[own[which]]:
                raise Sorry(f"sections.plane={plane} does not go through voxels: grid.ndiv differs between its axes.")
            steps[which, i] = -1 if entry[0] == "-" else 1
        else:
            place = float(entry) * ndiv[i]
            if abs(place - round(place)) > 0.01:
                raise Sorry(
                    f"sections.plane={plane} does not go through voxels: they are 1/{ndiv[i]} apart in {'hkl'[i]}."
                )
            origin[i] = round(place)
    return letters, own, steps, origin


def _parse(plane: str) -> list[str]:
    """The three entries of a plane."""
    text = plane.replace(" ", "")
    entries = text.split(",") if "," in text else re.findall(r"-?[hkl]|-?\d", text)
    number = r"-?\d+(\.\d*)?|-?\.\d+"
    if len(entries) != 3 or ("," not in text and "".join(entries) != text):
        raise Sorry(f"sections.plane={plane} is no plane: give three entries, as in hk0, h,k,0.5 or hhl.")
    for entry in entries:
        if not re.fullmatch(f"-?[hkl]|{number}", entry):
            raise Sorry(f"sections.plane={plane}: {entry} is neither h, k, l nor a number.")
    return entries


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of equally wide cells, one more than the centres."""
    width = centres[1] - centres[0] if len(centres) > 1 else 1.0
    return np.append(centres, centres[-1] + width) - width / 2


def _basis(diffuse_map: DiffuseMap, steps: np.ndarray) -> np.ndarray:
    """The two steps in a Cartesian frame whose x is along the first: rows (|a|, 0), (b_x, b_y)."""
    a, b = steps @ np.array(diffuse_map.grid.unit_cell.fractionalization_matrix()).reshape(3, 3)
    along = a @ b / np.linalg.norm(a)
    return np.array([[np.linalg.norm(a), 0.0], [along, np.sqrt(b @ b - along**2)]])
