from __future__ import annotations

import numpy as np
import pytest
from cctbx import crystal, uctbx, xray
from cctbx.array_family import flex
from dxtbx import flumpy

from dials_diffuse.algorithms.absolute.form_factors import anomalous_scattering, coherent_intensity, form_factor
from dials_diffuse.algorithms.absolute.inventory import UnitCellInventory

CELL = uctbx.unit_cell((20, 25, 30, 80, 95, 100))


def structure(labels, sites, wavelength, form_factors, anomalous):
    """A structure of atoms at rest in P 1."""
    scatterers = [xray.scatterer(label, site=tuple(site), u=0) for label, site in zip(labels, sites)]
    for scatterer, label in zip(scatterers, labels):
        scatterer.scattering_type = label
    it = xray.structure(crystal_symmetry=crystal.symmetry(CELL, "P1"), scatterers=flex.xray_scatterer(scatterers))
    it.scattering_type_registry(table=form_factors)
    if anomalous:
        it.set_inelastic_form_factors(wavelength, anomalous)
    return it


@pytest.mark.parametrize("label", ["H", "C", "O2-", "S", "Zn", "Se", "I"])
@pytest.mark.parametrize("form_factors", ["wk1995", "it1992"])
@pytest.mark.parametrize("anomalous", ["sasaki", None])
def test_one_atom_scatters_its_structure_factor(label, form_factors, anomalous):
    """cctbx's |F|^2 of one atom in the cell is the coherent intensity, at every index."""
    it = structure([label], [(0.1, 0.2, 0.3)], 0.9793, form_factors, anomalous)
    calculated = it.structure_factors(d_min=1.5, algorithm="direct", anomalous_flag=True).f_calc()
    inventory = UnitCellInventory.from_elements({label: 1}, CELL)
    q = flumpy.to_numpy(1 / calculated.d_spacings().data())
    wanted = np.abs(flumpy.to_numpy(calculated.data())) ** 2
    ours = coherent_intensity(inventory, q, 0.9793 if anomalous else None, form_factors)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4)  # the Se edge is steep, hc rounded


def test_the_mean_intensity_of_many_atoms():
    """Wilson: atoms at random places scatter the sum of squares on average, within the error of that mean."""
    labels = ["C"] * 60 + ["H"] * 100 + ["O"] * 40 + ["S"] * 4 + ["Se"]
    sites = np.random.default_rng(0).random((len(labels), 3))
    it = structure(labels, sites, 0.9793, "wk1995", "sasaki")
    calculated = it.structure_factors(d_min=1.0, algorithm="direct", anomalous_flag=True).f_calc()
    q = flumpy.to_numpy(1 / calculated.d_spacings().data())
    inventory = UnitCellInventory.from_formula("C60 H100 O40 S4 Se", CELL)
    ratio = np.abs(flumpy.to_numpy(calculated.data())) ** 2 / coherent_intensity(inventory, q, 0.9793)
    ratio = ratio[q > 0.3]
    assert ratio.mean() == pytest.approx(1, abs=3 * ratio.std() / np.sqrt(len(ratio) / 2))  # Friedel mates are alike
    assert len(ratio) > 50_000


def test_limits_and_shapes():
    inventory = UnitCellInventory.from_formula("C613H951N193O185S10", CELL)
    at_rest = sum(number * z**2 for number, z in ((613, 6), (951, 1), (193, 7), (185, 8), (10, 16)))
    assert float(coherent_intensity(inventory, 0.0)) == pytest.approx(at_rest, rel=2e-3)
    q = np.linspace(0, 2, 12).reshape(3, 4)
    assert coherent_intensity(inventory, q).shape == (3, 4)
    assert np.all(np.diff(coherent_intensity(inventory, q).ravel()) < 0)
    assert coherent_intensity(inventory, q[::2, ::3]).shape == (2, 2)
    np.testing.assert_allclose(form_factor("C", q, "wk1995"), form_factor("C", q, "it1992"), atol=0.02)


def test_anomalous_scattering():
    """International Tables C (1992), table 4.2.6.8: Cu K alpha 1, and the wavelength of the Se edge."""
    sulphur = anomalous_scattering("S", 1.54056)
    assert sulphur.real == pytest.approx(0.333, abs=0.02) and sulphur.imag == pytest.approx(0.557, abs=0.01)
    assert anomalous_scattering("Se", 0.9793).real < -7
    assert anomalous_scattering("H", 1.0) == 0
    assert anomalous_scattering("Na1+", 1.0) == anomalous_scattering("Na", 1.0)
    assert anomalous_scattering("S", 3.5).imag > 2  # out of Sasaki's range, in Henke's
    assert anomalous_scattering("S", 1.0, "none") == 0
    assert abs(anomalous_scattering("S", 1.0, "henke") - anomalous_scattering("S", 1.0)) < 0.03
