"""What is in the unit cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cctbx import uctbx
from dials.util import tabulate

from dials_diffuse.algorithms.absolute.formula import (
    atomic_number,
    charge,
    formula_text,
    mass,
    parse_formula,
    scattering_type,
)


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
        In A^3 of the unit cell; 0 where it is not known or counted with another part (hydrogens that were added).
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


@dataclass(frozen=True)
class UnitCellInventory:
    """All that is in a unit cell.

    Attributes
    ----------
    parts
        The parts; they add up.
    cell_volume
        In A^3.
    asymmetric_units
        In the unit cell: the order of the space group.
    """

    parts: tuple[Part, ...]
    cell_volume: float
    asymmetric_units: int = 1

    @classmethod
    def from_elements(
        cls, numbers: Mapping[str, float], unit_cell: uctbx.unit_cell, copies: float = 1.0, name: str = "elements"
    ) -> UnitCellInventory:
        """Return the inventory of ``copies`` times ``numbers`` atoms (of elements or ions) in a unit cell."""
        total: Counter[str] = Counter()
        for label, number in numbers.items():
            total[scattering_type(label)] += number * copies
        return cls((Part(name, dict(total)),), unit_cell.volume())

    @classmethod
    def from_formula(cls, formula: str, unit_cell: uctbx.unit_cell, copies: float = 1.0) -> UnitCellInventory:
        """Return the inventory of ``copies`` of a chemical formula in a unit cell (see `parse_formula`)."""
        return cls.from_elements(parse_formula(formula), unit_cell, copies, formula)

    @property
    def numbers(self) -> dict[str, float]:
        """Atoms of each of cctbx's scattering types in the unit cell."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.numbers)
        return dict(total)

    @property
    def electrons(self) -> float:
        """Electrons in the unit cell: F(0 0 0)."""
        return sum(part.electrons for part in self.parts)

    @property
    def mass(self) -> float:
        """Mass of the unit cell in Da."""
        return sum(part.mass for part in self.parts)

    def table(self) -> str:
        """Return the parts as a table to print."""
        rows = [
            [
                part.name,
                formula_text({label: round(number, 1) for label, number in part.numbers.items()}),
                f"{part.electrons:.0f}",
                f"{part.mass / 1000:.2f}",
                f"{100 * part.volume / self.cell_volume:.1f}" if part.volume else "",
            ]
            for part in (*self.parts, Part("all", self.numbers, sum(part.volume for part in self.parts)))
        ]
        return tabulate(rows, ["In the unit cell", "Atoms", "Electrons", "kDa", "% of volume"])
