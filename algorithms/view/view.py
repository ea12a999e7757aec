"""What the page shows first, and the picture shows."""

from __future__ import annotations

from dataclasses import dataclass

import libtbx
import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.view.colours import ColourScale
from dials_diffuse.algorithms.view.packed_map import PackedMap
from dials_diffuse.algorithms.view.plane import Plane
from dials_diffuse.grid import lattice_group
from dials_diffuse.map_file import ABSOLUTE_UNITS, INTENSITY_UNITS

UNITS = {INTENSITY_UNITS: "photons / (s sr)", ABSOLUTE_UNITS: "e² per unit cell"}
QUANTITIES = {
    "intensity": "Intensity",
    "half_1": "Intensity, half 1",
    "half_2": "Intensity, half 2",
    "observations": "Observations",
    "pixels": "Pixel measurements",
}
#: Resolutions that rings are drawn at, Angstrom.
NICE_RINGS = (30, 20, 15, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1, 0.9, 0.8, 0.7, 0.6)


@dataclass
class View:
    """A plane of a map with its colours and what is drawn over it.

    Attributes
    ----------
    packed : PackedMap
    title : str
        Of the map.
    quantity, units : str
        What is shown; units may be empty.
    plane : Plane
    scale : ColourScale
    rings : list of float
        Angstrom.
    lattice : bool
        Whether Bragg points are marked.
    """

    packed: PackedMap
    title: str
    quantity: str
    units: str
    plane: Plane
    scale: ColourScale
    rings: list[float]
    lattice: bool

    @classmethod
    def from_params(cls, packed: PackedMap, units: str, params: libtbx.phil.scope_extract, title: str) -> View:
        """The view that :data:`dials_diffuse.phil_scope.view.phil_scope` asks for.

        Raises
        ------
        Sorry
            If the plane or the colours make no sense.
        """
        colour = params.colour
        rings = params.rings
        if rings is libtbx.Auto:
            rings = nice_rings(packed.reach)
        elif rings and min(rings) <= 0:
            raise Sorry(f"rings={','.join(map(str, rings))}: resolutions are above 0 A.")
        return cls(
            packed,
            title,
            QUANTITIES[params.field],
            "" if params.field in ("observations", "pixels") else UNITS.get(units, units),
            Plane.from_params(params.plane, packed.orthogonal),
            ColourScale.make(colour.scale, colour.map, colour.limits, packed.values, packed.codes),
            list(rings or []),
            params.lattice,
        )

    def bragg_points(self) -> np.ndarray:
        """h k l, shape (n, 3), of the Bragg points in the plane and within the map's reach."""
        grid, zone = self.packed.grid, np.array(self.plane.zone)
        largest = [int(edge * self.packed.reach) for edge in grid.unit_cell.parameters()[:3]]
        axis = np.flatnonzero(zone)[-1]
        others = [i for i in range(3) if i != axis]
        hkl = np.zeros((*(2 * largest[i] + 1 for i in others), 3))
        for number, i in enumerate(others):
            shape = [-1 if n == number else 1 for n in range(2)]
            hkl[..., i] = np.arange(-largest[i], largest[i] + 1).reshape(shape)
        hkl[..., axis] = (self.plane.level - hkl @ zone) / zone[axis]
        hkl = hkl.reshape(-1, 3)
        near = np.rint(hkl)
        chosen = (np.abs(hkl - near) < 1e-4).all(axis=1)
        chosen &= np.linalg.norm(near @ self.packed.orthogonal, axis=1) <= self.packed.reach
        for translation in self.centring():
            phase = near @ translation
            chosen &= np.abs(phase - np.rint(phase)) < 1e-4
        return near[chosen].astype(int)

    def centring(self) -> list[list[float]]:
        """Centring translations t: Bragg points have integer h . t."""
        return [list(operation.t().as_double()) for operation in lattice_group(self.packed.grid.space_group)]


def nice_rings(reach: float) -> list[float]:
    """About five resolutions in Angstrom, evenly spaced in |q| up to ``reach`` in 1/Angstrom, the lowest first."""
    inside = [d for d in NICE_RINGS if 1 / d < reach]
    wanted = reach * np.arange(1, 6) / 5
    return sorted({float(min(inside, key=lambda d: abs(1 / d - q))) for q in wanted}, reverse=True) if inside else []
