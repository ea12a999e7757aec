from __future__ import annotations

import numpy as np
import observation_data
import pytest

from dials_diffuse.algorithms.merging.merge import merge
from dials_diffuse.command_line.diffuse_merge import phil_scope


def scaled(level, **kwargs):
    """Observations with their true scales."""
    dataset, truth = observation_data.make_dataset(level, **kwargs)
    observation_data.put_scales(dataset.observations, truth.b)
    return dataset, truth


@pytest.mark.parametrize(
    "level,pixels,background,limits",
    [(1, 40, 0.3, (0.95, 1.05)), (0.05, 40, 0.3, (0.9, 1.1)), (0.05, 5, 0.3, (0.9, 1.1)), (0.05, 20, 4, (0.9, 1.1))],
)
def test_map_against_the_truth(level, pixels, background, limits):
    ratio, chi_squared = [], []
    for seed in range(3):
        dataset, truth = scaled(level, pixels=pixels, background=background, seed=seed)
        merged = merge(dataset, phil_scope.extract())
        intensity = truth(merged.index)
        ratio.append(np.average(merged.intensity, weights=merged.pixels) / np.average(intensity, weights=merged.pixels))
        chi_squared.append(np.mean((merged.intensity - intensity) ** 2 / merged.variance))
    photons = 3 * np.sum(np.array(dataset.observations["counts"]))
    assert np.mean(ratio) == pytest.approx(1, abs=max(0.01, 4 / np.sqrt(photons)))
    assert limits[0] < np.mean(chi_squared) < limits[1]


def test_bookkeeping():
    dataset, _ = scaled(0.05)
    merged = merge(dataset, phil_scope.extract())
    table = dataset.observations
    inside = dataset.grid.contains(np.array(list(table["miller_index"])))
    assert merged.multiplicity.sum() == inside.sum()
    assert merged.pixels.sum() == np.array(table["num_pixels.valid"])[inside].sum()
    assert (dataset.grid.map_to_asu(merged.index) == merged.index).all()
    assert len(np.unique(merged.index, axis=0)) == len(merged.index)
    table = merged.as_reflections()
    assert set(table.keys()) == {
        "miller_index",
        "d",
        "intensity.scale.value",
        "intensity.scale.variance",
        "multiplicity",
        "num_pixels.valid",
        "half_1.value",
        "half_1.variance",
        "half_2.value",
        "half_2.variance",
    }
    supercell = dataset.grid.supercell
    for row in (5, 500):
        assert table["d"][row] == pytest.approx(supercell.d(table["miller_index"][row]))
    assert (np.isfinite(merged.intensity) & (merged.variance > 0)).all()


def test_halves_depend_on_the_seed_alone():
    dataset, _ = scaled(0.05)
    params = phil_scope.extract()
    first, again = merge(dataset, params), merge(dataset, params)
    np.testing.assert_array_equal(first.half_1, again.half_1)
    params.merging.seed = 1
    other = merge(dataset, params)
    assert not np.array_equal(first.half_1, other.half_1, equal_nan=True)
    np.testing.assert_array_equal(first.intensity, other.intensity)


def test_isotropic_scattering_has_no_anisotropic_correlation(monkeypatch):
    def isotropic(self, index, ndiv=2):
        h, k, l = (np.asarray(index) / ndiv).T
        return self.level * np.exp(-6 * ((h**2 + k**2) / observation_data.A**2 + (l / observation_data.C) ** 2))

    monkeypatch.setattr(observation_data.Truth, "__call__", isotropic)
    overall = merge(scaled(1)[0], phil_scope.extract()).statistics.overall
    assert overall.cc_half > 0.9
    assert abs(overall.cc_half_anisotropic) < 0.06
    assert abs(overall.cc("laue")) < 0.06
    assert overall.correlations["cc_half_anisotropic"].probability > 1e-3


def test_a_wrong_laue_group_shows(monkeypatch):
    """Intensities without the fourfold axis: random halves agree, symmetry mates do not."""

    def twofold(self, index, ndiv=2):
        h, k, l = (np.asarray(index) / ndiv).T
        return self.level * (1 + 0.4 * np.sin(2 * (np.abs(h) - np.abs(k))))

    monkeypatch.setattr(observation_data.Truth, "__call__", twofold)
    overall = merge(scaled(1)[0], phil_scope.extract()).statistics.overall
    assert overall.cc("laue") < 0.5 * overall.cc_half_anisotropic
