from __future__ import annotations

import numpy as np
import pytest
from cctbx import uctbx

from dials_diffuse.algorithms.absolute.form_factors import coherent_intensity, form_factor
from dials_diffuse.algorithms.absolute.incoherent import (
    incoherent_function,
    incoherent_intensity,
    recoil,
    sensor_response,
)
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory

CELL = uctbx.unit_cell((50, 50, 50, 90, 90, 90))
ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "Na": 11, "Mg": 12, "P": 15, "S": 16, "Cl": 17, "K": 19, "Ca": 20}
ELEMENTS |= {"Mn": 25, "Fe": 26, "Cu": 29, "Zn": 30, "Se": 34, "Br": 35, "Cd": 48, "I": 53, "Pt": 78, "U": 92}

# Hubbell et al. (1975), at sin(theta)/lambda = 0.02, 0.1, 0.3, 0.5, 1, 2 / A, as another program (LiquidDiffract
# 1.2.5) copied them from the paper.
HUBBELL = {
    "C": (0.0516, 1.04, 3.64, 4.47, 5.35, 5.93),
    "N": (0.0517, 1.08, 4.10, 5.18, 6.11, 6.86),
    "O": (0.0448, 0.977, 4.29, 5.83, 6.90, 7.76),
    "S": (0.114, 2.15, 6.80, 8.96, 12.4, 14.6),
    "Se": (0.152, 2.80, 9.60, 14.2, 22.0, 28.5),
    "I": (0.213, 3.90, 13.6, 19.8, 31.1, 40.8),
}

# Incoherent cross-sections of atoms at 12 keV in barn: Elam, Ravel & Sieber (2002) Radiat. Phys. Chem. 63, 121, as
# xraydb 4.5.8 gives them.
ELAM = {"C": 2.8471, "O": 3.6468, "S": 6.0937, "Ca": 7.3716, "Se": 10.0337, "I": 14.0889}


@pytest.mark.parametrize("label", HUBBELL)
def test_hubbells_table(label):
    q = 2 * np.array([0.02, 0.1, 0.3, 0.5, 1, 2])
    np.testing.assert_allclose(incoherent_function(label, q), HUBBELL[label], rtol=8e-3)


@pytest.mark.parametrize("label", ELAM)
def test_cross_sections(label):
    """S times Klein & Nishina's cross-section of a free electron, over the sphere, is the cross-section of the atom."""
    wavelength = 12.39842 / 12
    theta = np.linspace(1e-4, np.pi, 2001)
    q = 2 * np.sin(theta / 2) / wavelength
    ratio = recoil(q, wavelength)
    electron = 0.0794079 / 2 * ratio**2 * (ratio + 1 / ratio - np.sin(theta) ** 2)  # barn / sr
    integral = np.trapz if hasattr(np, "trapz") else np.trapezoid
    found = integral(electron * incoherent_function(label, q) * 2 * np.pi * np.sin(theta), theta)
    assert found == pytest.approx(ELAM[label], rel=0.01)


@pytest.mark.parametrize("label, z", ELEMENTS.items())
def test_limits(label, z):
    """S rises from 0 as q^2 to Z (Waller & Hartree (1929) Proc. R. Soc. A124, 119), and nowhere jumps."""
    q = np.geomspace(1e-4, 50, 3000)
    s = incoherent_function(label, q)
    assert incoherent_function(label, np.array([0.0])) == pytest.approx(0, abs=0.0015)
    assert np.all((s >= 0) & (s <= z * 1.00001)) and s[-1] > 0.99 * z
    assert np.all(np.diff(s) > -0.0005 * z)
    f = form_factor(label, q[q < 4])
    assert np.all(s[q < 4] <= z - f**2 / z + 2e-3 * z)  # their sum over electrons, and Cauchy & Schwarz
    if label != "H":
        small = q < 0.01
        np.testing.assert_allclose(s[small] / q[small] ** 2, s[small][-1] / q[small][-1] ** 2, rtol=1e-6)
        across = incoherent_function(label, np.array([0.0099, 0.0101]))
        assert across[1] - across[0] < 0.2 * across[0]


def test_one_electron_scatters_one_electron():
    """Of hydrogen, coherent and incoherent together are 1 at every angle, free or bonded."""
    hydrogen = UnitCellInventory.from_elements({"H": 5}, CELL)
    q = np.linspace(0, 3, 50).reshape(5, 10)
    for table in ("wk1995", "it1992"):
        total = coherent_intensity(hydrogen, q, table=table) + incoherent_intensity(hydrogen, q, table=table)
        np.testing.assert_allclose(total, 5, rtol=1e-3)
    deuterium = UnitCellInventory.from_elements({"D": 5}, CELL)
    np.testing.assert_allclose(incoherent_intensity(deuterium, q), incoherent_intensity(hydrogen, q))


def test_recoil():
    """At 90 degrees a photon's wavelength grows by 0.0243 A, whatever it was."""
    for wavelength in (0.5, 1.0, 2.0):
        q = np.sqrt(2) / wavelength
        assert wavelength / recoil(q, wavelength) == pytest.approx(wavelength + 0.0242631)
    inventory = UnitCellInventory.from_formula("H2O", CELL)
    q = np.linspace(0, 1, 5)
    plain = incoherent_intensity(inventory, q)
    np.testing.assert_allclose(incoherent_intensity(inventory, q, 1.0, recoil_exponent=0), plain)
    np.testing.assert_allclose(incoherent_intensity(inventory, q, 1.0), plain * recoil(q, 1.0) ** 2)
    np.testing.assert_allclose(incoherent_intensity(inventory, q, 1.0, 3), plain * recoil(q, 1.0) ** 3)


def test_the_sensor_sees_photons_of_less_energy_better():
    """Thin silicon absorbs about as the cube of the wavelength; a thick sensor of cadmium telluride all of them."""
    ratio = recoil(np.array([0.0, 0.5, 1.0]), 1.0)
    thin = sensor_response(ratio, 1.0, "Si", 0.001)
    np.testing.assert_allclose(thin, ratio**-2.9, rtol=3e-3)
    silicon = sensor_response(ratio, 1.0, "Si", 0.32)
    assert thin[2] > silicon[2] > 1 and silicon[0] == 1
    np.testing.assert_allclose(sensor_response(ratio, 1.0, "CdTe", 1.0), 1, atol=1e-4)

    water = UnitCellInventory.from_formula("H2O", CELL)
    q = np.array([0.0, 0.5, 1.0])
    with_sensor = incoherent_intensity(water, q, 1.0, sensor=("Si", 0.32))
    np.testing.assert_allclose(with_sensor, incoherent_intensity(water, q, 1.0) * silicon)
