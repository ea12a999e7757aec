from __future__ import annotations

import gemmi
import pytest
from cctbx import crystal
from dials.util import Sorry

from dials_diffuse.algorithms.absolute.model_contents import model_parts

CELL = (30, 40, 50, 90, 90, 90)
SYMMETRY = crystal.symmetry(CELL, "P212121")
CRYST1 = "CRYST1   30.000   40.000   50.000  90.00  90.00  90.00 P 21 21 21    4\n"


class Model:
    """Lines of a PDB file, atoms far apart."""

    def __init__(self):
        self.lines = []
        self.serial = 0

    def atom(self, name, element, residue, number, occupancy=1.0, altloc=" ", xyz=None, hetero=False):
        self.serial += 1
        x, y, z = xyz or (1.3 * self.serial % 29, 2.1 * self.serial % 37, 3.7 * self.serial % 47)
        record = "HETATM" if hetero else "ATOM"
        self.lines.append(
            f"{record:6}{self.serial:5} {name:^4}{altloc}{residue:>3} A{number:4}    {x:8.3f}{y:8.3f}{z:8.3f}"
            f"{occupancy:6.2f}{10:6.2f}          {element:>2}\n"
        )

    def residue(self, residue, number, atoms, **keywords):
        for name in atoms.split():
            self.atom(name, name[0], residue, number, **keywords)

    def write(self, path, cryst1=CRYST1):
        path.write_text(cryst1 + "".join(self.lines) + "END\n")
        return path


ALANINE, GLYCINE, SERINE = "N CA C O CB", "N CA C O", "N CA C O CB OG"


def totals(parts):
    total = {}
    for part in parts:
        for label, number in part.numbers.items():
            total[label] = total.get(label, 0) + number
    return total


def by_gemmi(path):
    """Heavy atoms in the unit cell, counted by gemmi."""
    structure = gemmi.read_structure(str(path))
    order = len(gemmi.find_spacegroup_by_name(structure.spacegroup_hm).operations())
    total = {}
    for residue in (residue for model in structure for chain in model for residue in chain):
        for atom in residue:
            total[atom.element.name] = total.get(atom.element.name, 0) + order * atom.occ / len(structure)
    return total


def test_missing_hydrogens_are_added(tmp_path):
    """Gly-Ala-Ser, a water, glycerol and a zinc ion without a hydrogen: as their formulae say, four times."""
    model = Model()
    model.residue("GLY", 1, GLYCINE)
    model.residue("ALA", 2, ALANINE)
    model.residue("SER", 3, SERINE + " OXT")
    model.residue("GOL", 4, "C1 C2 C3 O1 O2 O3", hetero=True)
    model.atom("O", "O", "HOH", 5, hetero=True)
    model.atom("ZN", "ZN", "ZN", 6, hetero=True)
    path = model.write(tmp_path / "model.pdb")
    parts = model_parts(path, SYMMETRY)
    assert [part.name for part in parts] == ["protein", "ordered water", "ligands and ions", "hydrogens added"]
    hydrogens = 3 + 5 + 5 + 8 + 2
    assert totals(parts) == pytest.approx({**{k.title(): v for k, v in by_gemmi(path).items()}, "H": 4 * hydrogens})
    protein = 4 * (2 * 12.011 + 3 * 1.008 + 14.007 + 15.999 + 71.079 + 87.078 + 15.999)
    assert parts[0].volume == pytest.approx(protein * 0.73 * 1.6605, rel=1e-3)
    assert parts[1].volume == pytest.approx(4 * 29.9, rel=2e-3)


def test_the_same_from_mmcif(tmp_path):
    model = Model()
    model.residue("ALA", 1, ALANINE)
    model.atom("O", "O", "HOH", 2, occupancy=0.5, hetero=True)
    pdb = model.write(tmp_path / "model.pdb")
    mmcif = tmp_path / "model.cif"
    structure = gemmi.read_structure(str(pdb))
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(mmcif))
    assert totals(model_parts(mmcif, SYMMETRY)) == totals(model_parts(pdb, SYMMETRY))
    assert totals(model_parts(pdb, SYMMETRY)) == pytest.approx({"C": 12, "N": 4, "O": 6, "H": 24})


def test_hydrogens_that_are_there_are_not_added_twice(tmp_path):
    model = Model()
    model.residue("ALA", 1, ALANINE + " H HA HB1 HB2 HB3")
    model.residue("GLY", 2, GLYCINE + " H")  # polar hydrogens alone
    parts = model_parts(model.write(tmp_path / "model.pdb"), SYMMETRY)
    assert totals(parts)["H"] == 4 * (5 + 3)
    assert parts[-1].name == "hydrogens added" and parts[-1].numbers == {"H": 4 * 2}


