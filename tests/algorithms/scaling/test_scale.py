"""All terms together, and experiments of unlike kinds."""

from __future__ import annotations

import logging

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model import DetectorFactory
from scalers import ALL, column, columns_of, dense_curvature, scale_counting, scaler_of

from dials_diffuse.algorithms.merging.merge import merge
from dials_diffuse.algorithms.scaling.apply import term_values
from dials_diffuse.algorithms.scaling.observations import scaled_observations
from dials_diffuse.algorithms.scaling.scale import scale
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.parameters import parameters


def test_uncertainties_of_absorption_and_offset():
    """Scatter over seeds: it is less than stated by the restraints' part."""
    found, covariances = [], []
    for seed in range(16):
        dataset, _ = observation_data.make_dataset(1, n_frames=24, samples=24, seed=seed, a=0.1, c=0.5)
        smoothness = ("smoothness.absorption=0.2", "smoothness.offset=0.5", "smoothness.scale=0.5")
        knots = ("scale_interval=12", "absorption.interval=24", "absorption.intervals=2", "offset.interval=24")
        names = ("scale", "absorption", "offset")
        scaler = scaler_of(dataset, names, "offset.q_interval=0.15", *smoothness, *knots)
        scaler.gauges._slack = np.inf  # c is least where it is at first, for all seeds
        scaler.gauges._lowest = np.zeros(scaler.design.models[0].components["offset"].shape[0], dtype=int)
        scaler.fit()
        found.append(scaler.parameters)
        (covariance,) = scaler.covariance.blocks
        covariances.append(covariance @ dense_curvature(scaler) @ covariance)
        assert (np.diag(covariances[-1]) < np.diag(covariance) * (1 + 1e-6) + 1e-9).all()
    scatter, expected = np.var(found, axis=0, ddof=1), np.mean([np.diag(c) for c in covariances], axis=0)
    for name in names:
        columns = columns_of(scaler, name, 1)
        assert np.sqrt(np.sum(scatter[columns]) / np.sum(expected[columns])) == pytest.approx(1, abs=0.3)


def test_stills_among_sweeps():
    """A still has b alone."""
    dataset, truth = observation_data.make_dataset(1, sweeps=3, n_frames=40, samples=30)
    z = column_of_frames(dataset)
    ids = column(dataset, "id")
    keep = (ids != 2) | (z < 2)
    dataset.observations = dataset.observations.select(flex.bool(keep))
    dataset.experiments[2].scan = None
    report = scale_counting(dataset, ",".join(ALL))
    assert list(report["sweeps"][2]["terms"]) == ["scale"]
    ratio = column(dataset, "inverse_scale_factor") / truth.b[keep]
    of_sweeps, of_still = (ratio[chosen].mean() for chosen in (ids[keep] < 2, ids[keep] == 2))
    assert of_still == pytest.approx(of_sweeps, rel=0.04)
    assert report["sweeps"][2]["terms"]["scale"]["error"][0] < 0.02
    assert report["sweeps"][2]["observations_used"] > 100
    assert np.isfinite(column(dataset, "inverse_scale_factor")).all()


def test_sweeps_on_two_detectors():
    """Two blocks of d, each with a mean of its own."""
    dataset, truth = observation_data.make_dataset(3, n_frames=45, samples=30)
    pixels = 30
    x, y, z = (np.array(part) for part in dataset.observations["xyzobs.px.value"].parts())
    ids = column(dataset, "id")
    second = ids == 1
    size = observation_data.SIZE
    dataset.experiments[1].detector = DetectorFactory.simple(
        "PAD", observation_data.DISTANCE, (size / 2,) * 2, "+x", "-y", (size / pixels,) * 2, (pixels,) * 2, (0, 1e6)
    )
    half = np.where(second, 0.5, 1)
    dataset.observations["xyzobs.px.value"] = flex.vec3_double(*map(flex.double, (x * half, y * half, z)))
    d = 1 + 0.1 * np.where(second, -1, 1) * np.sin(np.pi * (x - y) / 60)
    expected = column(dataset, "response") * truth.b * truth.intensity * d
    background = column(dataset, "background.sum.value")
    counts = np.random.default_rng(5).poisson(expected + background).astype(float)
    dataset.observations["counts"] = flex.double(counts)
    report = scale_counting(dataset, "scale,detector")
    assert report["cycles"][-1]["chi_squared"] == pytest.approx(1, abs=0.03)
    found = term_values(dataset)["detector"]
    for sweep in (0, 1):
        here = ids == sweep
        assert np.corrcoef(found[here], d[here])[0, 1] > 0.8
    parameters_ = [np.array(e.scaling_model.components["detector"].parameters) for e in dataset.experiments]
    assert np.abs(parameters_[0] - parameters_[1]).max() > 0.05


def column_of_frames(dataset):
    return np.array(dataset.observations["xyzobs.px.value"].parts()[2])


