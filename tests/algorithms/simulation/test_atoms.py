from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from iotbx.phil import parse

from dials_diffuse.algorithms.simulation.atoms import read_formula
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.phil_scope.simulate import phil_scope

SETTINGS = (
    "frames=4 sweeps=1 detector.model=custom detector.image_size=120,100 detector.distance=20 "
    "absolute.crystal=C1600N420O480S8 absolute.solvent=O900H1800 "
)


def make_truth(settings: str = "") -> Truth:
    return Truth(phil_scope.fetch(parse("\n".join((SETTINGS + settings).split()))).extract())


@pytest.fixture(
    scope="module", params=["P212121 39.5,45.2,51.3,90,90,90", "C2 60,45,40,90,104,90", "I23 50,50,50,90,90,90"]
)
def truth(request):
    symbol, cell = request.param.split()
    return make_truth(f"crystal.space_group={symbol} crystal.unit_cell={cell}")


def test_peaks_hold_what_ordered_atoms_scatter(truth):
    """The sum of the integrals over a shell, against its volume times the mean, whatever the centring."""
    model, q = truth._bragg, np.linalg.norm(truth._bragg.hkl @ truth._orthogonal.T, axis=1)
    low, high = 0.2, 0.5
    fine = np.linspace(low, high, 2001)
    expected = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    expected = expected(4 * np.pi * fine**2 * truth.atoms.bragg(fine), fine) * truth.scales["diffuse"]
    assert model.intensity[(q > low) & (q <= high)].sum() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("q", [0.15, 0.3, 0.55])
def test_mean_over_a_shell(truth, q):
    """Bragg and coherent diffuse scattering together are those of single atoms; the clouds have their contrast."""
    directions = np.random.RandomState(2).normal(size=(60000, 3))
    directions *= q / np.linalg.norm(directions, axis=1)[:, None]
    values = truth.diffuse(directions @ np.linalg.inv(truth._orthogonal).T) / truth.scales["diffuse"]
    at = np.array([q])
    atoms = truth.atoms
    assert values.mean() == pytest.approx((atoms.diffuse(at) + atoms.incoherent(at))[0], rel=0.01)
    assert values.std() / values.mean() > 0.3
    assert (atoms.bragg(at) + atoms.diffuse(at))[0] == pytest.approx(atoms._sum_of_squares(atoms.all, at)[0], rel=1e-12)
    assert 0 < atoms.bragg(at)[0] < atoms._sum_of_squares(atoms.ordered, at)[0]


def test_sum_of_squares():
    """Forward scattering: squares of electrons, and a little f'."""
    atoms = make_truth().atoms
    zero = np.array([1e-6])
    electrons = {"C": (1600, 6), "N": (420, 7), "O": (1380, 8), "S": (8, 16), "H": (1800, 1)}
    expected = sum(n * z**2 for n, z in electrons.values())
    assert atoms._sum_of_squares(atoms.all, zero)[0] == pytest.approx(expected, rel=6e-3)
    assert atoms.incoherent(zero)[0] == pytest.approx(0, abs=10)
    far = np.array([3.5])  # beyond the beam's reach, but all electrons recoil there
    total = sum(n * z for n, z in electrons.values())
    assert 0.5 * total < atoms.incoherent(far)[0] < total


def test_formula():
    assert read_formula("C2 H5OH O0.5") == {"C": 2, "H": 6, "O": 1.5}
    for wrong in ("2-propanol", "Xx4"):
        with pytest.raises(Sorry, match=wrong):
            read_formula(wrong)


def test_file_holds_the_contents(tmp_path):
    truth = make_truth()
    truth.templates = [str(tmp_path / "sweep_1_####.cbf")]
    truth.write(tmp_path / "truth.json")
    again = Truth.from_file(tmp_path / "truth.json")
    hkl = np.random.RandomState(0).uniform(-5, 5, (20, 3))
    np.testing.assert_array_equal(again.total(hkl), truth.total(hkl))
