"""What the atoms of the unit cell scatter: a simulation in absolute units, electrons squared per unit cell.

On average over a shell of |q|, Bragg peaks (|F|^2 / V each) and coherent diffuse scattering together are the sum of f^2
over all atoms: the ordered ones scatter sum f^2 exp(-B q^2/2) into the peaks and the rest between them, the solvent
everything between them. Incoherent scattering comes on top.

Sums are written here anew, with other tables of form factors than those by which data are put on the absolute scale:
International Tables C (1992), section 6.1.1, and f', f'' of Henke, Gullikson & Davis (1993) At. Data Nucl. Data Tables
54, 181. Of incoherent scattering there is one table.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

import libtbx.phil
import numpy as np
from cctbx.eltbx import henke, tiny_pse, xray_scattering
from dials.util import Sorry

from dials_diffuse.algorithms.absolute.incoherent import incoherent_function

#: h / (m c), Angstrom.
COMPTON = 0.0242631


class Atoms:
    """The contents of the simulated unit cell.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Of the simulation, ``absolute.crystal`` not None.
    """

    def __init__(self, params: libtbx.phil.scope_extract) -> None:
        self.ordered = read_formula(params.absolute.crystal)
        self.solvent = read_formula(params.absolute.solvent or "")
        self.wavelength = params.beam.wavelength
        self.b_factor = params.bragg.b_factor

    @cached_property
    def all(self) -> Counter[str]:
        """Numbers of all atoms, by element."""
        return self.ordered + self.solvent

    def bragg(self, q: np.ndarray) -> np.ndarray:
        """Mean |F|^2 of general reflections of a primitive lattice at |q| in 1/A, same shape."""
        return self._sum_of_squares(self.ordered, q) * np.exp(-self.b_factor * q**2 / 2)

    def diffuse(self, q: np.ndarray) -> np.ndarray:
        """Mean coherent diffuse intensity, electrons^2 per unit cell."""
        return self._sum_of_squares(self.all, q) - self.bragg(q)

    def incoherent(self, q: np.ndarray) -> np.ndarray:
        """Incoherent intensity in electrons^2 per unit cell, with the loss of photons by recoil (Breit-Dirac)."""
        photon_energy = 1 / (1 + COMPTON * self.wavelength * q**2 / 2)
        return photon_energy**2 * sum(n * incoherent_function(element, q) for element, n in self.all.items())

    def _sum_of_squares(self, numbers: Counter[str], q: np.ndarray) -> np.ndarray:
        total = np.zeros(np.shape(q))
        for element, number in numbers.items():
            gaussians = xray_scattering.it1992(element).fetch()
            a, b = (np.array(values) for values in (gaussians.array_of_a(), gaussians.array_of_b()))
            f = gaussians.c() + np.exp(-np.multiply.outer(np.square(q) / 4, b)) @ a
            anomalous = henke.table(element).at_angstrom(self.wavelength)
            total += number * ((f + anomalous.fp()) ** 2 + anomalous.fdp() ** 2)
        return total


def read_formula(formula: str) -> Counter[str]:
    """Numbers of atoms by element, of a formula such as C640N160 O200S4.

    Raises
    ------
    Sorry
        If it is none.
    """
    found: Counter[str] = Counter()
    if re.sub(r"([A-Z][a-z]?)(\d*\.?\d*)|[\s,]", "", formula):
        raise Sorry(f"{formula} is no chemical formula: write it as C640 N160 O200 S4.")
    for element, number in re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", formula):
        try:
            tiny_pse.table(element, True)
        except RuntimeError as error:
            raise Sorry(f"There is no element {element} (in {formula}).") from error
        found[element] += float(number or 1)
    return found
