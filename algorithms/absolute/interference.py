"""What pairs of atoms add to the scattering of single ones: bonded atoms, and the room that atoms leave each other.

    interference(q) = sum_{i != j} f_i f_j sinc(2 q r_ij) - F(q)^2 / V (4/3) pi R^3 3 j_1(x) / x,   x = 2 pi q R

The sum (Debye (1915) Ann. Phys. 46, 809) is over pairs that are nearer than R, which chemical bonds hold at their
distance. Beyond R atoms are taken to be anywhere: nothing comes of them but the hole within R in their uniform density,
F = sum f (Debye & Menke (1930) Phys. Z. 31, 797). For a rigid crystal of a protein, the sum rule is then right within 3
% from 5 A to any cutoff below 2 A, and without 9 % off (tests/algorithms/absolute/test_interference.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from dials_diffuse.algorithms.absolute.form_factors import form_factor
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory

#: R in Angstrom: atoms with one or two bonds between them are nearer, others further.
REACH = 2.75
#: Nearer than this are only places of which one is taken.
LEAST = 0.6
#: Distances in a model that differ by less than this, in Angstrom, are one.
WIDTH = 0.02

#: Pairs of elements: distances in Angstrom, and numbers of pairs.
Pairs = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]

#: Distances and numbers of pairs for a carbon atom of a protein: those of Er-1 (2ERL, 1.0 A; Anderson, Weiss &
#: Eisenberg (1996) Acta Cryst. D52, 469), hydrogens included. Bond lengths and angles are much the same in all
#: proteins.
PROTEIN = {
    ("C", "C"): "1.43 0.262 1.53 0.530 2.43 0.563 2.54 0.322 2.72 0.022",
    ("C", "H"): "0.97 1.115 1.90 0.350 2.04 1.984 2.46 0.213 2.60 1.087 2.72 0.350",
    ("C", "N"): "1.36 0.361 1.48 0.120 2.44 0.650 2.51 0.022",
    ("C", "O"): "1.23 0.322 1.40 0.044 2.39 0.404 2.71 0.164",
    ("C", "S"): "1.81 0.044",
    ("H", "H"): "1.48 0.044 1.57 0.530 2.09 0.087 2.28 0.574 2.43 0.634 2.66 0.743",
    ("H", "N"): "0.86 0.279 1.99 0.257 2.39 0.104 2.55 0.333 2.69 0.169",
    ("H", "O"): "0.82 0.049 1.97 0.060 2.14 0.055 2.37 0.246 2.54 0.475 2.69 0.219",
    ("H", "S"): "2.31 0.093",
    ("N", "N"): "2.27 0.016 2.73 0.033",
    ("N", "O"): "2.23 0.230 2.69 0.016",
    ("O", "O"): "2.21 0.044",
    ("S", "S"): "2.03 0.016",
}
#: The same for a molecule of water.
WATER = {("H", "O"): "0.957 2", ("H", "H"): "1.514 1"}


def tabulated_pairs(table: dict[tuple[str, str], str], number: float) -> Pairs:
    """``number`` times the pairs of :data:`PROTEIN` or :data:`WATER`."""
    values = {elements: np.array(text.split(), dtype=float) for elements, text in table.items()}
    return {elements: (row[::2], number * row[1::2]) for elements, row in values.items()}


def pairs_of_model(filename: str | os.PathLike, copies: float) -> Pairs:
    """Pairs within a model (PDB, mmCIF) that are nearer than :data:`REACH`.

    Parameters
    ----------
    filename : path
    copies : float
        Of the model in the unit cell. Alternative conformations but the first do not count, nor do contacts between
        copies.
    """
    import iotbx.pdb
    from scipy.spatial import cKDTree

    hierarchy = iotbx.pdb.input(os.fspath(filename)).construct_hierarchy()
    hierarchy.atoms().set_chemical_element_simple_if_necessary()
    atoms = [atom for atom in hierarchy.models()[0].atoms() if atom.parent().altloc in ("", " ", "A")]
    xyz = np.array([atom.xyz for atom in atoms]).reshape(-1, 3)
    element = np.array([atom.element.strip().capitalize() for atom in atoms])
    occupancy = np.array([atom.occ for atom in atoms])
    first, second = cKDTree(xyz).query_pairs(REACH, output_type="ndarray").T
    distance = np.linalg.norm(xyz[first] - xyz[second], axis=1)
    weight = copies * np.minimum(occupancy[first], occupancy[second]) * (distance > LEAST)
    kinds = np.sort(np.stack([element[first], element[second]]), axis=0)
    found = {}
    for a, b in Counter(zip(*kinds)):
        these = (kinds[0] == a) & (kinds[1] == b) & (weight > 0)
        bins, inverse = np.unique(np.rint(distance[these] / WIDTH), return_inverse=True)
        found[str(a), str(b)] = bins * WIDTH, np.bincount(inverse, weight[these])
    return found


def known_pairs(inventory: UnitCellInventory, models: Sequence[str | os.PathLike]) -> tuple[Pairs, str]:
    """Pairs in the unit cell as far as they are known, and where they come from in words.

    Parameters
    ----------
    inventory : UnitCellInventory
    models : sequence of path
        Coordinates; taken if there are hydrogens in them, or no protein in the inventory. Otherwise proteins have
        the pairs of :data:`PROTEIN`, by their number of carbon atoms. Water has those of :data:`WATER`.

    Returns
    -------
    Pairs
        Empty if nothing is known.
    str
    """
    water = sum(
        min(part.numbers.get("O", 0), part.numbers.get("H", 0) / 2)
        for part in inventory.parts
        if part.name in ("ordered water", "bulk solvent")
    )
    in_water = tabulated_pairs(WATER, water) if water else {}
    carbon = sum(part.numbers.get("C", 0) for part in inventory.parts if part.name.startswith("protein"))
    of_models = added(*(pairs_of_model(name, inventory.asymmetric_units) for name in models))
    if of_models and (not carbon or any("H" in elements for elements in of_models)):
        return added(of_models, in_water), f"of {', '.join(map(str, models))}"
    if carbon:
        return added(tabulated_pairs(PROTEIN, carbon), in_water), "of an average protein"
    return {}, ""


def added(*several: Pairs) -> Pairs:
    """Pairs of several kinds of molecules together."""
    total: Pairs = {}
    for pairs in several:
        for elements, (distance, number) in pairs.items():
            known = total.get(elements, (np.empty(0), np.empty(0)))
            total[elements] = np.append(known[0], distance), np.append(known[1], number)
    return total


def interference(pairs: Pairs, inventory: UnitCellInventory) -> Callable[[np.ndarray], np.ndarray]:
    """The function of |q| (1/Angstrom, shape (n,)) in electrons^2 per unit cell, shape (n,).

    Parameters
    ----------
    pairs : Pairs
        In the unit cell.
    inventory : UnitCellInventory
        All that is in it.
    """

    def of_q(q: np.ndarray) -> np.ndarray:
        total = np.zeros(len(q))
        for (a, b), (distance, number) in pairs.items():
            waves = np.sinc(2 * np.multiply.outer(q, distance)) @ number
            total += 2 * form_factor(a, q) * form_factor(b, q) * waves
        amplitude = sum(n * form_factor(label, q) for label, n in inventory.numbers.items())
        x = np.maximum(2 * np.pi * q * REACH, 1e-3)
        hole = 4 / 3 * np.pi * REACH**3 * 3 * (np.sin(x) - x * np.cos(x)) / x**3
        return total - amplitude**2 / inventory.cell_volume * hole

    return of_q
