"""What a model of the crystal structure says is in the unit cell."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from pathlib import Path

import iotbx.cif
import iotbx.pdb
import numpy as np
from cctbx import crystal
from dials.util import Sorry
from dxtbx import flumpy
from iotbx.pdb.hierarchy import root as Hierarchy

from dials_diffuse.algorithms.absolute.formula import scattering_type
from dials_diffuse.algorithms.absolute.part import Part
from dials_diffuse.algorithms.absolute.residues import (
    CUBIC_ANGSTROM_PER_DALTON,
    SPECIFIC_VOLUME,
    hydrogens_of,
    residue_kind,
)

logger = logging.getLogger("dials.diffuse.absolute")

CHAIN_ENDS = {"OXT", "OP3", "O3P"}  # atoms that a residue has only at the end of a chain


def model_parts(filename: str | Path, symmetry: crystal.symmetry) -> tuple[Part, ...]:
    """Return what is in the unit cell of a model.

    Occupancies count, alternative conformations with theirs; several models in a file are an ensemble, and averaged. An
    atom stands at most once at each place, so that one on a special position is counted right whether its occupancy
    holds the symmetry (as in a PDB file) or not. Hydrogens that the model leaves out are added by number.

    Parameters
    ----------
    filename
        PDB or mmCIF file, or a CIF file of a small molecule or mineral, whose hydrogens are taken as they are.
    symmetry
        Of the data: stands in for what the file does not tell, and has about the same cell.

    Returns
    -------
    tuple of Part
        Protein, nucleic acid, ordered water, ligands and ions; and the hydrogens that were added, whose volume is
        counted with what they belong to.
    """
    structures = _small_molecule(filename)
    if structures:
        _check_cell(filename, structures[0].crystal_symmetry(), symmetry)
        numbers: Counter[str] = Counter()
        for scatterer in structures[0].scatterers():
            numbers[scatterer.scattering_type] += scatterer.occupancy * scatterer.multiplicity()
        return (Part(Path(filename).name, dict(numbers)),)

    try:
        model = iotbx.pdb.input(file_name=str(filename), raise_sorry_if_format_error=True)
        hierarchy, own = model.construct_hierarchy(), model.crystal_symmetry()
    except (Sorry, ValueError, RuntimeError, OSError) as error:
        raise Sorry(f"{filename} cannot be read as a PDB, mmCIF or CIF file: {error}") from error
    if not hierarchy.atoms_size():
        raise Sorry(f"{filename} has no atoms: give a PDB, mmCIF or CIF file of the crystal's structure.")
    if own is not None and own.unit_cell() is not None and own.space_group() is not None:
        _check_cell(filename, own, symmetry)
        symmetry = own
    return _hierarchy_parts(hierarchy, symmetry, filename)


def _small_molecule(filename: str | Path) -> list:
    """Return the structures of a CIF file with fractional coordinates; an empty list if it is another file."""
    if not str(filename).endswith(".cif"):
        return []
    try:
        return list(iotbx.cif.reader(file_path=str(filename)).build_crystal_structures().values())
    except Exception:  # iotbx raises many kinds when the file is another kind of CIF
        return []


def _check_cell(filename: str | Path, own: crystal.symmetry, data: crystal.symmetry) -> None:
    volume, expected = own.unit_cell().volume(), data.unit_cell().volume()
    if not 0.9 < volume / expected < 1.1:
        raise Sorry(
            f"The unit cell of {filename}, {volume:.0f} A^3, is not that of the data, {expected:.0f} A^3: give a model "
            "in the data's setting, or the contents of the cell as sequence or formula."
        )


def _hierarchy_parts(hierarchy: Hierarchy, symmetry: crystal.symmetry, filename: str | Path) -> tuple[Part, ...]:
    atoms = hierarchy.atoms()
    atoms.set_chemical_element_simple_if_necessary()
    in_cell = _numbers_in_cell(atoms, symmetry) / len(hierarchy.models())
    atoms.reset_i_seq()
    numbers: dict[str, Counter[str]] = defaultdict(Counter)
    missing: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for group in hierarchy.residue_groups():
        residues = defaultdict(list)
        for conformer in group.atom_groups():
            residues[conformer.resname.strip()] += list(conformer.atoms())
        for name, its_atoms in residues.items():
            kind = residue_kind(name)
            for atom in its_atoms:
                numbers[kind][_label(atom, filename)] += in_cell[atom.i_seq]
            lacking = _missing_hydrogens(name, its_atoms, in_cell)
            if lacking is None:
                unknown[name] += 1
            else:
                missing[kind] += lacking
    if unknown:
        logger.warning(
            "%s names residues whose hydrogens nobody knows: %s. Give them as composition.formula if they matter.",
            filename,
            ", ".join(sorted(unknown)),
        )
    parts = [
        Part(kind, dict(numbers[kind]), _volume(kind, numbers[kind], missing[kind]))
        for kind in SPECIFIC_VOLUME
        if kind in numbers
    ]
    added = sum(missing.values())
    return (*parts, Part("hydrogens added", {"H": added})) if added > 0 else tuple(parts)


def _volume(kind: str, numbers: Counter[str], hydrogens: float) -> float:
    mass = Part(kind, {**numbers, "H": numbers["H"] + hydrogens}).mass
    return mass * SPECIFIC_VOLUME[kind] * CUBIC_ANGSTROM_PER_DALTON


def _label(atom: iotbx.pdb.hierarchy.atom, filename: str | Path) -> str:
    try:
        return scattering_type(atom.element)
    except ValueError:
        raise Sorry(f"{filename}: the element of the atom {atom.quote()} is not known: fill in its column.") from None


def _numbers_in_cell(atoms: iotbx.pdb.hierarchy.af_shared_atom, symmetry: crystal.symmetry) -> np.ndarray:
    """Return how many of each atom the unit cell has: as many as symmetry operations, at most one at each place."""
    order = symmetry.space_group().order_z()
    sites = symmetry.unit_cell().fractionalize(atoms.extract_xyz())
    table = symmetry.special_position_settings(min_distance_sym_equiv=0.5).site_symmetry_table(sites_frac=sites)
    places = np.full(len(atoms), float(order))
    for index in table.special_position_indices():
        places[index] = table.get(index).multiplicity()
    return np.minimum(flumpy.to_numpy(atoms.extract_occ()) * order, places)


def _missing_hydrogens(name: str, atoms: list, in_cell: np.ndarray) -> float | None:
    """Return how many hydrogens in the unit cell a residue lacks; None if it is not known how many it should have.

    As large a share of the residue's hydrogens is expected as there is of its other atoms: less in truncated side
    chains, and what the occupancies make of it in alternative conformations.
    """
    heavy = [atom for atom in atoms if not atom.element_is_hydrogen() and atom.name.strip() not in CHAIN_ENDS]
    present = sum(in_cell[atom.i_seq] for atom in atoms if atom.element_is_hydrogen())
    if not heavy:
        return 0.0
    expected = hydrogens_of(name)
    if expected is None:
        return 0.0 if present else None
    hydrogens, others = expected
    others = others or len({atom.name for atom in heavy})
    share = sum(in_cell[atom.i_seq] for atom in heavy) / others
    return max(hydrogens * share - present, 0.0)
