"""What bulk solvent puts into the unit cell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dials.util import Sorry

from dials_diffuse.algorithms.absolute.formula import mass, parse_formula
from dials_diffuse.algorithms.absolute.part import Part

WATER = 0.0334  # molecules in A^3, at room temperature
MOLECULES_PER_MOLAR = 6.02214076e-4  # molecules in A^3 at 1 mol/l
SOLUTE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(M|mM|%)\s+(\S.*)")
SOLUTE_VOLUME = {True: 0.8, False: 0.4}  # cm3/g in water, of solutes with and without carbon


def solvent_part(volume: float, liquor: Sequence[str] = (), density: float | None = None) -> Part:
    """Return bulk solvent of a volume: what is dissolved in it, and water for the rest.

    Parameters
    ----------
    volume
        In A^3 of the unit cell.
    liquor
        Solutes as ``2.0 M (NH4)2SO4``, ``50 mM NaCl`` or ``20 % C2H4O`` (grams in 100 ml).
    density
        Of the mother liquor in g/cm3, which tells how much water is in it. Without it each solute displaces 0.4 cm3 of
        water a gram, or 0.8 if there is carbon in it; there are 0.0334 molecules in an A^3 of pure water.
    """
    numbers: Counter[str] = Counter()
    grams, displaced = 0.0, 0.0  # in a cm3
    for solute in liquor:
        molar, atoms = parse_solute(solute)
        weight = molar / 1000 * sum(number * mass(symbol) for symbol, number in atoms.items())
        grams += weight
        displaced += weight * SOLUTE_VOLUME["C" in atoms]
        for symbol, number in atoms.items():
            numbers[symbol] += number * molar * MOLECULES_PER_MOLAR * volume
    water = WATER * (1 - displaced) if density is None else (density - grams) / 18.015 * 1000 * MOLECULES_PER_MOLAR
    if water < 0:
        raise Sorry("The mother liquor has no room for water: check composition.solvent.liquor and its density.")
    numbers["H"] += 2 * water * volume
    numbers["O"] += water * volume
    return Part("bulk solvent", dict(numbers), volume)


def parse_solute(text: str) -> tuple[float, dict[str, float]]:
    """Return mol/l and atoms of a solute (see `solvent_part`)."""
    match = SOLUTE.fullmatch(text)
    if not match:
        raise Sorry(f"The solute {text!r} cannot be read: write it as '2.0 M (NH4)2SO4', '50 mM NaCl' or '20 % C2H4O'.")
    amount, unit, formula = float(match[1]), match[2], match[3]
    try:
        atoms = parse_formula(formula)
    except ValueError as error:
        raise Sorry(str(error)) from error
    if unit == "%":
        return 10 * amount / sum(number * mass(symbol) for symbol, number in atoms.items()), atoms
    return amount * (0.001 if unit == "mM" else 1), atoms
