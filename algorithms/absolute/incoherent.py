"""Incoherent (Compton) scattering."""

from __future__ import annotations

import numpy as np
from cctbx.eltbx import attenuation_coefficient
from dials.util import Sorry

from dials_diffuse.algorithms.absolute.form_factors import form_factor
from dials_diffuse.algorithms.absolute.formula import atomic_number, element
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory

COMPTON_WAVELENGTH = 0.02426310  # h / (m c) in A, CODATA 2018
LOWEST_STOL = 0.005  # sin(theta)/lambda in 1/A at which Hubbell's table begins


def incoherent_function(label: str, q: np.ndarray, table: str = "wk1995") -> np.ndarray:
    """Return the incoherent scattering function S(q) of an atom, in electrons: 0 at q = 0, Z at large q.

    Hubbell et al. (1975) J. Phys. Chem. Ref. Data 4, 471, through xraylib (Schoonjans et al. (2011) Spectrochim. Acta
    B66, 776); below its first point S grows as q^2. Hydrogen has one electron, so that S = 1 - f^2
    exactly, with the f of its coherent scattering. Ions scatter as their atoms.

    Parameters
    ----------
    label
        cctbx's scattering type, such as ``C`` or ``O2-``.
    q
        1/d in 1/A (twice sin(theta)/lambda), any shape.
    table
        Of the form factor of hydrogen.

    Returns
    -------
    ndarray
        Of the shape of ``q``.
    """
    try:
        import xraylib_np  # 20 MB: only for those who need it
    except ImportError:
        raise Sorry(
            "Incoherent scattering needs xraylib: pip install xraylib, conda install -c conda-forge xraylib or apt-get "
            "install python3-xraylib."
        ) from None
    q = np.asarray(q, dtype=float)
    if element(label) in ("H", "D"):
        return 1 - np.minimum(form_factor(label, q, table), 1) ** 2
    stol = q.ravel() / 2
    known = np.ascontiguousarray(np.maximum(stol, LOWEST_STOL))
    value = xraylib_np.SF_Compt(np.array([atomic_number(label)]), known)[0]
    return (value * np.minimum(stol / LOWEST_STOL, 1) ** 2).reshape(q.shape)


def recoil(q: np.ndarray, wavelength: float) -> np.ndarray:
    """Return the energy of Compton-scattered photons over that of the beam.

    k = 1 / (1 + (lambda_C / lambda) (1 - cos 2 theta)), Compton (1923) Phys. Rev. 21, 483; 1 - cos 2 theta is
    lambda^2 q^2 / 2.

    Parameters
    ----------
    q
        1/d in 1/A, any shape.
    wavelength
        Of the beam, in A.
    """
    return 1 / (1 + COMPTON_WAVELENGTH * wavelength * np.asarray(q, dtype=float) ** 2 / 2)


def sensor_response(ratio: np.ndarray, wavelength: float, material: str, thickness: float) -> np.ndarray:
    """Return the efficiency of a sensor for photons of a lower energy over that for the beam's, at normal incidence.

    E = 1 - exp(-mu t0), with mu of `cctbx.eltbx.attenuation_coefficient` (Hubbell & Seltzer (1995) NISTIR 5632).

    Parameters
    ----------
    ratio
        Energy of the photons over the beam's (see `recoil`), any shape.
    wavelength
        Of the beam, in A.
    material
        As dxtbx's detector model names it: ``Si``, ``CdTe``, ...
    thickness
        In mm.
    """
    mu = attenuation_coefficient.get_table(material).mu_at_angstrom
    energies = np.linspace(min(np.min(ratio), 0.999), 1, 50)  # mu is smooth here, and asked for one by one
    depth = np.array([mu(wavelength / energy) for energy in energies]) / 10 * thickness  # mu is in 1/cm
    efficiency = -np.expm1(-depth)
    return np.interp(ratio, energies, efficiency / efficiency[-1])


def incoherent_intensity(
    inventory: UnitCellInventory,
    q: np.ndarray,
    wavelength: float | None = None,
    recoil_exponent: int = 2,
    sensor: tuple[str, float] | None = None,
    table: str = "wk1995",
) -> np.ndarray:
    """Return the incoherent scattering of a unit cell as a detector sees it, k^n E(k)/E(1) sum_j n_j S_j(q).

    Parameters
    ----------
    inventory
        What is in the unit cell.
    q
        1/d in 1/A (twice sin(theta)/lambda), any shape.
    wavelength
        In A; without it there is no recoil and no shift (k = 1).
    recoil_exponent
        n of the Breit-Dirac factor: 2 for photons counted, 3 for energy deposited (CCDs, image plates), 0 for none.
        Klein & Nishina (1929) Z. Phys. 52, 853; what they have besides is below 0.1 % here.
    sensor
        Material and thickness in mm: the data were divided by the sensor's efficiency for the beam's energy, and recoil
        photons are detected more often. Without it the efficiency is taken as the same.
    table
        Of form factors, for hydrogen.

    Returns
    -------
    ndarray
        Electrons squared per unit cell, of the shape of ``q``.
    """
    total = sum(number * incoherent_function(label, q, table) for label, number in inventory.numbers.items())
    if wavelength:
        ratio = recoil(q, wavelength)
        total *= ratio**recoil_exponent
        if sensor:
            total *= sensor_response(ratio, wavelength, *sensor)
    return total
