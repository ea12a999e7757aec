"""Which voxels of the asymmetric unit were measured: by shells and by directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cctbx import miller

from dials_diffuse.algorithms.merging.halo import in_halo
from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy

#: Half the opening angle of the cones around the axes, degrees.
CONE = 20.0

#: Directions are counted in cells of equal solid angle, of about 10 degrees: parts of rings of equal height along c*.
#: No border of theirs lies in a symmetry element or its plane, where rounding would decide for whole planes of voxels.
RINGS, PARTS, TURN = 17, 36, np.radians(3.7)

_CHUNK = 1_000_000


@dataclass
class Direction:
    """Completeness within a part of all directions.

    Attributes
    ----------
    name : str
        ``a*, b*`` for cones around axes (those that are equivalent are one); empty for cells.
    hkl : list of 3 float
        The middle of it, as Miller indices of which the largest is 1 or -1.
    voxels, possible : int
        Measured, and all, of the asymmetric unit.
    """

    name: str
    hkl: list[float]
    voxels: int
    possible: int

    @property
    def completeness(self) -> float:
        return self.voxels / self.possible if self.possible else float("nan")

    def to_dict(self) -> dict:
        """JSON-ready."""
        completeness = self.completeness if self.possible else None
        return {**vars(self), "completeness": completeness}


@dataclass
class Completeness:
    """How many voxels there are, and where they were measured.

    Attributes
    ----------
    halo, between : ndarray, shape (shells,), int64
        Possible voxels next to Bragg points and elsewhere.
    axes : list of Direction
        Cones around a*, b*, c* and all that is equivalent to them.
    cells : list of Direction
        All cells of equal solid angle that the asymmetric unit fills for the most part.
    """

    halo: np.ndarray
    between: np.ndarray
    axes: list[Direction]
    cells: list[Direction]

    @property
    def worst(self) -> Direction | None:
        """The least complete cell; None if there are too few voxels for cells."""
        return min(self.cells, key=lambda cell: cell.completeness, default=None)

    def to_dict(self) -> dict:
        """JSON-ready: the directions."""
        return {"axes": [axis.to_dict() for axis in self.axes], "cells": [cell.to_dict() for cell in self.cells]}

    def __str__(self) -> str:
        axes = ", ".join(f"{axis.completeness:.3f} around {axis.name}" for axis in self.axes if axis.possible)
        text = f"Completeness in cones of {CONE:.0f} degrees: {axes}."
        if self.worst is not None:
            h, k, l = self.worst.hkl
            text += f" Lowest in any direction: {self.worst.completeness:.3f}, at h, k, l = {h:.2f}, {k:.2f}, {l:.2f}."
        return text


def completeness(grid: GlobalGrid, index: np.ndarray, edges: np.ndarray, halo_radius: float) -> Completeness:
    """Completeness of the voxels of the asymmetric unit.

    Parameters
    ----------
    grid : GlobalGrid
    index : ndarray, shape (m, 3), int
        The voxels that were measured.
    edges : ndarray, shape (shells + 1,)
        Limits of the shells in |q|, 1/Angstrom.
    halo_radius : float
        See :func:`dials_diffuse.algorithms.merging.halo.in_halo`.
    """
    axes = equivalent_axes(grid)
    possible, measured = (
        [sum(counts) for counts in zip(*(_count(grid, part, edges, halo_radius, axes) for part in parts))]
        for parts in (possible_index(grid), (index[i : i + _CHUNK] for i in range(0, len(index), _CHUNK)))
    )
    named = [
        Direction(name, np.eye(3)["abc".index(name[0])].tolist(), int(n), int(of))
        for (name, _), n, of in zip(axes, measured[2], possible[2])
    ]
    full = possible[3].sum() * grid.equivalence_group.order_p() / (RINGS * PARTS)
    cells = [
        Direction("", _middle_of_cell(grid, cell), int(measured[3][cell]), int(possible[3][cell]))
        for cell in np.flatnonzero(possible[3] > full / 2)
    ]
    return Completeness(possible[0], possible[1], named, cells if full >= 20 else [])


def possible_index(grid: GlobalGrid) -> Iterator[np.ndarray]:
    """All voxels of the asymmetric unit within d_min, in chunks of int32, shape (n, 3)."""
    group = grid.equivalence_group.build_derived_point_group()  # centring leaves out Bragg points, not voxels
    indices = miller.index_generator(
        grid.supercell, group.type(), grid.friedel_apart, grid.d_min * (1 - 1e-9)
    ).to_array()
    yield np.zeros((1, 3), dtype=np.int32)  # the origin, which the generator passes over
    for begin in range(0, len(indices), _CHUNK):
        index = miller_index_to_numpy(indices[begin : begin + _CHUNK])
        yield index[grid.q(index) <= 1 / grid.d_min]


def shell_numbers(q: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Numbers of the shells that hold |q|, same shape; those beyond are in the last."""
    return np.clip(np.searchsorted(edges, q, side="left") - 1, 0, len(edges) - 2)


