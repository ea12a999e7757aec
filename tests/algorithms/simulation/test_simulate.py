from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentListFactory
from iotbx.phil import parse

from dials_diffuse.algorithms.simulation.simulate import BACKGROUND, make_image, simulate
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.phil_scope.simulate import phil_scope


def make_params(settings: str):
    return phil_scope.fetch(parse("\n".join(settings.split()))).extract()


def read(files: list[Path], multi_panel: bool = False):
    return ExperimentListFactory.from_filenames(
        sorted(str(name) for name in files), format_kwargs={"multi_panel": multi_panel}
    )


@pytest.mark.parametrize("multi_panel", [False, True])
@pytest.mark.parametrize("model", ["100K", "300K", "1M"])
def test_headers_tell_the_true_geometry(tmp_path, model, multi_panel):
    params = make_params(
        f"detector.model={model} sweeps=1 frames=3 oscillation.start=12.5 oscillation.width=0.2 exposure=0.04"
        " beam.tilt=0 detector.tilt=0,0 header.perturb=False background.images=0 detector.distance=123.4 nproc=1"
    )
    truth = simulate(params, tmp_path)
    (found,) = read(list(tmp_path.glob("sweep_1_*.cbf")), multi_panel)
    (true,) = truth.experiments(multi_panel=multi_panel)
    assert found.imageset.get_format_class().__name__ == "FormatCBFMiniPilatus"
    assert len(found.detector) == len(true.detector) == ({"100K": 1, "300K": 3, "1M": 10}[model] if multi_panel else 1)
    for panel, expected in zip(found.detector, true.detector):
        assert panel.get_image_size() == expected.get_image_size()
        assert panel.get_mu() == pytest.approx(expected.get_mu())
        for pixel in ((0.5, 0.5), (400.5, 30.5)):
            np.testing.assert_allclose(panel.get_pixel_lab_coord(pixel), expected.get_pixel_lab_coord(pixel), atol=1e-4)
            np.testing.assert_allclose(
                panel.get_lab_coord(panel.pixel_to_millimeter(pixel)),
                expected.get_lab_coord(expected.pixel_to_millimeter(pixel)),
                atol=1e-4,
            )
    assert found.beam.is_similar_to(true.beam)
    assert found.beam.get_polarization_fraction() == true.beam.get_polarization_fraction()
    assert found.goniometer == true.goniometer
    assert found.scan.get_oscillation() == pytest.approx((12.5, 0.2))
    assert found.scan.get_image_range() == (1, 3)
    assert list(found.scan.get_exposure_times()) == pytest.approx([0.04] * 3)
    # the pixels are the same, too
    (whole,) = make_image(truth, 0, 1)
    for panel, data in zip(found.detector, found.imageset.get_raw_data(1)):
        (x, y), (width, height) = panel.get_raw_image_offset(), panel.get_image_size()
        np.testing.assert_array_equal(flumpy.to_numpy(data), whole[y : y + height, x : x + width])


def test_true_models_with_images(tmp_path):
    params = make_params("detector.model=100K sweeps=2 frames=2 background.images=0 nproc=1")
    truth = simulate(params, tmp_path)
    for multi_panel in (False, True):
        experiments = truth.experiments(multi_panel=multi_panel, check_format=True)
        data = flumpy.to_numpy(experiments[1].imageset.get_raw_data(0)[0])
        np.testing.assert_array_equal(data, make_image(truth, 1, 0)[0])
        assert experiments[1].imageset.get_detector() == experiments[1].detector


def test_perturbed_header_and_custom_detector(tmp_path):
    params = make_params(
        "detector.model=custom detector.image_size=70,50 detector.thickness=0 sweeps=1 frames=1 nproc=1"
        " background.images=2 header.beam_centre_error=2,-1 header.distance_error=0.5 detector.hot_pixels=0"
    )
    truth = simulate(params, tmp_path)
    (found,) = read(list(tmp_path.glob("sweep_1_*.cbf")))
    assert found.detector[0].get_image_size() == (70, 50)
    assert found.detector[0].get_distance() == pytest.approx(100.5)
    true = truth.detector[0].get_beam_centre_px(truth.beam.get_s0())
    np.testing.assert_allclose(
        found.detector[0].get_beam_centre_px(found.beam.get_s0()), np.add(true, (2, -1)), atol=0.01
    )
    (background,) = read(list(tmp_path.glob("background_*.cbf")))
    assert background.scan.get_exposure_times()[0] == pytest.approx(1)
    assert background.scan.get_oscillation_range() == pytest.approx((0, 0.5))


