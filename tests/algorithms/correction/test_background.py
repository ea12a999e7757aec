"""The background map on simulated images: unbiased, with a variance that is right, whatever is wrong with pixels."""

from __future__ import annotations

import numpy as np
import pytest
from correction_data import flat_detector, make_experiment, write_images
from dials.util import Sorry
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.algorithms.correction.background import (
    BackgroundMap,
    background_maps,
    measure_background,
    sum_frames,
)
from dials_diffuse.algorithms.correction.local_rate import find_outliers, smooth_rate
from dials_diffuse.algorithms.masking.mask_file import write_mask
from dials_diffuse.algorithms.simulation.nxmx import NXmxWriter
from dials_diffuse.phil_scope.correct import phil_scope

SHAPE = (220, 260)


def frames(rng, rate, count, exposure, valid=None):
    """Poisson images of a rate per pixel and second."""
    valid = np.ones(rate.shape, dtype=bool) if valid is None else valid
    for _ in range(count):
        yield [rng.poisson(rate * exposure).astype(float)], [valid], exposure


@pytest.mark.parametrize("level", [0.01, 0.05, 1.0])
@pytest.mark.parametrize(("count", "exposure"), [(40, 0.1), (10, 0.4), (1, 4.0)])
def test_unbiased_with_calibrated_variance(level, count, exposure):
    """4 seconds in all, at 0.01 photons a pixel and frame and less: mean and chi-squared over independent boxes."""
    rng = np.random.default_rng(int(1000 * level) + count)
    truth = np.full(SHAPE, level / 0.1)
    half_width = 5
    ((counts, seconds),) = sum_frames(frames(rng, truth, count, exposure))
    assert np.allclose(seconds, 4.0)
    rate, variance = smooth_rate(counts, seconds, half_width)
    whole_error = np.sqrt(truth[0, 0] / (4.0 * rate.size))
    assert abs(rate.mean() - truth[0, 0]) < 4 * whole_error
    step = 2 * half_width + 1
    independent = np.s_[half_width:-half_width:step, half_width:-half_width:step]
    squares = (rate - truth)[independent] ** 2
    assert squares.size > 400
    assert np.mean(squares) / np.mean(variance[independent]) == pytest.approx(1, abs=0.2)  # standard error 0.07
    assert np.mean(variance[independent]) == pytest.approx(truth[0, 0] / (4.0 * step**2), rel=0.05)


def test_a_box_without_counts_is_not_exact():
    rate, variance = smooth_rate(np.zeros(SHAPE), np.full(SHAPE, 2.0), 2)
    assert np.all(rate == 0)
    inside = variance[5:-5, 5:-5]
    assert np.allclose(inside, 1 / (25 * 2.0) ** 2)


def test_linear_trends_are_kept():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    counts = 100 + 0.5 * x + 0.2 * y
    rate, _ = smooth_rate(counts, np.full(SHAPE, 2.0), 8)
    inside = np.s_[8:-8, 8:-8]
    assert np.allclose(rate[inside], counts[inside] / 2, rtol=1e-10)


def test_only_valid_pixels_are_averaged():
    """A shadow of dark, masked pixels, one column of them with less time, and a wholly masked corner."""
    rng = np.random.default_rng(3)
    valid = np.ones(SHAPE, dtype=bool)
    valid[:, 100:130] = False
    valid[:80, :80] = False
    truth = np.full(SHAPE, 20.0)
    shadowed = np.where(valid, truth, 0.01)
    parts = [*frames(rng, shadowed, 5, 1.0, valid), *frames(rng, shadowed, 5, 0.2, np.roll(valid, 1, axis=1))]
    ((counts, seconds),) = sum_frames((c, [v[0] & valid], t) for c, v, t in parts)
    rate, variance = smooth_rate(counts, seconds, 4)
    assert np.isnan(rate[:70, :70]).all() and np.isnan(variance[:70, :70]).all()
    assert np.isnan(rate[100, 110]) and np.isfinite(rate[100, 103])
    known = np.isfinite(rate)
    z = (rate - truth)[known] / np.sqrt(variance[known])
    assert abs(np.mean(z)) < 0.1
    assert np.mean(z**2) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("level", [0.01, 0.3, 30.0])
def test_hot_and_dead_pixels_are_left_out(level):
    rng = np.random.default_rng(7)
    count = 20
    truth = np.full(SHAPE, level)
    counts = rng.poisson(truth * count).astype(float)
    seconds = np.full(SHAPE, float(count))
    hot = [(30, 40), (30, 41), (31, 41), (100, 100), (0, 0), (219, 130)]
    for i, pixel in enumerate(hot):
        counts[pixel] = 10.0 ** (2 + i % 4) + 10 * level * count
    counts[60, 60] = counts[61, 60] = 0  # dead, where that can be told
    bad = find_outliers(counts, seconds)
    assert all(bad[pixel] for pixel in hot)
    assert bad[60, 60] == bad[61, 60] == (level * count > 50)
    assert np.count_nonzero(bad) <= len(hot) + 2
    rate, variance = smooth_rate(counts, seconds, 6)
    z = (rate - truth) / np.sqrt(variance)
    assert np.abs(z).max() < 6


