"""The part of the photons that air between crystal and detector lets through."""

from __future__ import annotations

import libtbx.phil
import numpy as np
from cctbx import factor_ev_angstrom
from cctbx.eltbx import attenuation_coefficient, tiny_pse
from dials.util import Sorry
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.model import CorrectionModel

#: J / (mol K), CODATA 2018.
GAS_CONSTANT = 8.314462618


class AirAttenuation(CorrectionModel):
    """Transmission of the gas between crystal and detector, A = exp(-mu path), without unit.

    mu = (p / R T) sum of x_i M_i (mu/rho)_i: mole fractions x_i, molar masses M_i, density by the ideal gas law, and
    NIST's mass attenuation coefficients (Hubbell & Seltzer, NISTIR 5632) from cctbx.eltbx.attenuation_coefficient.
    """

    name = "air_attenuation"
    same_on_all_frames = True
    phil_scope = parse(
        """
  use = True
    .type = bool
    .help = "Divide by the transmission of the air between crystal and detector. Switch it off for a detector in"
            "vacuum."
  composition = N2:0.7808 O2:0.2095 Ar:0.0093 CO2:0.0004
    .type = strings
    .help = "Gases and their mole fractions (they are normalised to 1); He:1 for a helium-filled path."
  pressure = 101325
    .type = float(value_min=0)
    .help = "Pressure in Pa."
  temperature = 293.15
    .type = float(value_min=1)
    .help = "Temperature in K."
  path = None
    .type = float(value_min=0)
    .help = "Length of the way through the gas in mm, the same for all pixels, e.g. what a flight tube leaves. The"
            "distance from the crystal to each pixel if not given."
"""
    )

    def __init__(self, params: libtbx.phil.scope_extract) -> None:
        super().__init__(params)
        self._composition = parse_composition(params.composition)

    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        path = geometry.distance if self.params.path is None else np.full(len(geometry.xyz), self.params.path)
        return np.exp(-self.coefficient(geometry.beam.get_wavelength()) * path)

    def coefficient(self, wavelength: float) -> float:
        """Attenuation coefficient of the gas in 1/mm at a wavelength in Angstrom.

        Raises
        ------
        Sorry
            If the tables do not reach this wavelength.
        """
        energy = factor_ev_angstrom / wavelength
        try:
            molar = sum(
                fraction * count * tiny_pse.table(symbol).weight() * _mass_attenuation(symbol, energy)
                for formula, fraction in self._composition.items()
                for symbol, count in attenuation_coefficient.chemlex(formula)
            )  # cm^2 / mol
        except RuntimeError as error:  # an assertion of the table
            raise Sorry(
                f"There is no attenuation coefficient of air at {wavelength:.4f} A: switch this correction off with "
                "correction.air_attenuation.use=False."
            ) from error
        moles = self.params.pressure / (GAS_CONSTANT * self.params.temperature) * 1e-6  # per cm^3
        return molar * moles / 10


def parse_composition(items: list[str]) -> dict[str, float]:
    """Mole fractions by chemical formula, normalised to 1, from ``["N2:0.78", "O2:0.22"]``.

    Raises
    ------
    Sorry
        If an item is not a formula of known elements, a colon and a positive number.
    """
    composition = {}
    for item in items:
        formula, _, fraction = item.partition(":")
        try:
            for symbol, _ in attenuation_coefficient.chemlex(formula):
                attenuation_coefficient.get_table(symbol)
            composition[formula] = float(fraction)
        except (ValueError, RuntimeError, KeyError, TypeError):
            composition[formula] = np.nan
        if not (formula and composition[formula] > 0):
            raise Sorry(
                f"correction.air_attenuation.composition={item} is not a chemical formula and a mole fraction: write, "
                "for example, N2:0.78 O2:0.21 Ar:0.01."
            )
    total = sum(composition.values())
    return {formula: fraction / total for formula, fraction in composition.items()}


def _mass_attenuation(symbol: str, energy: float) -> float:
    """Mass attenuation coefficient of an element in cm^2 / g at an energy in eV."""
    return attenuation_coefficient.get_table(symbol).mu_rho_at_ev(energy)