def possible_voxels(grid: GlobalGrid, edges: np.ndarray) -> np.ndarray:
    """Voxels of the asymmetric unit in shells between the given |q|, shape (k + 1,); int64, shape (k,)."""
    n = len(edges) - 1
    return sum(np.bincount(shell_numbers(grid.q(part), edges), minlength=n) for part in possible_index(grid))


def equivalent_axes(grid: GlobalGrid) -> list[tuple[str, np.ndarray]]:
    """The axes that are not equivalent: names and all axes' Miller indices, shape (k, 3)."""
    group = grid.equivalence_group.build_derived_point_group()
    rotations = [np.array(operation.r().as_double()).reshape(3, 3) for operation in group]
    axes: list[tuple[str, np.ndarray]] = []
    for name, axis in zip(("a*", "b*", "c*"), np.eye(3)):
        for i, (names, lines) in enumerate(axes):
            if (np.abs(lines - axis) < 1e-9).all(axis=1).any():
                axes[i] = (f"{names}, {name}", lines)
                break
        else:
            axes.append((name, np.unique([axis @ rotation for rotation in rotations], axis=0)[::-1]))
    return axes


def _count(
    grid: GlobalGrid, index: np.ndarray, edges: np.ndarray, halo_radius: float, axes: list[tuple[str, np.ndarray]]
) -> list[np.ndarray]:
    """Voxels in the halo and not, by shell; within cones around axes; in cells of directions."""
    shell = shell_numbers(grid.q(index), edges)
    halo = in_halo(grid, index, halo_radius)
    direction = _unit(grid, index)
    cosine = np.cos(np.radians(CONE))
    cones = [int(np.sum((direction @ _unit(grid, lines).T).max(axis=1) >= cosine)) for _, lines in axes]
    seen = np.isfinite(direction[:, 0])  # the origin has no direction
    return [
        np.bincount(shell[halo], minlength=len(edges) - 1),
        np.bincount(shell[~halo], minlength=len(edges) - 1),
        np.array(cones),
        np.bincount(_cell(direction[seen]), minlength=RINGS * PARTS),
    ]


def _unit(grid: GlobalGrid, index: np.ndarray) -> np.ndarray:
    """Directions of voxels, shape (n, 3), unit vectors in the crystal's Cartesian frame (c* along z)."""
    orthogonal = np.array(grid.supercell.fractionalization_matrix()).reshape(3, 3)
    vectors = index @ orthogonal
    with np.errstate(invalid="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _cell(direction: np.ndarray) -> np.ndarray:
    """Numbers of the cells that hold directions."""
    ring = np.clip(((direction[:, 2] + 1) / 2 * RINGS).astype(np.int64), 0, RINGS - 1)
    angle = (np.arctan2(direction[:, 1], direction[:, 0]) - TURN) % (2 * np.pi)
    return ring * PARTS + np.clip((angle / (2 * np.pi) * PARTS).astype(np.int64), 0, PARTS - 1)


def _middle_of_cell(grid: GlobalGrid, cell: int) -> list[float]:
    """Its direction as Miller indices, the largest 1 or -1."""
    ring, part = divmod(int(cell), PARTS)
    z, angle = (ring + 0.5) / RINGS * 2 - 1, (part + 0.5) / PARTS * 2 * np.pi + TURN
    vector = np.array([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z])
    hkl = vector @ np.array(grid.unit_cell.orthogonalization_matrix()).reshape(3, 3)
    return (hkl / np.abs(hkl).max()).tolist()
