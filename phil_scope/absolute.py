"""The absolute scale."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
include scope dials_diffuse.phil_scope.composition.phil_scope
absolute {
  method = *krogh_moe bragg wilson
    .type = choice
    .help = "Where the scale is taken from: the sum rule of Krogh-Moe and Norman on the total scattering; comparison "
            "of the Bragg intensities with calculated ones (check.model, check.reflections); Wilson's plot. The others "
            "are checks."
  factor = None
    .type = float(value_min=0)
    .help = "A known factor, electrons^2 per unit cell for a photon / (s sr), instead of one that is found."
  per = *unit_cell asymmetric_unit formula
    .type = choice
    .help = "What the intensities are of: the contents of a unit cell, of an asymmetric unit, or of one of "
            "absolute.formula_units."
  formula_units = None
    .type = int(value_min=1)
    .help = "In the unit cell, for per=formula."
  n_shells = 40
    .type = int(value_min=4)
    .help = "Shells of |q|, equally thick, up to the resolution of the data."
  d_max = 4
    .type = float(value_min=0)
    .help = "The integral over the sphere begins here, in Angstrom. Further in, Bragg intensities depend on the shapes "
            "of molecules and on solvent; and the beam stop is there."
  d_min = None
    .type = float(value_min=0)
    .help = "The last cutoff in Angstrom; that of the data if not given."
  completeness = 0.02
    .type = float(value_min=0, value_max=1)
    .help = "Shells of which a smaller part was measured, of voxels or of Bragg reflections, count as empty."
  interference = Auto
    .type = bool
    .help = "Take into account how bonded atoms interfere: by distances in composition.model if there are hydrogens in "
            "it, or no protein; otherwise by those of an average protein, and of water. It changes the scale of "
            "proteins by 5 to 15 %. Auto: if any of these is known; not for formulae and elements."
  b_factor = None
    .type = float(value_min=0)
    .help = "If there are no integrated reflections: B in A^2. The Bragg intensities are then those of the ordered "
            "atoms, sum f^2 exp(-B q^2 / 2)."
}
check {
  model = None
    .type = path
    .help = "PDB or mmCIF file of the crystal's structure, whose |F|^2 (with bulk solvent) are compared with the Bragg "
            "intensities. The first composition.model if not given."
  reflections = None
    .type = path
    .help = "File of calculated structure factors in electrons (MTZ, CIF, ...) to compare with."
  label = None
    .type = str
    .help = "Part of its column's label, where the file has several."
}
""",
    process_includes=True,
)
