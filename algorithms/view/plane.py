"""Planes through reciprocal space, and how they are drawn: true lengths and angles, in 1/Angstrom.

``dials_diffuse/templates/view.html`` does the same in JavaScript.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

import libtbx.phil
import numpy as np
from dials.util import Sorry


@dataclass(frozen=True)
class Plane:
    """All h k l with h u + k v + l w = level.

    Attributes
    ----------
    zone : tuple of 3 int
        The zone axis [u v w], a direction of the direct lattice; the plane is perpendicular to it.
    level : float
        Integer where the plane holds Bragg points (of a primitive lattice).
    vectors : tuple of 2 tuples of 3 int
        Two reciprocal-lattice vectors in the plane: the first is drawn to the right, the second upwards, at the angle
        that it has.
    """

    zone: tuple[int, int, int]
    level: float
    vectors: tuple[tuple[int, int, int], tuple[int, int, int]]

    @classmethod
    def from_params(cls, params: libtbx.phil.scope_extract, orthogonal: np.ndarray) -> Plane:
        """The plane of ``params.zone`` or ``params.vectors``, at ``params.level`` or through ``params.through``.

        Raises
        ------
        Sorry
            If there is no such plane.
        """
        if params.vectors is not None:
            vectors = tuple(params.vectors[:3]), tuple(params.vectors[3:])
            normal = np.cross(*vectors)
            if not normal.any():
                raise Sorry(f"plane.vectors={_joined(params.vectors)} lie along one line: give two that span a plane.")
            zone = tuple(int(n) for n in normal // gcd(*map(int, normal)))
        else:
            zone = tuple(params.zone)
            if not any(zone):
                raise Sorry("plane.zone=0,0,0 has no direction: give a zone axis, e.g. plane.zone=0,0,1.")
            vectors = vectors_in_zone(zone, orthogonal)
        through = params.through
        return cls(zone, float(params.level if through is None else np.dot(zone, through)), vectors)

    @property
    def label_origin(self) -> np.ndarray:
        """The h k l, shape (3,), at which both coordinates in the plane are 0: (0, 0, level) for the zone [0 0 1]."""
        return np.multiply(self.zone, self.level / np.dot(self.zone, self.zone))

    def frame(self, orthogonal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What drawing needs, from the fractionalization matrix F, shape (3, 3): q = h F.

        Returns
        -------
        origin, right, up : ndarray, shape (3,)
            h k l of the point drawn at (0, 0), which is the plane's nearest to the origin of reciprocal space, and of
            1/Angstrom to the right and upwards.
        """
        direct = np.linalg.inv(orthogonal)
        normal = direct @ self.zone  # q . normal = h . zone
        origin = self.level * normal / (normal @ normal)
        first, second = np.array(self.vectors) @ orthogonal
        right = first / np.linalg.norm(first)
        up = second - (second @ right) * right
        return tuple(vector @ direct for vector in (origin, right, up / np.linalg.norm(up)))

    def draw(self, hkl: np.ndarray, orthogonal: np.ndarray) -> np.ndarray:
        """Places in the drawing, shape (n, 2), in 1/Angstrom, of points h k l, shape (n, 3)."""
        origin, right, up = (vector @ orthogonal for vector in self.frame(orthogonal))
        return (np.asarray(hkl) @ orthogonal - origin) @ np.stack([right, up], axis=1)

    def labels(self) -> tuple[str, str, str]:
        """Of the axes to the right and upwards, and of the plane."""
        if all(map(_is_axis, (*self.vectors, map(abs, self.zone)))):
            number = next(i for i in range(3) if self.zone[i])
            indices = list("hkl")
            indices[number] = f"{self.level * self.zone[number] + 0:.4g}"
            right, up = ("hkl"[vector.index(1)] for vector in self.vectors)
            return right, up, ", ".join(indices)
        right, up = (f"({' '.join(map(str, vector))})" for vector in self.vectors)
        terms = [f"{'+-'[n < 0]} {abs(n) if abs(n) > 1 else ''}{name}" for n, name in zip(self.zone, "hkl") if n]
        origin = " ".join(f"{n:.4g}" for n in self.label_origin + 0.0)
        equation = f"{' '.join(terms).removeprefix('+ ')} = {self.level:.4g}"
        return f"x {right}", f"y {up}", f"{equation}: ({origin}) + x {right} + y {up}"


def vectors_in_zone(
    zone: tuple[int, int, int], orthogonal: np.ndarray
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The two shortest reciprocal-lattice vectors perpendicular to a zone axis; axes of the lattice where they are."""
    axes = [tuple(row) for row in np.eye(3, dtype=int).tolist()]
    across = [axis for axis in axes if not np.dot(axis, zone)]
    if len(across) == 2:
        return across[0], across[1]
    reach = range(-max(map(abs, zone)), max(map(abs, zone)) + 1)
    vectors = [vector for vector in itertools.product(reach, repeat=3) if not np.dot(vector, zone) and any(vector)]
    vectors = [vector for vector in vectors if next(n for n in vector if n) > 0]
    lengths = {vector: round(float(np.linalg.norm(vector @ orthogonal)), 6) for vector in vectors}
    vectors.sort(key=lambda vector: (lengths[vector], sum(map(abs, vector)), [-n for n in vector]))
    first = vectors[0]
    return first, next(vector for vector in vectors if np.cross(first, vector).any())


def _is_axis(vector: Iterable[int]) -> bool:
    return sorted(vector) == [0, 0, 1]


def _joined(numbers: list) -> str:
    return ",".join(map(str, numbers))
