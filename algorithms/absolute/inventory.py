"""What is in the unit cell."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import libtbx.phil
from cctbx import crystal, sgtbx, uctbx
from dials.util import Sorry, tabulate

from dials_diffuse.algorithms.absolute.formula import formula_text, parse_formula, scattering_type
from dials_diffuse.algorithms.absolute.model_contents import model_parts
from dials_diffuse.algorithms.absolute.part import Part
from dials_diffuse.algorithms.absolute.sequence_contents import sequence_parts
from dials_diffuse.algorithms.absolute.solvent_contents import solvent_part

logger = logging.getLogger("dials.diffuse.absolute")

COPIES = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*\*\s*(\S.*)")


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

    @classmethod
    def from_sequence(
        cls, sequence: str, unit_cell: uctbx.unit_cell, copies: float = 1.0, molecule: str = "auto"
    ) -> UnitCellInventory:
        """Return the inventory of ``copies`` of a sequence (file or letters) in a unit cell (see `sequence_parts`)."""
        return cls(sequence_parts(sequence, copies, molecule), unit_cell.volume())

    @classmethod
    def from_model(
        cls, filename: str | Path, unit_cell: uctbx.unit_cell, space_group: sgtbx.space_group
    ) -> UnitCellInventory:
        """Return the inventory of a model's unit cell (see `model_parts`)."""
        symmetry = crystal.symmetry(unit_cell=unit_cell, space_group=space_group)
        return cls(model_parts(filename, symmetry), unit_cell.volume(), space_group.order_z())

    def with_solvent(
        self, fraction: float | None = None, liquor: Sequence[str] = (), density: float | None = None
    ) -> UnitCellInventory:
        """Return the inventory with bulk solvent added (see `solvent_part`).

        Parameters
        ----------
        fraction
            Of the cell's volume that is solvent, ordered water included. None for the volume that nothing else takes.
        """
        ordered = sum(part.volume for part in self.parts if part.name == "ordered water")
        taken = sum(part.volume for part in self.parts) - ordered
        if fraction is None:
            volume = self.cell_volume - taken - ordered
            if volume < 0:
                raise Sorry(
                    f"What composition puts into the unit cell takes {taken + ordered:.0f} A^3, and the cell has "
                    f"{self.cell_volume:.0f} A^3: give fewer copies."
                )
        else:
            volume = max(fraction * self.cell_volume - ordered, 0.0)
            if taken and abs(fraction + taken / self.cell_volume - 1) > 0.15:
                logger.warning(
                    "Solvent of %.0f %% and contents of %.0f %% of the unit cell's volume do not make 100 %%: check "
                    "the copies and the fraction.",
                    100 * fraction,
                    100 * taken / self.cell_volume,
                )
        return replace(self, parts=(*self.parts, solvent_part(volume, liquor, density)))

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


def inventory_from_params(
    composition: libtbx.phil.scope_extract, unit_cell: uctbx.unit_cell, space_group: sgtbx.space_group
) -> UnitCellInventory:
    """Return the inventory that ``composition`` (`phil_scope.composition`) tells of.

    Parameters
    ----------
    composition
        The parameters.
    unit_cell, space_group
        Of the data.

    Raises
    ------
    Sorry
        If nothing is given, something cannot be read, or the cell has no room for it.
    """
    symmetry = crystal.symmetry(unit_cell=unit_cell, space_group=space_group)
    per_cell = space_group.order_z() if composition.per == "asymmetric_unit" else 1
    inventory = UnitCellInventory((), unit_cell.volume(), space_group.order_z())
    molecules = [part for name in _given(composition.model) for part in model_parts(name, symmetry)]
    for sequence in _given(composition.sequence):
        copies, sequence = split_copies(sequence)
        molecules += sequence_parts(sequence, copies * per_cell, composition.molecule)
    others = []
    try:
        for formula in _given(composition.formula):
            copies, formula = split_copies(formula)
            others += UnitCellInventory.from_formula(formula, unit_cell, copies * per_cell).parts
        if composition.elements:
            numbers = _element_numbers(composition.elements)
            others += UnitCellInventory.from_elements(numbers, unit_cell, per_cell).parts
    except ValueError as error:
        raise Sorry(f"composition: {error}") from error
    if not molecules and not others:
        raise Sorry(
            "What is in the unit cell is not known: give composition.model, composition.sequence, composition.formula "
            "or composition.elements."
        )
    inventory = replace(inventory, parts=(*molecules, *others))
    solvent = composition.solvent
    macromolecules = any(part.name.startswith(("protein", "nucleic acid", "DNA", "RNA")) for part in molecules)
    if solvent.fraction is libtbx.Auto and not macromolecules:
        return inventory
    if solvent.fraction == 0:
        return inventory
    fraction = None if solvent.fraction is libtbx.Auto else solvent.fraction
    return inventory.with_solvent(fraction, _given(solvent.liquor), solvent.density)


def split_copies(text: str) -> tuple[float, str]:
    """Return copies and what is copied: ``4*hen.fasta`` -> (4, ``hen.fasta``), ``C6H6`` -> (1, ``C6H6``)."""
    match = COPIES.fullmatch(text)
    return (float(match[1]), match[2].strip()) if match else (1.0, text.strip())


def _given(values: list[str | None] | None) -> list[str]:
    return [value for value in values or [] if value is not None]


def _element_numbers(words: Sequence[str]) -> dict[str, float]:
    """Return {"Si": 1, "O": 2} for ["Si", "1", "O", "2"]."""
    words = [word for text in words for word in re.split(r"[\s,=]+", text) if word]
    if len(words) % 2:
        raise ValueError("elements are pairs of an element and a number, such as elements='Si 1 O 2'.")
    try:
        pairs = [(label, float(number)) for label, number in zip(words[::2], words[1::2])]
    except ValueError:
        raise ValueError("elements are pairs of an element and a number, such as elements='Si 1 O 2'.") from None
    total: Counter[str] = Counter()
    for label, number in pairs:
        total[label] += number
    return dict(total)
