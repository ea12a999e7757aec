"""What the statistics foretell, held against the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import observation_data
import pytest
from dials.array_family import flex

from dials_diffuse.algorithms.merging.correlations import correlation
from dials_diffuse.algorithms.merging.merge import merge
from dials_diffuse.algorithms.merging.scatter import scatter
from dials_diffuse.algorithms.scaling.expectation import merge_voxels
from dials_diffuse.algorithms.scaling.observations import scaled_observations
from dials_diffuse.command_line.diffuse_merge import phil_scope


def scaled(level, **kwargs):
    dataset, truth = observation_data.make_dataset(level, **kwargs)
    observation_data.put_scales(dataset.observations, truth.b)
    return dataset, truth


def isotropic_part(truth, index):
    """Mean of the true intensity at |q| of voxels: the formula without its texture, on average."""
    h, k, l = (np.asarray(index) / 2).T
    q2 = (h**2 + k**2) / observation_data.A**2 + (l / observation_data.C) ** 2
    envelope = np.exp(-6 * q2)
    bins = np.minimum((np.sqrt(q2) * 2.2 * 20).astype(int), 19)
    ratio = np.bincount(bins, truth(index) / envelope) / np.maximum(np.bincount(bins), 1)
    return envelope * ratio[bins]


@pytest.mark.parametrize("level,background,seeds", [(1, 0.3, 1), (0.3, 0.3, 2), (0.05, 0.3, 5)])
def test_cc_half_predicts_the_correlation_with_the_truth(level, background, seeds):
    """sqrt(2 CC / (1 + CC)) within 0.01 in every shell with CC1/2 > 0.3, total and isotropic part subtracted.

    Means over some data sets, where the few voxels of these (1500 a shell) are not enough to tell.
    """
    params = phil_scope.extract()
    params.merging.n_shells = 3
    differences = {"cc_half": [], "cc_half_anisotropic": []}
    held = {name: 0 for name in differences}
    for seed in range(seeds):
        dataset, truth = scaled(level, background=background, seed=seed)
        merged = merge(dataset, params)
        true = truth(merged.index)
        mean = isotropic_part(truth, merged.index)
        q = dataset.grid.q(merged.index)
        for name, isotropic in (("cc_half", 0 * mean), ("cc_half_anisotropic", mean)):
            row = []
            for shell in merged.statistics.shells:
                chosen = (q > 1 / shell.d_max) & (q <= 1 / shell.d_min) & (merged.multiplicity > 1)
                found = np.corrcoef((merged.intensity - isotropic)[chosen], (true - isotropic)[chosen])[0, 1]
                predicted, low, high = shell.correlations[name].with_truth()
                held[name] += low <= found <= high
                row.append(predicted - found if shell.correlations[name].value > 0.3 else np.nan)
            differences[name].append(row)
    for name, rows in differences.items():
        assert held[name] >= 0.8 * 3 * seeds
        means = np.mean(rows, axis=0)
        assert np.nanmax(np.abs(means), initial=0) < 0.01, (name, means)
        assert np.isfinite(means).any()


def test_it_is_the_correlation_of_the_half_maps():
    dataset, _ = scaled(0.3)
    params = phil_scope.extract()
    merged = merge(dataset, params)
    both = np.isfinite(merged.half_1 + merged.half_2)
    assert both.mean() > 0.98
    of_maps = np.corrcoef(merged.half_1[both], merged.half_2[both])[0, 1]
    assert merged.statistics.overall.cc_half == pytest.approx(of_maps, abs=0.02)


def test_multiplicity_curve():
    """CC1/2 of 1, 2, 4, 8 sweeps is what counting statistics make of the true intensities: t / (t + 2 s)."""
    dataset, truth = scaled(0.1, sweeps=8, n_frames=60, samples=40)
    everything = scaled_observations(dataset)
    in_first = everything.sum((everything.experiment == 0).astype(int))
    everything = everything.select(everything.spread(in_first > 2))  # the same voxels for any number of sweeps
    curve, expected = [], []
    for sweeps in (1, 2, 4, 8):
        observations = everything.select(everything.experiment < sweeps)
        q = dataset.grid.q(observations.voxels)
        whole = merge_voxels(observations, q)
        found = scatter(observations, q, whole, np.arange(len(observations.rows)))
        curve.append(correlation(whole.intensity, found.variance))
        true = truth(observations.voxels)
        u, weight = observations.response, 1 / observations.variance(whole.prior.mean_at(q))
        information = observations.sum(weight * u**2)
        s = (observations.sum((weight * u) ** 2 * observations.variance(true)) / information**2).mean()
        expected.append(true.var() / (true.var() + 2 * s))
    values = [cc.value for cc in curve]
    assert values[0] < 0.6 < 0.8 < values[3]
    assert values == sorted(values)
    assert [cc.low <= wanted <= cc.high for cc, wanted in zip(curve, expected)].count(True) >= 3
    np.testing.assert_allclose(values, expected, atol=0.03)


def test_what_is_wrong_shows_in_its_kind_of_groups():
    """One sweep's scale off by 15 %; Friedel mates that differ: chi-squared and CC of that kind alone tell."""
    dataset, truth = scaled(3, sweeps=4, samples=30)
    params = phil_scope.extract()
    right = merge(dataset, params).statistics.overall
    for agreement in right.agreements.values():
        assert agreement.chi_squared == pytest.approx(1, abs=0.06)
        assert agreement.r_meas == pytest.approx(agreement.r_meas_expected, rel=0.03)

    table = dataset.observations
    factor = np.where(np.array(table["id"]) == 1, 1.15, 1.0)
    table["inverse_scale_factor"] = flex.double(np.array(table["inverse_scale_factor"]) * factor)
    off = merge(dataset, params).statistics.overall
    assert off.agreements["sweep"].chi_squared > 1.5 * off.agreements["observation"].chi_squared > 1.5
    assert off.cc("sweep") < right.cc("sweep") - 0.02