def test_steep_but_smooth_background_has_no_outliers():
    """1/q^2 from 20 pixels off the beam at high counts."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(x + 14, y + 14)
    counts = np.random.default_rng(2).poisson(1e8 / radius**2).astype(float)
    assert not find_outliers(counts, np.ones(SHAPE)).any()


def test_bins_of_rotation():
    edges = np.radians([10, 100, 190])
    maps = [np.full((4, 5), value, dtype=np.float32) for value in (1, 2)]
    background = BackgroundMap([[maps[0]], [maps[1]]], [[maps[0]], [maps[1]]], edges)
    at = np.array([2.5, 2.5, 2.5, 2.5, 2.5])
    rate, variance = background.at(0, at, at, np.radians([10, 99, 101, 190, 370 + 95]))
    assert rate.tolist() == [1, 1, 2, 2, 2]
    assert variance.tolist() == [1, 1, 2, 2, 2]
    with pytest.raises(Sorry, match="rotation"):
        background.at(0, at, at, np.radians([10, 99, 101, 190, 200]))


def test_images_are_read_with_gain_pedestal_and_mask(tmp_path):
    rng = np.random.default_rng(1)
    images = [rng.poisson(3, (150, 200)) for _ in range(4)]
    images[0][5, 5] = -1  # outside the trusted range
    experiment = write_images(tmp_path, images, exposure=0.5, width=10)[0]
    params = phil_scope.extract().background_model
    params.half_width = 0
    background = measure_background([experiment], params, "bkg.expt")
    total = np.sum(images, axis=0)
    expected = total / 2.0
    expected[5, 5] = (total[5, 5] + 1) / 1.5
    assert np.allclose(background.rate[0][0], expected)
    assert background.variance[0][0][7, 8] == pytest.approx(max(total[7, 8], 1) / 4)

    mask = np.ones((150, 200), dtype=bool)
    mask[:, 50:] = False
    params.rotation_bins = 2
    experiment.detector[0].set_gain(2.0)
    experiment.detector[0].set_pedestal(0.0)
    experiment.imageset.set_detector(experiment.detector)
    background = measure_background([experiment], params, "bkg.expt", [(mask,)])
    assert np.allclose(background.edges, np.radians([0, 20, 40]))
    for i in range(2):
        expected = (images[2 * i] + images[2 * i + 1])[10:, :50] / 2.0
        assert np.allclose(background.rate[i][0][10:, :50], expected)
        assert np.isnan(background.rate[i][0][:, 50:]).all()


def write_background(folder, size=(200, 150), exposure=0.5, level=2, name="bkg.expt"):
    folder.mkdir()
    rng = np.random.default_rng(level)
    experiments = write_images(folder, [rng.poisson(level, size[::-1]) for _ in range(3)], exposure)
    experiments.as_json(str(folder / name))
    return str(folder / name)


def flat_experiments(count):
    return [make_experiment(i, flat_detector(), n_frames=5) for i in range(count)]


def parameters(files, **values):
    params = phil_scope.extract()
    params.background = list(files)
    for name, value in values.items():
        setattr(params.background_model, name, value)
    return params


def test_one_background_for_all_or_one_for_each(tmp_path, caplog):
    weak = write_background(tmp_path / "weak", level=1)
    strong = write_background(tmp_path / "strong", level=4)
    maps = background_maps(flat_experiments(2), parameters([weak]))
    assert maps[0] is maps[1]
    assert np.mean(maps[0].rate[0][0]) == pytest.approx(2, rel=0.02)
    maps = background_maps(flat_experiments(2), parameters([weak, strong], scale=[1.0, 0.5]))
    assert np.mean(maps[0].rate[0][0]) == pytest.approx(2, rel=0.02)
    assert np.mean(maps[1].rate[0][0]) == pytest.approx(4, rel=0.02)
    plain = background_maps(flat_experiments(1), parameters([strong]))[0]
    assert np.allclose(maps[1].variance[0][0], plain.variance[0][0] / 4)
    assert "WARNING" not in [record.levelname for record in caplog.records]
    assert background_maps(flat_experiments(1), parameters([None])) is None
    with pytest.raises(Sorry, match="2 background experiments for 3"):
        background_maps(flat_experiments(3), parameters([weak, strong]))
    with pytest.raises(Sorry, match="scale"):
        background_maps(flat_experiments(1), parameters([weak], scale=[1.0, 2.0]))


def test_mask_given_or_carried_by_the_data(tmp_path):
    name = write_background(tmp_path / "bkg")
    masks = []
    for i in range(2):
        mask = np.ones((150, 200), dtype=bool)
        mask[:, 100 * i : 100 * i + 50] = False
        write_mask((mask,), tmp_path / f"{i}.mask")
        masks.append(mask)
    experiments = write_images(tmp_path, [np.ones((150, 200))] * 2, exposure=1.0)
    experiments[0].imageset.external_lookup.mask.filename = str(tmp_path / "0.mask")
    experiments.as_json(str(tmp_path / "data.expt"))
    experiments = ExperimentList.from_file(str(tmp_path / "data.expt"), check_format=False)
    for mask, given in ((masks[0], None), (masks[1], str(tmp_path / "1.mask"))):
        rate = background_maps(experiments, parameters([name], mask=given, half_width=0))[0].rate[0][0]
        assert np.isnan(rate[~mask]).all() and np.isfinite(rate[mask]).mean() > 0.99


def test_files_that_do_not_fit_are_named(tmp_path):
    other = write_background(tmp_path / "other", size=(100, 150))
    with pytest.raises(Sorry, match=r"other.*bkg\.expt.*100 x 150.*200 x 150"):
        background_maps(flat_experiments(1), parameters([other]))
    with pytest.raises(Sorry, match=r"3 panels"):
        background_maps([make_experiment()], parameters([other]))
    with pytest.raises(Sorry, match=r"nothing\.expt"):
        background_maps(flat_experiments(1), parameters([str(tmp_path / "nothing.expt")]))
    (tmp_path / "bad.expt").write_text("not json")
    with pytest.raises(Sorry, match=r"bad\.expt"):
        background_maps(flat_experiments(1), parameters([str(tmp_path / "bad.expt")]))
    with pytest.raises(Sorry, match="rotation_bins"):
        background_maps(flat_experiments(1), parameters([write_background(tmp_path / "few")], rotation_bins=4))


def test_missing_and_truncated_images_are_named(tmp_path):
    name = write_background(tmp_path / "bkg")
    image = tmp_path / "bkg" / "background_0002.cbf"
    image.write_bytes(image.read_bytes()[:3000])
    with pytest.raises(Sorry, match="background_0002.cbf"):
        background_maps(flat_experiments(1), parameters([name]))
    image.unlink()
    with pytest.raises(Sorry, match="background_0002.cbf"):
        background_maps(flat_experiments(1), parameters([name]))


def test_unknown_exposure_of_one_side_warns(tmp_path, caplog):
    name = write_background(tmp_path / "bkg", exposure=0.5)
    model = make_experiment(0, flat_detector())
    still = Experiment(beam=model.beam, detector=model.detector, crystal=model.crystal)
    background_maps([still], parameters([name]))
    assert "background_model.scale" in caplog.text


def write_stills(folder, images, exposure):
    """Names of .expt files: as DIALS imports CBF stills (experiments that share an imageset), as stills of one imageset
    each without scan, and as one imageset of all."""
    imported = write_images(folder, images, exposure, width=0)
    assert len(imported) == len(imported[0].imageset) == len(images)
    paths = imported[0].imageset.paths()
    models = {"beam": imported[0].beam, "detector": imported[0].detector}
    one_each, together = ExperimentList(), ExperimentList()
    for path in paths:
        one_each.append(Experiment(imageset=ImageSetFactory.make_imageset([path]), **models))
    together.append(Experiment(imageset=ImageSetFactory.make_imageset(paths), **models))
    for name, experiments in (("imported", imported), ("one_each", one_each), ("together", together)):
        experiments.as_json(str(folder / f"{name}.expt"))
        yield str(folder / f"{name}.expt")


def test_stills_are_one_background(tmp_path, caplog):
    """However they are imported, with the exposure times that the images tell."""
    rng = np.random.default_rng(5)
    images = [rng.poisson(level, (150, 200)) for level in (1, 3, 8)]
    for name in write_stills(tmp_path, images, 0.25):
        data = flat_experiments(2)
        maps = background_maps(data, parameters([name], half_width=0))
        assert maps[0] is maps[1]
        assert np.allclose(maps[0].rate[0][0], np.sum(images, axis=0) / 0.75)
        with pytest.raises(Sorry, match=r"no rotation.*rotation_bins=1"):
            background_maps(data, parameters([name], rotation_bins=2))
    assert "WARNING" not in [record.levelname for record in caplog.records]
    sweep = write_background(tmp_path / "sweep")
    with pytest.raises(Sorry, match=r"stills among the data.*rotation_bins=1"):
        background_maps(list(ExperimentList.from_file(name)), parameters([sweep], rotation_bins=2))


def test_stills_of_a_nexus_file_are_one_background(tmp_path):
    model = make_experiment(0, flat_detector())
    panel = model.detector[0]
    panel.set_material("Si")
    panel.set_thickness(0.45)
    rng = np.random.default_rng(6)
    images = [rng.poisson(2, (150, 200)) for _ in range(3)]
    parts = {"beam": model.beam, "detector": model.detector, "goniometer": None, "scan": None}
    with NXmxWriter(tmp_path / "bkg.nxs", exposure=0.5, **parts) as writer:
        for number, image in enumerate(images):
            writer.write(number, (image,))
    experiments = ExperimentListFactory.from_filenames([str(tmp_path / "bkg.nxs")])
    assert len(experiments) == 3
    experiments.as_json(str(tmp_path / "bkg.expt"))
    (background,) = background_maps(flat_experiments(1), parameters([str(tmp_path / "bkg.expt")], half_width=0))
    assert np.allclose(background.rate[0][0], np.sum(images, axis=0) / 1.5)
