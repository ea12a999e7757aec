from __future__ import annotations

import logging

import numpy as np
import pytest
from cctbx import sgtbx, uctbx
from dials.util import Sorry

from dials_diffuse.algorithms.absolute.form_factors import coherent_intensity
from dials_diffuse.algorithms.absolute.incoherent import incoherent_intensity
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory, inventory_from_params, split_copies
from dials_diffuse.phil_scope.composition import phil_scope

LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAWVAWRNRC"
    "KGTDVQAWIRGCRL"
)
SNASE = (
    "ATSTKKLHKEPATLIKAIDGDTVKLMYKGQPMTFRLLLVDTPETKHPKKGVEKYGPEASAFTKKMVENAKKIEVEFDKGQRTDKYGRGLAYIYADGKMVNEALVRQGLAKVAYVY"
    "KPNNTHEQHLRKSEAQAKKEKLNIWSEDNADSGQ"
)
TETRAGONAL = uctbx.unit_cell((79.1, 79.1, 37.9, 90, 90, 90))
P43212 = sgtbx.space_group_info("P43212").group()
SNASE_CELL = uctbx.unit_cell((48.5, 48.5, 63.4, 90, 90, 90))


def inventory(*arguments, cell=TETRAGONAL, group=P43212):
    interpreter = phil_scope.command_line_argument_interpreter()
    params = phil_scope.fetch(sources=[interpreter.process(argument) for argument in arguments]).extract()
    return inventory_from_params(params.composition, cell, group)


def test_lysozyme():
    """C613 H959 N193 O185 S10 and 14.3 kDa without its four disulfide bridges; 8 in the cell, which is 41 % solvent."""
    lysozyme = UnitCellInventory.from_sequence(LYSOZYME, TETRAGONAL)
    assert lysozyme.numbers == {"C": 613, "H": 959, "N": 193, "O": 185, "S": 10}
    assert lysozyme.mass == pytest.approx(14313, abs=2)
    assert lysozyme.electrons == 613 * 6 + 959 + 193 * 7 + 185 * 8 + 10 * 16

    whole = inventory(f"sequence={LYSOZYME}")
    protein, solvent = whole.parts
    assert protein.numbers["S"] == 80 and whole.asymmetric_units == 8
    assert protein.volume + solvent.volume == pytest.approx(TETRAGONAL.volume())
    assert solvent.volume / TETRAGONAL.volume() == pytest.approx(0.415, abs=0.01)
    assert solvent.electrons / solvent.volume == pytest.approx(0.334)
    table = whole.table()
    assert "protein, 129 residues" in table and "bulk solvent" in table and f"{whole.electrons:.0f}" in table


def test_sequences(tmp_path):
    """A FASTA file of a protein and two strands of DNA, in copies; RNA by its letters."""
    fasta = tmp_path / "complex.fasta"
    fasta.write_text(f">sp|P00644|NUC_STAAU Thermonuclease OS=S. aureus\n{SNASE[:80]}\n{SNASE[80:]}*\n>dna\nGATTACA\n")
    both = UnitCellInventory.from_sequence(str(fasta), TETRAGONAL, copies=2)
    protein, dna = both.parts
    assert protein.name.startswith("protein, 149 residues") and dna.name.startswith("DNA, 7 residues")
    assert protein.mass / 2 == pytest.approx(16812, abs=2)
    # 5'-d(GATTACA)-3' with hydroxyl groups at its ends: seven nucleotides, six phosphates
    assert dna.numbers["P"] == 12
    monophosphates = 3 * 331.222 + 2 * 322.207 + 307.197 + 347.221
    assert dna.mass / 2 == pytest.approx(monophosphates - 6 * 18.015 - 79.98, abs=0.1)
    assert dna.volume == pytest.approx(dna.mass * 0.55 * 1.6605, rel=1e-3)
    assert UnitCellInventory.from_sequence("GAUUACA", TETRAGONAL).parts[0].name == "RNA, 7 residues"
    assert UnitCellInventory.from_sequence("GATTACA", TETRAGONAL, molecule="protein").numbers["C"] == 22

    whole = inventory(f"sequence=2*{fasta}", "solvent.fraction=0")
    assert whole.parts[0].numbers["S"] == 8 * protein.numbers["S"]
    whole = inventory(f"sequence=2*{fasta}", "per=unit_cell")
    assert whole.parts[0].numbers["S"] == protein.numbers["S"]


def test_formulae_elements_and_solvent_add_up():
    small = inventory("formula=4*C6H12O6", "formula=H2O", "elements=Na1+ 2 Cl1- 2", "per=unit_cell")
    assert small.numbers == {"C": 24, "H": 50, "O": 25, "Na1+": 2, "Cl1-": 2}
    assert small.electrons == 4 * 96 + 10 + 2 * 10 + 2 * 18
    assert inventory("elements=Si,1,O,2").numbers == {"Si": 8, "O": 16}
    assert inventory("formula=C6H6", "solvent.fraction=0.5").parts[-1].volume == TETRAGONAL.volume() / 2
    assert len(inventory(f"sequence={LYSOZYME}", "solvent.fraction=0").parts) == 1
    assert split_copies("2.5*CuSO4*5H2O") == (2.5, "CuSO4*5H2O")
    assert split_copies("CuSO4*5H2O") == (1, "CuSO4*5H2O")


