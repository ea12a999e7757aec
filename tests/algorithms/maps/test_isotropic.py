from __future__ import annotations

import copy

import numpy as np
import pytest
from smooth_maps import all_voxels, grid_of, map_of, waves

from dials_diffuse.algorithms.maps.equivalents import representatives
from dials_diffuse.algorithms.maps.isotropic import isotropic, variational
from dials_diffuse.algorithms.maps.radial import low_percentiles, profile_of, radial_profile, shells_of
from dials_diffuse.parameters import parameters

MEAN = parameters("map").isotropic


def test_parts_sum_to_the_whole():
    whole = map_of(grid_of("P 41"), noise=1.0)
    parts = [operation(copy.deepcopy(whole), MEAN) for operation in (isotropic, variational)]
    assert np.array_equal(np.isnan(parts[0].intensity), np.isnan(whole.intensity))
    np.testing.assert_allclose(parts[0].intensity + parts[1].intensity, whole.intensity, atol=1e-5)
    q = whole.q()
    profile = radial_profile(whole, 20)
    rest = radial_profile(parts[1], 20)
    assert np.abs(rest.mean[3:]).max() < 0.1 * profile.deviation.mean()  # few voxels make a ragged profile
    assert np.ptp(parts[0].intensity[np.abs(q - 0.2) < 1e-4]) < 0.02
    assert (parts[1].intensity_errors[np.isfinite(whole.intensity)] == np.float32(0.1)).all()


def test_isotropic_map_has_no_variational_part():
    grid = grid_of("P 41 21 2")
    index = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0)
    smooth = 5 + 20 * np.exp(-30 * grid.q(index) ** 2)
    rest = variational(map_of(grid, smooth), MEAN)
    assert np.nanmax(np.abs(rest.intensity[rest.q() > 0.1])) < 0.05  # 0.2 %: what shells of finite width leave


def test_half_maps_lose_the_same():
    grid = grid_of("P 41")
    index = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0)
    half = {"half_1": waves(grid, index) + 1, "half_1_errors": np.ones(len(index))}
    rest = variational(map_of(grid, index=index, **half), MEAN)
    measured = np.isfinite(rest.intensity)
    np.testing.assert_allclose(rest.fields["half_1"][measured], rest.intensity[measured] + 1, atol=1e-5)
    assert "half_1" not in isotropic(rest, MEAN).fields


def test_errors_of_the_mean(tmp_path):
    """Scatter of the shell means over draws of noise, which mates have in common; and the table."""
    grid = grid_of("P 41 21 2", d_min=4.0)
    index = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0)
    random = np.random.default_rng(2)
    draws = []
    for _ in range(60):
        profile = radial_profile(map_of(grid, 10 + random.normal(size=len(index)) * 2, errors=2.0), 10)
        draws.append(profile.mean)
    assert np.std(draws, axis=0) / profile.error == pytest.approx(np.ones(len(profile.q)), abs=0.35)
    assert (np.std(draws, axis=0) / profile.error).mean() == pytest.approx(1, abs=0.1)
    assert profile.noise == pytest.approx(np.full(len(profile.q), 2.0))
    assert profile.voxels.sum() == np.isfinite(map_of(grid).intensity).sum()
    profile.write(tmp_path / "profile.csv")
    table = np.genfromtxt(tmp_path / "profile.csv", delimiter=",", names=True)
    assert table.dtype.names == ("q", "d", "mean", "mean_error", "standard_deviation", "rms_error", "voxels")
    assert table["mean"] == pytest.approx(profile.mean, rel=1e-5) and table["d"] == pytest.approx(
        1 / profile.q, rel=1e-5
    )


def test_minimum_without_noise_and_with():
    """The percentile of the true intensities is found under errors as large as their spread."""
    grid = grid_of("P 1", d_min=2.5)
    index = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0)
    random = np.random.default_rng(3)
    true = 10 + random.normal(size=len(index)) * 2
    for sigma in (1e-3, 2.0):
        noisy = map_of(grid, true + random.normal(size=len(index)) * sigma, errors=sigma)
        voxels = representatives(noisy)
        shells = shells_of(voxels.q, 5)
        found = low_percentiles(voxels, shells, profile_of(voxels, shells), 1.0)
        assert found[1:] == pytest.approx(np.full(4, 10 - 2.326 * 2), abs=0.6)
    params = parameters("map", "isotropic.kind=minimum", "isotropic.percentile=0").isotropic
    rest = variational(map_of(grid, true, errors=0.0, index=index), params)
    assert -1.5 < np.nanmin(rest.intensity) < 0.5  # interpolated between shells


def test_few_voxels_are_no_shell():
    shells = shells_of(np.array([0.1] * 30 + [0.2] * 3 + [0.3] * 30), 10)
    assert len(shells) == 2
    assert len(shells_of(np.array([0.1, 0.2]), 10)) == 1