def test_occupancies_alternative_conformations_and_truncated_side_chains(tmp_path):
    model = Model()
    for altloc, occupancy in (("A", 0.6), ("B", 0.4)):
        model.residue("ALA", 1, ALANINE, altloc=altloc, occupancy=occupancy)
    model.residue("SER", 2, SERINE, altloc="A", occupancy=0.7)  # another residue in the same place
    model.residue("ALA", 2, ALANINE, altloc="B", occupancy=0.3)
    model.residue("SER", 3, "N CA C O CB")  # its OG is not in the model, nor a sixth of its hydrogens
    parts = totals(model_parts(model.write(tmp_path / "model.pdb"), SYMMETRY))
    assert parts["H"] == pytest.approx(4 * (5 + 0.7 * 5 + 0.3 * 5 + 5 * 5 / 6))
    assert parts["O"] == pytest.approx(4 * (1 + 1 + 0.7 + 1))


def test_special_positions_and_ensembles(tmp_path):
    """Two ions on a twofold axis, one with the occupancy that a PDB file should have there, one with 1: each twice."""
    cryst1 = "CRYST1   30.000   40.000   50.000  90.00  90.00  90.00 P 2 2 2       4\n"
    symmetry = crystal.symmetry(CELL, "P222")
    model = Model()
    model.atom("ZN", "ZN", "ZN", 1, occupancy=0.5, xyz=(0.0, 0.0, 7.0))
    model.atom("ZN", "ZN", "ZN", 2, occupancy=1.0, xyz=(15.0, 0.0, 9.0))
    model.atom("ZN", "ZN", "ZN", 3, occupancy=1.0, xyz=(4.0, 6.0, 9.0))
    parts = model_parts(model.write(tmp_path / "model.pdb", cryst1), symmetry)
    assert totals(parts) == {"Zn": pytest.approx(2 + 2 + 4)}

    model.lines = ["MODEL        1\n", *model.lines, "ENDMDL\nMODEL        2\n", *model.lines, "ENDMDL\n"]
    ensemble = model_parts(model.write(tmp_path / "ensemble.pdb", cryst1), symmetry)
    assert totals(ensemble) == totals(parts)


def test_a_small_molecule(tmp_path):
    """Sodium chloride, whose atoms all stand on special positions: four formula units."""
    path = tmp_path / "salt.cif"
    path.write_text(
        "data_salt\n_cell_length_a 5.64\n_cell_length_b 5.64\n_cell_length_c 5.64\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n"
        "_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        "Na1 Na1+ 0 0 0 0.9\nCl1 Cl1- 0.5 0.5 0.5 1\n"
    )
    (part,) = model_parts(path, crystal.symmetry((5.64,) * 3 + (90,) * 3, "Fm-3m"))
    assert part.numbers == pytest.approx({"Na1+": 3.6, "Cl1-": 4})
    assert part.electrons == pytest.approx(3.6 * 10 + 4 * 18)


def test_what_cannot_be_read(tmp_path, caplog):
    model = Model()
    model.residue("ALA", 1, ALANINE)
    path = model.write(tmp_path / "model.pdb")
    with pytest.raises(Sorry, match="unit cell of .*model.pdb.* not that of the data"):
        model_parts(path, crystal.symmetry((60, 40, 50, 90, 90, 90), "P212121"))
    for name, text in (
        ("empty.pdb", ""),
        ("words.pdb", "nothing to read\n"),
        ("broken.cif", "data_x\n_cell_length_a 5\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(Sorry, match=name):
            model_parts(tmp_path / name, SYMMETRY)
    with pytest.raises(Sorry, match="missing.pdb"):
        model_parts(tmp_path / "missing.pdb", SYMMETRY)
    model.atom("QQ", "QQ", "UNL", 2, hetero=True)
    with pytest.raises(Sorry, match="element of the atom"):
        model_parts(model.write(tmp_path / "element.pdb"), SYMMETRY)
    model.lines.pop()
    model.residue("ZZZ", 3, "C1 C2", hetero=True)
    parts = model_parts(model.write(tmp_path / "ligand.pdb"), SYMMETRY)
    assert "ZZZ" in caplog.text and totals(parts)["C"] == 4 * (3 + 2)
