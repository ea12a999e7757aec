"""A part of what is in the unit cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dials_diffuse.algorithms.absolute.formula import atomic_number, charge, mass


@dataclass(frozen=True)
class Part:
    """A part of the contents of a unit cell.

    Attributes
    ----------
    name
        What it is: "protein", "bulk solvent", ...
    numbers
        Atoms of each of cctbx's scattering types (element, or ion such as "O2-") in the unit cell.
    volume
        In A^3 of the unit cell; 0 where it is not known, or counted with another part (hydrogens that were added).
    """

    name: str
    numbers: Mapping[str, float]
    volume: float = 0.0

    @property
    def electrons(self) -> float:
        """Electrons in the unit cell."""
        return sum(number * (atomic_number(label) - charge(label)) for label, number in self.numbers.items())

    @property
    def mass(self) -> float:
        """Mass in the unit cell, in Da."""
        return sum(number * mass(label) for label, number in self.numbers.items())