def test_sweep_without_common_voxels_with_all_terms(caplog):
    dataset, truth = observation_data.make_dataset(1, n_frames=20, samples=30)
    ids = column(dataset, "id")
    key = dataset.grid.index2key(dataset.grid.map_to_asu(miller_index_to_numpy(dataset.observations["miller_index"])))
    keep = (ids == 0) | ~np.isin(key, key[ids == 0])
    dataset.observations = dataset.observations.select(flex.bool(keep))
    with caplog.at_level(logging.WARNING, "dials.diffuse"):
        report = scale_counting(dataset, ",".join(ALL))
    assert "experiment 1 shares no voxel with sweep 0" in caplog.text
    assert report["sweeps"][1]["mean"] == pytest.approx(1, abs=0.05)
    for name in ("inverse_scale_factor", "offset.sum.value"):
        assert np.isfinite(column(dataset, name)).all()


@pytest.mark.parametrize("terms", [",".join(ALL), "Auto"])
def test_sweeps_of_two_frames(terms):
    dataset, truth = observation_data.make_dataset(1, n_frames=2, samples=60)
    scale_counting(dataset, terms)
    ratio = column(dataset, "inverse_scale_factor") / truth.b
    assert np.isfinite(ratio).all() and 0.5 < np.median(ratio) < 2


@pytest.mark.parametrize("terms", ["scale", ",".join(ALL), "Auto"])
def test_no_photons(terms):
    """Nothing crashes, nothing is infinite; or a message says what is wrong."""
    dataset, _ = observation_data.make_dataset(1, n_frames=10, samples=20)
    dataset.observations["counts"] = flex.double(len(dataset.observations), 0.0)
    dataset.observations["background.sum.value"] = flex.double(len(dataset.observations), 0.0)
    try:
        scale(dataset, parameters("scale", f"scaling.terms={terms}"))
    except Sorry as error:
        assert "photon" in str(error)
    else:
        assert np.isfinite(column(dataset, "inverse_scale_factor")).all()
        assert np.isfinite(column(dataset, "offset.sum.value")).all()


def test_merging_leaves_out_what_scaling_did(tmp_path):
    """Excluded images and outliers, by the flags in scaled.refl."""
    dataset, _ = observation_data.make_dataset(1, n_frames=30, samples=30)
    counts = column(dataset, "counts")
    zingers = np.random.default_rng(3).choice(len(counts), 20, replace=False)
    counts[zingers] += 3000
    dataset.observations["counts"] = flex.double(counts)
    scale(dataset, parameters("scale", "scaling.terms=scale", "exclude_images=0:5:10"))
    dataset.write(tmp_path / "scaled.expt", tmp_path / "scaled.refl")
    read = Dataset.from_files(tmp_path / "scaled.expt", tmp_path / "scaled.refl")
    table = read.observations
    outliers = np.array(table.get_flags(table.flags.outlier_in_scaling))
    excluded = np.array(table.get_flags(table.flags.user_excluded_in_scaling))
    here = (column(read, "id") == 0) & (column_of_frames(read) >= 4) & (column_of_frames(read) < 10)
    np.testing.assert_array_equal(excluded, here)
    assert outliers[np.setdiff1d(zingers, np.flatnonzero(excluded))].all()
    assert outliers.sum() < len(zingers) + 0.01 * len(counts)
    assert not (outliers & excluded).any()
    kept = dataset.grid.contains(miller_index_to_numpy(table["miller_index"])) & ~outliers & ~excluded
    assert sorted(scaled_observations(read).rows) == np.flatnonzero(kept).tolist()
    found = merge(read, parameters("merge"))
    assert found.multiplicity.sum() == np.sum(kept)
    assert found.pixels.sum() == column(read, "num_pixels.valid")[kept].sum()


def test_bad_frames_are_left_out_as_images_are():
    """The scans tell of them, so that fine maps leave them out, too."""
    dataset, _ = observation_data.make_dataset(1, n_frames=40, samples=30, pixels=50)
    frame = np.floor(column(dataset, "xyzobs.px.value")[:, 2])
    dim = (column(dataset, "id") == 1) & (frame >= 12) & (frame < 15)
    dataset.observations["counts"].set_selected(
        flex.bool(dim), dataset.observations["counts"].select(flex.bool(dim)) / 2
    )
    fixed = ("scaling.terms=scale", "smoothness.scale=0.01", "bad_frames.exclude=True")
    report = scale(dataset, parameters("scale", *fixed))
    (bad,) = report["outliers"]["bad_frames"]
    assert (bad["experiment"], bad["first"], bad["last"]) == (1, 13, 15)
    scan = dataset.experiments[1].scan
    assert scan.get_valid_image_ranges(dataset.experiments[1].identifier) == [(1, 12), (16, 40)]
    table = dataset.observations
    flags = table.get_flags(table.flags.user_excluded_in_scaling)
    np.testing.assert_array_equal(np.array(flags), dim)
