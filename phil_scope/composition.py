"""What is in the unit cell, and what its atoms scatter."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
composition
  .help = "What is in the unit cell. What is given several times, or in several ways, adds up."
{
  model = None
    .type = path
    .multiple = True
    .help = "PDB or mmCIF file of the crystal's structure, in the data's setting (or CIF of a small molecule)."
            "Occupancies and alternative conformations count; hydrogens that are left out are added by number."
  sequence = None
    .type = str
    .multiple = True
    .help = "Sequence file (FASTA) or the letters themselves; with the number of copies as in sequence=2*hen.fasta."
  molecule = *auto protein dna rna
    .type = choice
    .help = "What the sequences are of. Auto: DNA or RNA where all letters are theirs, else protein."
  formula = None
    .type = str
    .multiple = True
    .help = "Chemical formula; with the number of copies as in formula=4*C6H12O6."
  elements = None
    .type = strings
    .help = "Elements or ions and their numbers, such as elements='Na1+ 4 Cl1- 4'."
  per = *asymmetric_unit unit_cell
    .type = choice
    .help = "What copies and numbers are counted in. (A model is always one of the asymmetric unit.)"
  solvent {
    fraction = Auto
      .type = float(value_min=0, value_max=1)
      .help = "Of the cell's volume that is solvent, ordered water included. Auto: what the molecules of models and"
              "sequences leave, at 0.73 cm3/g of protein and 0.55 of nucleic acid; none if there are only formulae and"
              "elements."
    liquor = None
      .type = str
      .multiple = True
      .help = "Solute of the mother liquor: liquor='2.0 M (NH4)2SO4', liquor='50 mM NaCl', liquor='20 % C2H4O' (grams"
              "in 100 ml; C2H4O stands for polyethylene glycol). The rest is water."
    density = None
      .type = float(value_min=0.5, value_max=3)
      .help = "Of the mother liquor in g/cm3, which tells how much water is in it. If not given, a gram of solute takes"
              "the place of 0.8 cm3 of water if there is carbon in it, and of 0.4 if not."
  }
}
scattering
  .help = "What the atoms in the unit cell scatter."
{
  form_factors = *wk1995 it1992
    .type = choice
    .help = "Waasmaier & Kirfel (1995), to |q| = 12 / A, or International Tables C (1992), to |q| = 4 / A."
  anomalous = *sasaki henke none
    .type = choice
    .help = "Tables of f' and f'' at the wavelength. Where one does not reach, the other is taken."
  recoil_exponent = 2
    .type = int(value_min=0, value_max=3)
    .help = "n of the Breit-Dirac factor (E'/E)^n of incoherent scattering: 2 for detectors that count photons, 3 for"
            "those that collect energy (CCDs, image plates), 0 for none."
  sensor_response = True
    .type = bool
    .help = "Photons that recoil have less energy, and the sensor detects them the more: take it into account where the"
            "detector model tells the sensor's material and thickness."
}
"""
)
