"""What free atoms scatter coherently."""

from __future__ import annotations

import numpy as np
from cctbx.array_family import flex
from cctbx.eltbx import henke, sasaki, xray_scattering
from dxtbx import flumpy

from dials_diffuse.algorithms.absolute.formula import element
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory

FORM_FACTORS = {"wk1995": xray_scattering.wk1995, "it1992": xray_scattering.it1992}
ANOMALOUS = {"sasaki": (sasaki, henke), "henke": (henke, sasaki), "none": ()}


def form_factor(label: str, q: np.ndarray, table: str = "wk1995") -> np.ndarray:
    """Return the form factor f0(q) of an atom or ion at rest, in electrons.

    Parameters
    ----------
    label
        cctbx's scattering type, such as ``C`` or ``O2-``. ``H`` is the bonded hydrogen of Stewart, Davidson & Simpson
        (1965) J. Chem. Phys. 42, 3175, as everywhere in cctbx.
    q
        1/d in 1/A (twice sin(theta)/lambda), any shape.
    table
        ``wk1995``: five Gaussians, Waasmaier & Kirfel (1995) Acta Cryst. A51, 416, to |q| = 12 / A; ``it1992``: four,
        International Tables C (1992), section 6.1.1, to |q| = 4 / A. Both are cctbx.eltbx.xray_scattering's.

    Returns
    -------
    ndarray
        Of the shape of ``q``.
    """
    q = np.asarray(q, dtype=float)
    gaussians = FORM_FACTORS[table](label, True).fetch()
    d_star_sq = flumpy.from_numpy(np.ascontiguousarray(q.ravel() ** 2))
    return flumpy.to_numpy(flex.double(gaussians.at_d_star_sq(d_star_sq))).reshape(q.shape)


def anomalous_scattering(label: str, wavelength: float, table: str = "sasaki") -> complex:
    """Return f' + i f'' of an element in electrons; zero of hydrogen, and where no table holds the wavelength.

    Parameters
    ----------
    label
        cctbx's scattering type.
    wavelength
        In A.
    table
        ``sasaki``: Sasaki (1989) KEK Report 88-14, fine steps at the edges, 0.1 to 2.9 A; ``henke``: Henke, Gullikson &
        Davis (1993) At. Data Nucl. Data Tables 54, 181, 10 to 30000 eV. Where one does not reach, the other is taken.
        ``none``: zero.
    """
    if element(label) in ("H", "D"):
        return 0j
    for module in ANOMALOUS[table]:
        try:
            values = module.table(element(label)).at_angstrom(wavelength)
        except ValueError:
            continue  # the table does not have the element
        if values.is_valid():
            return complex(values.fp(), values.fdp())
    return 0j


def coherent_intensity(
    inventory: UnitCellInventory,
    q: np.ndarray,
    wavelength: float | None = None,
    table: str = "wk1995",
    anomalous: str = "sasaki",
) -> np.ndarray:
    """Return what the atoms of a unit cell scatter coherently if each is alone, sum_j n_j |f0_j(q) + f'_j + i f''_j|^2.

    Bragg and diffuse scattering together oscillate about it, and fall to it where no two atoms keep their distance.

    Parameters
    ----------
    inventory
        What is in the unit cell.
    q
        1/d in 1/A (twice sin(theta)/lambda), any shape.
    wavelength
        In A, for f' and f''; without it they are zero.
    table, anomalous
        See `form_factor` and `anomalous_scattering`.

    Returns
    -------
    ndarray
        Electrons squared per unit cell, of the shape of ``q``.
    """
    q = np.asarray(q, dtype=float)
    total = np.zeros(q.shape)
    for label, number in inventory.numbers.items():
        correction = anomalous_scattering(label, wavelength, anomalous) if wavelength else 0j
        total += number * ((form_factor(label, q, table) + correction.real) ** 2 + correction.imag**2)
    return total
