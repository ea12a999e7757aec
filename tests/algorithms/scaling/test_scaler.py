from __future__ import annotations

import logging

import numpy as np
import observation_data
import pytest
from dials.array_family import flex

from dials_diffuse.algorithms.scaling.scale import scale
from dials_diffuse.parameters import parameters


def run(dataset, truth, **changes):
    """Scale; return the report, and for each observation b over the true b and the sweep."""
    params = parameters("scale", "scaling.terms=scale", "outlier.reject=False", "error_model.a=1", "error_model.b=0")
    for name, value in changes.items():
        setattr(params.scaling, name, value)
    report = scale(dataset, params)
    return (
        report,
        np.array(dataset.observations["inverse_scale_factor"]) / truth.b,
        np.array(dataset.observations["id"]),
    )


def first_fit(report):
    return [cycle for cycle in report["cycles"] if cycle["fit"] == 0]


def test_two_sweeps_at_one_photon():
    dataset, truth = observation_data.make_dataset(1)
    report, ratio, sweep = run(dataset, truth)
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.01
    for i in (0, 1):
        assert ratio[sweep == i].mean() == pytest.approx(1, abs=0.002)
    assert len(first_fit(report)) < 10
    assert report["cycles"][-1]["chi_squared"] == pytest.approx(1, abs=0.02)
    assert report["sweeps"][0]["mean"] == pytest.approx(1, abs=1e-3)
    assert report["sweeps"][1]["mean"] == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize("pixels", [40, 5])
def test_unbiased_at_a_twentieth_of_a_photon(pixels):
    deviations = []
    for seed in range(4):
        dataset, truth = observation_data.make_dataset(0.05, pixels=pixels, seed=seed)
        _, ratio, sweep = run(dataset, truth)
        deviations.append([ratio[sweep == 0].mean() - 1, ratio[sweep == 1].mean() / ratio[sweep == 0].mean() - 1])
    mean, error = np.mean(deviations, axis=0), np.std(deviations, axis=0, ddof=1) / 2
    assert (np.abs(mean) < 4 * error + 0.003).all()
    assert (np.abs(mean) < (0.01 if pixels == 40 else 0.03)).all()


def test_uncertainties_are_true():
    scatter = []
    for seed in range(6):
        dataset, truth = observation_data.make_dataset(0.3, seed=seed, n_frames=60)
        run(dataset, truth, scale_interval=15)
        scatter.append(np.array(dataset.experiments[1].scaling_model.components["scale"].parameters))
    stated = np.array(dataset.experiments[1].scaling_model.components["scale"].parameter_esds)
    assert np.sqrt(np.mean(np.var(scatter, axis=0, ddof=1) / stated**2)) == pytest.approx(1, abs=0.35)


def test_few_common_voxels_need_few_cycles():
    dataset, truth = observation_data.make_dataset(1, n_frames=6)
    report, _, _ = run(dataset, truth)
    assert len(first_fit(report)) <= 10


def test_a_gap_in_the_data_stays_level():
    dataset, truth = observation_data.make_dataset(1)
    frame = np.array(dataset.observations["xyzobs.px.value"].parts()[2])
    keep = flex.bool((frame < 30) | (frame > 60) | (np.array(dataset.observations["id"]) == 0))
    dataset.observations = dataset.observations.select(keep)
    truth.b = truth.b[np.array(keep)]
    _, ratio, _ = run(dataset, truth)
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.01
    parameters = np.array(dataset.experiments[1].scaling_model.components["scale"].parameters)
    assert parameters.min() > 0.35 and parameters.max() < 1


def test_very_different_sweeps():
    dataset, truth = observation_data.make_dataset(1)
    factor = np.where(np.array(dataset.observations["id"]) == 1, 100.0, 1.0)
    dataset.observations["response"] = flex.double(np.array(dataset.observations["response"]) / factor)
    truth.b = truth.b * factor
    _, ratio, sweep = run(dataset, truth)
    assert ratio[sweep == 1].mean() == pytest.approx(1, abs=0.003)