def test_noise_is_poisson_at_a_hundredth_of_a_photon():
    truth = Truth(
        make_params("photons=0.01 background.photons=0 bragg.photons=0 sweeps=1 frames=6 clouds.contrast=0.2 nproc=1")
    )
    (good,) = truth.mask()
    expected = np.array([truth.expected_image(0, i)[0][good] for i in range(6)])
    counts = np.array([make_image(truth, 0, i)[0][good] for i in range(6)])
    n = counts.size
    assert expected.mean() == pytest.approx(0.01, rel=0.02)
    assert counts.mean() == pytest.approx(expected.mean(), abs=4 * np.sqrt(expected.mean() / n))
    # the index of dispersion of n Poisson counts has the variance 2 / n + 1 / (n mean)
    dispersion = np.mean((counts - expected) ** 2 / expected)
    assert dispersion == pytest.approx(1, abs=4 * np.sqrt((2 + np.mean(1 / expected)) / n))
    assert np.mean(counts == 2) == pytest.approx(np.mean(expected**2 / 2 * np.exp(-expected)), rel=0.3)
    assert abs(np.corrcoef(counts[0], counts[1])[0, 1]) < 0.01


def test_bad_pixels_gaps_and_noise_free_images():
    truth = Truth(make_params("sweeps=1 frames=3 noise=False detector.hot_pixels=5 detector.dead_pixels=7"))
    (image,), (expected,), (good,) = make_image(truth, 0, 2), truth.expected_image(0, 2), truth.mask()
    hot, rates, dead = truth.bad_pixels
    assert np.all(image[195:212] == -1) and np.all(image[407:424] == -1) and np.sum(image == -1) == 2 * 17 * 487
    assert len(hot) == 5 and np.all(image.ravel()[hot] > 30)
    assert len(dead) == 7 and np.all(image.ravel()[dead] == 0)
    np.testing.assert_array_equal(image[good], np.rint(expected[good]))
    shadow = truth.pixels[0].transmission < 1
    assert shadow.sum() * 0.172**2 > np.pi * 2.5**2
    assert expected[shadow].mean() < 0.1 * expected[good].mean()


@pytest.mark.parametrize("nproc", [1, 2])
def test_images_do_not_depend_on_processes(tmp_path, nproc):
    settings = "detector.model=100K sweeps=2 frames=3 background.images=2"
    (tmp_path / "sweep_1_0004.cbf").touch()  # of an earlier simulation
    simulate(make_params(f"{settings} nproc={nproc}"), tmp_path)
    again = Truth(make_params(settings))
    for sweep, name in ((0, "sweep_1"), (1, "sweep_2"), (BACKGROUND, "background")):
        (found,) = read(list(tmp_path.glob(f"{name}_*.cbf")))
        assert len(found.imageset) == (2 if sweep == BACKGROUND else 3)
        for i in reversed(range(len(found.imageset))):
            np.testing.assert_array_equal(
                flumpy.to_numpy(found.imageset.get_raw_data(i)[0]), make_image(again, sweep, i)[0]
            )
    different = Truth(make_params(f"{settings} seed=2"))
    assert np.any(make_image(different, 0, 0)[0] != make_image(again, 0, 0)[0])


def test_contradictions_are_explained(tmp_path):
    with pytest.raises(Sorry, match="frames has 2 values"):
        simulate(make_params("sweeps=3 frames=10,20"), tmp_path)
    with pytest.raises(Sorry, match="three for each"):
        simulate(make_params("crystal.orientation=1,2,3"), tmp_path)
    with pytest.raises(Sorry, match="does not fit space group"):
        simulate(make_params("crystal.space_group=P4"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(Sorry, match="Cannot make the folder"):
        simulate(make_params("sweeps=1"), tmp_path / "file" / "images")