def test_ordered_water_is_part_of_the_solvent(tmp_path):
    model = tmp_path / "water.pdb"
    model.write_text(
        "CRYST1   79.100   79.100   37.900  90.00  90.00  90.00 P 43 21 2\n"
        "HETATM    1  O   HOH A   1       5.000   9.000   3.000  1.00 20.00           O\n"
    )
    cell = TETRAGONAL.volume()
    whole = inventory(f"model={model}", f"sequence={LYSOZYME}", "solvent.fraction=0.42")
    water, protein, bulk = (part for part in whole.parts if part.volume)
    assert water.volume + bulk.volume == pytest.approx(0.42 * cell)
    full = inventory(f"model={model}", f"sequence={LYSOZYME}")
    assert sum(part.volume for part in full.parts) == pytest.approx(cell)
    assert full.numbers["H"] == pytest.approx(protein.numbers["H"] + 16 + full.parts[-1].numbers["H"])


def test_mother_liquor():
    """Solutes by molarity and weight; 2 M ammonium sulphate of 1.134 g/cm3 has 0.375 electrons in an A^3."""
    litre = 6.02214076e-4  # molecules in an A^3 at 1 mol/l
    volume = TETRAGONAL.volume()
    base = ("elements=C 1", "per=unit_cell", "solvent.fraction=1")

    salt = inventory(*base, "liquor=2.0 M (NH4)2SO4", "liquor=50 mM NaCl", "density=1.134").parts[-1]
    assert salt.numbers["S"] == pytest.approx(2 * litre * volume)
    assert salt.numbers["Na"] == pytest.approx(0.05 * litre * volume)
    assert salt.mass / volume == pytest.approx(1.134e-24 * 6.02214076e23, rel=1e-3)
    pure = inventory(*base, "liquor=2.0 M (NH4)2SO4", "density=1.134").parts[-1]
    assert pure.electrons / volume == pytest.approx(0.375, abs=0.001)
    guessed = inventory(*base, "liquor=2.0 M (NH4)2SO4").parts[-1]
    assert guessed.electrons == pytest.approx(pure.electrons, rel=0.025)

    peg = inventory(*base, "liquor=20 % C2H4O").parts[-1]  # 200 g/l
    assert peg.numbers["C"] == pytest.approx(2 * 200 / 44.053 * litre * volume, rel=1e-4)
    water = (1 - 0.2 * 0.8) * 0.0334 * volume
    assert peg.numbers["O"] == pytest.approx(peg.numbers["C"] / 2 + water, rel=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "What is in the unit cell is not known"),
        (("formula=Qx2",), "no chemical element"),
        (("elements=Na 1 Cl",), "pairs"),
        (("elements=Na one",), "pairs"),
        (("sequence=nowhere.fasta",), "neither a file nor letters"),
        (("sequence=MAXJ",), "J, X"),
        ((f"sequence=20*{LYSOZYME}",), "fewer copies"),
        (("formula=H2O", "fraction=0.5", "liquor=salty"), "2.0 M"),
        (("formula=H2O", "fraction=0.5", "liquor=20 M NaCl", "density=1"), "no room for water"),
        (("formula=H2O", "fraction=0.5", "liquor=1 M Zz"), "no chemical element"),
        (("model=nowhere.pdb",), "nowhere.pdb"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(Sorry, match=message):
        inventory(*arguments)


def test_a_fraction_that_does_not_fit(caplog):
    with caplog.at_level(logging.WARNING, logger="dials.diffuse.absolute"):
        inventory(f"sequence={LYSOZYME}", "solvent.fraction=0.42")
        assert not caplog.text
        inventory(f"sequence={LYSOZYME}", "solvent.fraction=0.7")
    assert "do not make 100 %" in caplog.text


def test_how_far_the_sum_moves_with_the_solvent():
    """What docs/physics.md says of nuclease: a tenth more solvent moves sum f^2 + S by 4.5 %, 2 M salt by 10 %."""
    protein = UnitCellInventory.from_sequence(SNASE, SNASE_CELL, copies=4)
    q = np.linspace(0.05, 0.5, 200)

    def total(contents):
        intensity = coherent_intensity(contents, q, 0.9795) + incoherent_intensity(contents, q, 0.9795)
        return np.sum(intensity * q**2)

    usual = total(protein.with_solvent(0.48))
    assert total(protein.with_solvent(0.528)) / usual == pytest.approx(1.045, abs=0.002)
    assert total(protein.with_solvent(0.432)) / usual == pytest.approx(0.955, abs=0.002)
    assert total(protein.with_solvent(0.48, ["2.0 M (NH4)2SO4"])) / usual == pytest.approx(1.10, abs=0.015)
    assert total(protein.with_solvent(0.48, ["23 % C6H14O2"])) / usual == pytest.approx(1.0, abs=0.01)