def test_friedel_mates_apart(caplog):
    """Voxels of one hand are 1.3 times as bright."""
    dataset, truth = scaled(1)
    table = dataset.observations
    own = np.array(list(table["miller_index"]))
    own[~dataset.grid.contains(own)] = 0
    other = (replace(dataset.grid, friedel_apart=True).map_to_asu(own) != dataset.grid.map_to_asu(own)).any(axis=1)
    expected = np.array(table["response"]) * truth.b * truth.intensity * np.where(other, 1.3, 1)
    background = np.array(table["background.sum.value"])
    table["counts"] = flex.double(np.random.default_rng(1).poisson(expected + background).astype(float))
    params = phil_scope.extract()
    with caplog.at_level("WARNING"):
        together = merge(dataset, params)
    overall = together.statistics.overall
    assert overall.agreements["friedel"].chi_squared > 3
    assert overall.cc("friedel") < overall.correlations["cc_observation"].value - 0.1
    assert "Friedel mates differ by more than their errors" in caplog.text
    params.merging.friedel = "apart"
    apart = merge(dataset, params)
    assert apart.grid.friedel_apart and not together.grid.friedel_apart
    assert "friedel" not in apart.statistics.overall.agreements
    assert apart.statistics.overall.chi_squared == pytest.approx(1, abs=0.03)
    assert 0.9 < apart.statistics.overall.completeness <= 1
    assert len(apart.index) > 1.7 * len(together.index)
    assert apart.multiplicity.sum() == together.multiplicity.sum()
    other = (apart.index != dataset.grid.map_to_asu(apart.index)).any(axis=1)
    true = truth(apart.index) * np.where(other, 1.3, 1)
    assert np.mean((apart.intensity - true) ** 2 / apart.variance) == pytest.approx(1, abs=0.06)
