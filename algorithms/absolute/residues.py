"""Residues of chains: their formulae, and the hydrogens of those that a model names."""

from __future__ import annotations

from iotbx.pdb import common_residue_names_get_class

from dials_diffuse.algorithms.absolute.formula import parse_formula

# Formulae of residues in a chain: of the molecule without the water that is lost when the chain is made, neutral.
AMINO_ACIDS = {
    "A": ("ALA", "C3H5NO"),
    "C": ("CYS", "C3H5NOS"),
    "D": ("ASP", "C4H5NO3"),
    "E": ("GLU", "C5H7NO3"),
    "F": ("PHE", "C9H9NO"),
    "G": ("GLY", "C2H3NO"),
    "H": ("HIS", "C6H7N3O"),
    "I": ("ILE", "C6H11NO"),
    "K": ("LYS", "C6H12N2O"),
    "L": ("LEU", "C6H11NO"),
    "M": ("MET", "C5H9NOS"),
    "N": ("ASN", "C4H6N2O2"),
    "O": ("PYL", "C12H19N3O2"),
    "P": ("PRO", "C5H7NO"),
    "Q": ("GLN", "C5H8N2O2"),
    "R": ("ARG", "C6H12N4O"),
    "S": ("SER", "C3H5NO2"),
    "T": ("THR", "C4H7NO2"),
    "U": ("SEC", "C3H5NOSe"),
    "V": ("VAL", "C5H9NO"),
    "W": ("TRP", "C11H10N2O"),
    "Y": ("TYR", "C9H9NO2"),
}
DEOXYRIBONUCLEOTIDES = {
    "A": ("DA", "C10H12N5O5P"),
    "C": ("DC", "C9H12N3O6P"),
    "G": ("DG", "C10H12N5O6P"),
    "T": ("DT", "C10H13N2O7P"),
    "U": ("DU", "C9H11N2O7P"),
}
RIBONUCLEOTIDES = {
    "A": ("A", "C10H12N5O6P"),
    "C": ("C", "C9H12N3O7P"),
    "G": ("G", "C10H12N5O7P"),
    "U": ("U", "C9H11N2O8P"),
}
CHAINS = {"protein": AMINO_ACIDS, "dna": DEOXYRIBONUCLEOTIDES, "rna": RIBONUCLEOTIDES}
FORMULAE = {name: formula for chain in CHAINS.values() for name, formula in chain.values()}

# Partial specific volumes in cm3/g; Matthews (1968) J. Mol. Biol. 33, 491 for protein.
SPECIFIC_VOLUME = {"protein": 0.73, "nucleic acid": 0.55, "ordered water": 1.0, "ligands and ions": 0.73}
CUBIC_ANGSTROM_PER_DALTON = 1e24 / 6.02214076e23  # of 1 cm3/g

KINDS = {
    "common_amino_acid": "protein",
    "modified_amino_acid": "protein",
    "common_rna_dna": "nucleic acid",
    "modified_rna_dna": "nucleic acid",
    "common_water": "ordered water",
}


def residue_kind(name: str) -> str:
    """Return what a residue of a model belongs to: protein, nucleic acid, ordered water, or ligands and ions."""
    if name in FORMULAE:
        return "protein" if name in dict(AMINO_ACIDS.values()) else "nucleic acid"
    return KINDS.get(common_residue_names_get_class(name), "ligands and ions")


def hydrogens_of(name: str) -> tuple[int, int | None] | None:
    """Return the hydrogens of a residue as it is in a chain, and its other atoms if these are known.

    Those that are not in the tables above are gemmi's (its 360 most frequent residues and ligands).

    Returns
    -------
    tuple or None
        None if nobody knows the residue.
    """
    if name in FORMULAE:
        atoms = parse_formula(FORMULAE[name])
        return int(atoms["H"]), int(sum(atoms.values()) - atoms["H"])
    kind = residue_kind(name)
    if kind == "ordered water":
        return 2, 1
    if common_residue_names_get_class(name) == "common_element":
        return 0, 1
    try:
        import gemmi  # comes with DIALS
    except ImportError:
        return None
    residue = gemmi.find_tabulated_residue(name)
    if not residue.found():
        return None
    lost = 2 if kind in ("protein", "nucleic acid") else 0  # with the water, when the chain is made
    return max(residue.hydrogen_count - lost, 0), None
