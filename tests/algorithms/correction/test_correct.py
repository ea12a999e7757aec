"""The columns that correct() adds, on observations whose expected counts are known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from correction_data import GRID, flat_detector, make_dataset, make_experiment, tilted_detector, write_images
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model import Experiment

from dials_diffuse.algorithms.correction.combined import CombinedCorrection
from dials_diffuse.algorithms.correction.correct import correct, report
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.shells import radial_bins, radial_sums, shell_intensity
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.phil_scope.correct import phil_scope


def column(dataset, name):
    return flumpy.to_numpy(dataset.observations[name])


def intensity(q):
    return 3e5 * np.exp(-6 * q**2)


def expected_counts(counts, background, response, q, shells):
    bins = radial_bins(q, 1 / GRID.d_min)
    return shell_intensity(radial_sums(counts, background, response, bins), shells)[bins] * response + background


def test_response_is_exposure_times_factors_at_the_right_panel_and_experiment():
    dataset = make_dataset([make_experiment(0), make_experiment(1, tilted_detector(mu=1.0), exposure=0.3)], n=100)
    params = phil_scope.extract()
    assert correct(dataset, params) is dataset
    response, exposure = column(dataset, "response"), column(dataset, "exposure")
    ids, panels, xyz = column(dataset, "id"), column(dataset, "panel"), column(dataset, "xyzobs.px.value")
    assert set(exposure) == {2.5, 7.5}
    corrections = CombinedCorrection(params.correction)
    for row in range(0, len(ids), 7):
        geometry = PixelGeometry(dataset.experiments[int(ids[row])], int(panels[row]), xyz[row : row + 1])
        assert response[row] == pytest.approx(exposure[row] * corrections.factor(geometry)[0], rel=1e-7)
    assert np.all(column(dataset, "background.sum.value") == 0)


def test_a_still_needs_no_scan():
    model = make_experiment()
    still = Experiment(identifier="still", beam=model.beam, detector=model.detector, crystal=model.crystal)
    dataset = correct(make_dataset([still], n=10), phil_scope.extract())
    assert np.all(column(dataset, "response") > 0)


@pytest.mark.parametrize("level", [0.05, 1.0])
def test_intensity_is_unbiased_and_its_variance_calibrated(tmp_path, level):
    """Two sweeps with 0.05 or 1 photon a pixel, half of it background measured on few images of another exposure."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:150, :200]
    rate = level * (1 + 0.5 * x / 200 + 0.2 * y / 150)  # per pixel and second
    images = [rng.poisson(rate * 0.4) for _ in range(20)]
    background = write_images(tmp_path, images, exposure=0.4)
    background.as_json(str(tmp_path / "bkg.expt"))
    params = phil_scope.extract()
    params.background = [str(tmp_path / "bkg.expt")]
    params.correction.detector_efficiency.use = False
    experiments = [make_experiment(i, flat_detector(), exposure=1.0) for i in range(2)]
    dataset = make_dataset(experiments, n=20000, pixels=25)
    corrections = CombinedCorrection(params.correction)

    correct(dataset, params, corrections)  # for the response
    q = GRID.q(miller_index_to_numpy(dataset.observations["miller_index"]))
    truth = level / 0.05 * intensity(q) / 5
    g = column(dataset, "response")
    xyz = column(dataset, "xyzobs.px.value")
    true_background = rate[xyz[:, 1].astype(int), xyz[:, 0].astype(int)] * column(dataset, "exposure")
    counts = rng.poisson(g * truth + true_background).astype(float)
    dataset.observations["counts"] = flumpy.from_numpy(counts)
    correct(dataset, params, corrections)

    found, variance = column(dataset, "intensity.sum.value"), column(dataset, "intensity.sum.variance")
    assert np.allclose(found, (counts - column(dataset, "background.sum.value")) / g, rtol=1e-6)
    assert (g * truth).sum() == pytest.approx(true_background.sum(), rel=0.6)
    weight = 1 / variance
    bias = np.sum(weight * (found - truth)) / np.sum(weight * truth)
    assert abs(bias) < 0.01
    z = (found - truth) / np.sqrt(variance)
    assert np.mean(z**2) == pytest.approx(1, abs=0.03)
    # the variance knows nothing of the observation's own noise
    assert np.corrcoef(counts - g * truth - true_background, weight)[0, 1] == pytest.approx(0, abs=0.02)
    summary = report(dataset, corrections)
    assert [e["observations"] for e in summary["experiments"]] == [20000, 20000]
    assert sum(e["photons"] for e in summary["experiments"]) == counts.sum()
    assert sum(e["background"] for e in summary["experiments"]) == pytest.approx(true_background.sum(), rel=0.01)
    assert list(summary["corrections"]) == ["solid_angle", "polarisation", "air_attenuation"]


