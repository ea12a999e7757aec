from __future__ import annotations

import pytest

from dials_diffuse.algorithms.absolute.formula import (
    atomic_number,
    charge,
    element,
    formula_text,
    mass,
    parse_formula,
    scattering_type,
)


@pytest.mark.parametrize(
    "formula, atoms",
    [
        ("C6 H12 O6", {"C": 6, "H": 12, "O": 6}),
        ("(NH4)2SO4", {"N": 2, "H": 8, "S": 1, "O": 4}),
        ("Na2SO4*10H2O", {"Na": 2, "S": 1, "O": 14, "H": 20}),
        ("K4[Fe(CN)6]·3H2O", {"K": 4, "Fe": 1, "C": 6, "N": 6, "H": 6, "O": 3}),
        ("Ba0.5Sr0.5TiO3", {"Ba": 0.5, "Sr": 0.5, "Ti": 1, "O": 3}),
        ("CO", {"C": 1, "O": 1}),
        ("Co", {"Co": 1}),
        ("D2O", {"D": 2, "O": 1}),
    ],
)
def test_formulae(formula, atoms):
    assert parse_formula(formula) == pytest.approx(atoms)


@pytest.mark.parametrize("formula", ["", "Xx2", "C6(", "C)2", "c6h6", "C1.2.3", "C6H6?", "6", "C6*"])
def test_what_is_no_formula(formula):
    with pytest.raises(ValueError, match="formula|element"):
        parse_formula(formula)


def test_masses_and_ions():
    glucose = parse_formula("C6H12O6")
    assert sum(number * mass(label) for label, number in glucose.items()) == pytest.approx(180.16, abs=0.01)
    assert formula_text(glucose) == "C6 H12 O6"
    assert formula_text({"O2-": 2, "Zn": 0.25}) == "O2-2 Zn0.25"
    for label, standard, symbol, number, ionic in (
        ("SE", "Se", "Se", 34, 0),
        ("Na+", "Na1+", "Na", 11, 1),
        ("O2-", "O2-", "O", 8, -2),
        ("Fe3+", "Fe3+", "Fe", 26, 3),
        ("D", "D", "D", 1, 0),
    ):
        assert (scattering_type(label), element(label), atomic_number(label), charge(label)) == (
            standard,
            symbol,
            number,
            ionic,
        )
    with pytest.raises(ValueError, match="Qq"):
        scattering_type("Qq")
