"""Against a rigid crystal, all of whose scattering is in its Bragg peaks: Er-1 at 1.0 A, hydrogens included."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import iotbx
import iotbx.pdb
import numpy as np
import pytest
from dxtbx import flumpy

from dials_diffuse.algorithms.absolute.form_factors import coherent_intensity
from dials_diffuse.algorithms.absolute.interference import (
    PROTEIN,
    interference,
    known_pairs,
    pairs_of_model,
    tabulated_pairs,
)
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory
from dials_diffuse.algorithms.absolute.part import Part

MODEL = Path(iotbx.__file__).parent / "regression" / "data" / "2ERL.pdb"


@pytest.fixture(scope="module")
def crystal():
    """Inventory, |q| limits of shells, and mean total intensity in them, electrons^2 per unit cell."""
    structure = iotbx.pdb.input(str(MODEL)).xray_structure_simple()
    structure.convert_to_isotropic()
    structure.set_b_iso(value=0)
    group, numbers = structure.space_group(), Counter()
    for scatterer in structure.scatterers():
        numbers[scatterer.element_symbol()] += scatterer.occupancy * group.order_z()
    inventory = UnitCellInventory((Part("protein", numbers),), structure.unit_cell().volume(), group.order_z())
    amplitudes = structure.structure_factors(d_min=1.4, anomalous_flag=False).f_calc()
    q = np.sqrt(flumpy.to_numpy(amplitudes.d_star_sq().data()))
    weight = flumpy.to_numpy(amplitudes.multiplicities().data()) * np.abs(flumpy.to_numpy(amplitudes.data())) ** 2
    edges = np.linspace(0.2, 1 / 1.4, 30)
    sums = np.histogram(q, edges, weights=weight)[0]
    return inventory, edges, sums / inventory.cell_volume


def integrals(crystal, bonds):
    """Measured over expected, from 5 A to every cutoff beyond 2 A."""
    inventory, edges, measured = crystal
    q = (edges[1:] + edges[:-1]) / 2
    expected = coherent_intensity(inventory, q) + (bonds(q) if bonds else 0)
    ratio = np.cumsum(measured) / np.cumsum(expected * 4 / 3 * np.pi * np.diff(edges**3))
    return ratio[edges[1:] > 0.5]


def test_single_atoms_are_not_enough(crystal):
    ratio = integrals(crystal, None)
    assert ratio[-1] < 0.93


@pytest.mark.parametrize("source", ["model", "average protein"])
def test_sum_rule(crystal, source):
    inventory = crystal[0]
    if source == "model":
        pairs = pairs_of_model(MODEL, inventory.asymmetric_units)
    else:
        pairs = tabulated_pairs(PROTEIN, inventory.numbers["C"])
    np.testing.assert_allclose(integrals(crystal, interference(pairs, inventory)), 1, atol=0.03)


def test_what_is_known():
    """Coordinates with hydrogens come first, then the average protein; nothing is made of formulae."""
    protein = Part("protein, 149 residues", {"C": 100, "H": 160})
    water = Part("bulk solvent", {"O": 50, "H": 100})
    inventory = UnitCellInventory((protein, water), 1e4, 4)
    pairs, source = known_pairs(inventory, [MODEL])
    assert "2ERL" in source
    oh = pairs["H", "O"]
    assert oh[1][np.isclose(oh[0], 0.957)].sum() == pytest.approx(100)  # water's
    pairs, source = known_pairs(inventory, [])
    assert source == "of an average protein"
    assert pairs["C", "C"][1].sum() == pytest.approx(100 * (0.262 + 0.530 + 0.563 + 0.322 + 0.022))
    assert known_pairs(UnitCellInventory((Part("C6H6", {"C": 6, "H": 6}), water), 1e4), []) == ({}, "")


def test_debye_sum_of_a_molecule(tmp_path):
    """Two carbon atoms 1.5 A apart, two places of one atom, and one with an occupancy of a half."""
    lines = ["CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1"]
    for number, (x, occupancy) in enumerate([(0.0, 1.0), (1.5, 1.0), (1.6, 0.5), (9.0, 1.0)], 1):
        lines.append(
            f"HETATM{number:5d}  C{number:<2d} LIG A   1    {x:8.3f}{0:8.3f}{0:8.3f}{occupancy:6.2f}  0.00           C"
        )
    (tmp_path / "two.pdb").write_text("\n".join([*lines, "END", ""]))
    pairs = pairs_of_model(tmp_path / "two.pdb", 4)
    distance, number = pairs["C", "C"]
    assert dict(zip(np.round(distance, 2), number)) == {1.5: 4.0, 1.6: 2.0}
    inventory = UnitCellInventory((Part("LIG", {"C": 4}),), 1e12)  # so thin that there is no hole
    q = np.array([0.2, 0.5])
    f2 = coherent_intensity(inventory, q) / 4
    x, y = 2 * np.pi * q * 1.5, 2 * np.pi * q * 1.6
    expected = 8 * f2 * np.sin(x) / x + 4 * f2 * np.sin(y) / y
    np.testing.assert_allclose(interference(pairs, inventory)(q), expected, rtol=1e-3)
