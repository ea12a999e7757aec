from __future__ import annotations

import gemmi
import pytest

from dials_diffuse.algorithms.absolute.formula import mass, parse_formula
from dials_diffuse.algorithms.absolute.residues import CHAINS, FORMULAE, hydrogens_of, residue_kind


@pytest.mark.parametrize("name", FORMULAE)
def test_formulae_are_those_of_the_chemical_components_dictionary(name):
    """By gemmi's numbers: free molecules, of which Arg, His and Lys carry a proton more than ours."""
    theirs = gemmi.find_tabulated_residue(name)
    atoms = parse_formula(FORMULAE[name])
    proton = 1 if name in ("ARG", "HIS", "LYS") else 0
    assert theirs.hydrogen_count == atoms["H"] + 2 + proton
    weight = sum(number * mass(symbol) for symbol, number in atoms.items())
    assert theirs.weight == pytest.approx(weight + 18.015 + 1.008 * proton, abs=0.01)


@pytest.mark.parametrize("name", [name for name, _ in CHAINS["protein"].values()])
def test_letters_of_amino_acids(name):
    letter = {name: letter for letter, (name, _) in CHAINS["protein"].items()}[name]
    assert gemmi.find_tabulated_residue(name).one_letter_code.upper() == {"U": "U", "O": "O"}.get(letter, letter)


def test_hydrogens_of_what_stands_in_models():
    assert hydrogens_of("ALA") == (5, 5)
    assert hydrogens_of("HOH") == (2, 1)
    assert hydrogens_of("ZN") == (0, 1)
    assert hydrogens_of("MSE") == (9, None)
    assert hydrogens_of("GOL") == (8, None)
    assert hydrogens_of("HEM") == (32, None)
    assert hydrogens_of("ZZZ") is None
    kinds = {"ALA": "protein", "MSE": "protein", "DA": "nucleic acid", "U": "nucleic acid", "SEC": "protein"}
    kinds |= {"HOH": "ordered water", "GOL": "ligands and ions", "ZN": "ligands and ions"}
    assert {name: residue_kind(name) for name in kinds} == kinds