def test_observations_without_a_background_pixel_near_are_left_out(tmp_path, caplog):
    images = [np.ones((150, 200), dtype=int)]
    images[0][:, :60] = -5  # outside the trusted range
    write_images(tmp_path, images, exposure=1.0).as_json(str(tmp_path / "bkg.expt"))
    params = phil_scope.extract()
    params.background = [str(tmp_path / "bkg.expt")]
    dataset = correct(make_dataset([make_experiment(0, flat_detector())], n=1000), params)
    x = column(dataset, "xyzobs.px.value")[:, 0]
    assert 600 < len(x) < 900 and x.min() >= 50
    assert "left out" in caplog.text
    assert np.isfinite(column(dataset, "intensity.sum.value")).all()


def test_expected_counts_are_shell_means():
    rng = np.random.default_rng(4)
    q = rng.uniform(0.1, 0.5, 5000)
    g = rng.uniform(1, 3, 5000)
    b = rng.uniform(0, 1, 5000)
    counts = g * (10 - 8 * q) + b  # noise-free
    expected = expected_counts(counts, b, g, q, 20)
    assert np.allclose(expected, counts, rtol=0.03)
    assert np.allclose(expected_counts(counts, b, g, q, 1), g * np.sum(counts - b) / np.sum(g) + b)
    assert (expected_counts(np.zeros(50), b[:50], g[:50], q[:50], 20) > b[:50]).all()  # never zero, few observations


def test_shells_hold_equal_numbers_and_sums_do_not_depend_on_the_order():
    rng = np.random.default_rng(3)
    q = 0.5 * rng.random(60_000) ** (1 / 3)
    counts, g, b = rng.poisson(20, 60_000), *rng.uniform(1, 3, (2, 60_000)).astype(np.float32)
    bins = radial_bins(q, 0.5)
    sums = radial_sums(counts, b, g, bins)
    order = rng.permutation(60_000)
    halves = np.array_split(order, 2)
    again = sum(radial_sums(counts[half], b[half], g[half], bins[half]) for half in halves)
    assert (again == sums).all()
    mean = shell_intensity(sums, 20)
    of_shells, numbers = np.unique(mean[bins], return_counts=True)
    assert len(of_shells) == 20 and np.abs(numbers / 3000 - 1).max() < 0.05
    assert radial_bins(np.array([0.0, 0.5, 0.6]), 0.5).tolist() == [0, 999, 999]


def test_weak_stills_are_not_weighted_by_their_own_noise():
    """0.15 photons an observation: shells of a hundred observations would hold 15 and follow their noise."""
    rng = np.random.default_rng(6)
    sums = np.zeros(2)
    for _ in range(300):
        q = rng.uniform(0.1, 0.5, 3000)
        g = rng.uniform(0.5, 2, 3000)
        true = 0.4 * np.exp(-4 * q)
        background = np.full(3000, 0.05)
        counts = rng.poisson(g * true + background).astype(float)
        weight = g**2 / expected_counts(counts, background, g, q, 50)
        sums += np.sum(weight * (counts - background) / g), np.sum(weight * true)
    assert sums[0] / sums[1] == pytest.approx(1, abs=0.015)


def test_many_experiments_are_summed_up(caplog):
    """25 stills with their rows in any order: as each would be alone, and a table that does not list them."""
    caplog.set_level(logging.INFO, logger="dials")
    model = make_experiment(0, flat_detector())
    parts = {"beam": model.beam, "detector": model.detector, "crystal": model.crystal}
    stills = [Experiment(identifier=f"still-{i}", **parts) for i in range(25)]
    dataset = make_dataset(stills, n=150)
    rng = np.random.default_rng(2)
    counts = rng.poisson(3, len(dataset.observations)).astype(float)
    dataset.observations["counts"] = flumpy.from_numpy(counts)
    corrections = CombinedCorrection(phil_scope.extract().correction)
    correct(dataset, phil_scope.extract(), corrections)
    ids, variance = column(dataset, "id"), column(dataset, "intensity.sum.variance")
    g = column(dataset, "response")
    q = GRID.q(miller_index_to_numpy(dataset.observations["miller_index"]))
    assert (np.diff(ids) < 0).any()
    for still in range(25):
        rows = np.flatnonzero(ids == still)
        alone = expected_counts(counts[rows], np.zeros(150), g[rows], q[rows], 50)
        assert np.allclose(variance[rows], alone / g[rows] ** 2, rtol=1e-6)
    summary = report(dataset, corrections)
    assert [one["photons"] for one in summary["experiments"]] == np.bincount(ids, counts).tolist()
    assert "of 25 experiments" in caplog.text and caplog.text.count("\n") < 30


def test_an_empty_table():
    dataset = make_dataset([make_experiment()], n=5)
    dataset.observations = dataset.observations.select(flex.size_t())
    corrections = CombinedCorrection(phil_scope.extract().correction)
    correct(dataset, phil_scope.extract(), corrections)
    assert report(dataset, corrections)["experiments"][0]["observations"] == 0