def test_each_voxel_seen_once(caplog):
    dataset, truth = observation_data.make_dataset(1, sweeps=1)
    index = dataset.grid.map_to_asu(np.array(list(dataset.observations["miller_index"])))
    _, once = np.unique(index, axis=0, return_index=True)
    dataset.observations = dataset.observations.select(flex.size_t(np.sort(once)))
    truth.b = np.ones(len(once))
    with caplog.at_level(logging.WARNING, "dials.diffuse"):
        _, ratio, _ = run(dataset, truth)
    np.testing.assert_allclose(ratio, 1, rtol=1e-12)
    assert "cannot be determined" in caplog.text


def test_sweep_without_common_voxels(caplog):
    """The second sweep is cut down to voxels that the first has not seen: nothing ties it to the first."""
    dataset, truth = observation_data.make_dataset(1, n_frames=20)
    sweep = np.array(dataset.observations["id"])
    key = dataset.grid.index2key(dataset.grid.map_to_asu(np.array(list(dataset.observations["miller_index"]))))
    keep = (sweep == 0) | ~np.isin(key, key[sweep == 0])
    dataset.observations = dataset.observations.select(flex.bool(keep))
    truth.b = truth.b[keep]
    with caplog.at_level(logging.WARNING, "dials.diffuse"):
        report, _, _ = run(dataset, truth)
    assert "shares no voxel" in caplog.text
    assert report["sweeps"][1]["mean"] == pytest.approx(1, abs=0.01)


def test_steady_beam_stays_steady():
    """Smoothness is found from the data: with a constant b and few photons the noise is not fitted."""
    dataset, truth = observation_data.make_dataset(0.05, pixels=2)
    u = np.array(dataset.observations["response"]) * truth.intensity
    background = np.array(dataset.observations["background.sum.value"])
    dataset.observations["counts"] = flex.double(np.random.default_rng(5).poisson(u + background).astype(float))
    truth.b = np.ones(len(u))
    report, ratio, _ = run(dataset, truth)
    assert ratio.std() < 0.03
    params = parameters("scale", "scaling.terms=scale", "smoothness.scale=1", "outlier.reject=False")
    scale(dataset, params)
    free = np.array(dataset.observations["inverse_scale_factor"])
    assert free.std() > 2 * ratio.std()
    assert report["cycles"][-1]["smoothness"]["scale.phi"] < 0.03


def test_still():
    dataset, truth = observation_data.make_dataset(1)
    dataset.experiments[1].scan = None
    report, _, _ = run(dataset, truth)
    assert len(report["sweeps"][1]["terms"]["scale"]["parameters"]) == 1
    assert report["sweeps"][1]["mean"] == pytest.approx(0.7, abs=0.05)


def test_many_stills(caplog):
    """A factor each, of any size: neighbours in the list have nothing to do with one another."""
    dataset, truth = observation_data.make_stills(1, stills=300, samples=40)
    with caplog.at_level(logging.INFO, "dials.diffuse"):
        report, ratio, still = run(dataset, truth)
    assert len(caplog.text.splitlines()) < 100
    assert len(first_fit(report)) < 8 and len(report["sweeps"]) == 300
    means = np.bincount(still, ratio) / np.bincount(still)
    errors = [entry["terms"]["scale"]["error"][0] / entry["mean"] for entry in report["sweeps"]]
    assert np.mean([entry["mean"] for entry in report["sweeps"]]) == pytest.approx(1, abs=1e-9)
    assert np.mean(((means - 1) / errors) ** 2) == pytest.approx(1, abs=0.3)
    assert np.abs(means.mean() - 1) < 1e-3


def test_stills_that_nothing_links(caplog):
    """Two groups of stills that have no voxel in common, and one that has no voxel with any."""
    dataset, truth = observation_data.make_stills(1, stills=20, samples=40)
    still = np.array(dataset.observations["id"])
    index = np.abs(dataset.grid.map_to_asu(np.array(list(dataset.observations["miller_index"]))))
    group = np.where(still < 12, 0, np.where(still < 19, 1, 2))
    keep = index[:, 2] % 3 == group
    dataset.observations = dataset.observations.select(flex.bool(keep))
    truth.b = truth.b[keep]
    with caplog.at_level(logging.WARNING, "dials.diffuse"):
        run(dataset, truth)
    assert "experiments 12, 13, 14, ... (8 of them) share no voxel with sweep 0" in caplog.text
