from __future__ import annotations

import numpy as np
import pytest
from dxtbx.model import BeamFactory, Detector, Panel
from scipy.ndimage import distance_transform_edt

from dials_diffuse.algorithms.masking.bad_pixels import bad_pixel_masks
from dials_diffuse.algorithms.masking.beam_stop import beam_stop_masks
from dials_diffuse.algorithms.masking.sample import PixelSample
from dials_diffuse.algorithms.masking.virtual_pixels import virtual_pixel_mask
from dials_diffuse.phil_scope.mask import phil_scope

PARAMS = phil_scope.extract().mask


def sample_of(rate: np.ndarray, frames: int = 24, seed: int = 0) -> PixelSample:
    """Poisson counts at the given photons a pixel and frame, as sampling would sum them."""
    counts = np.random.default_rng(seed).poisson(rate, (frames, *rate.shape)).astype(float)
    counts.sort(axis=0)
    return PixelSample(frames, np.full(rate.shape, frames), np.full(rate.shape, frames - 2), counts[:-2].sum(axis=0))


def panel_of(shape, pixel=0.172) -> Panel:
    panel = Panel()
    panel.set_image_size((shape[1], shape[0]))
    panel.set_pixel_size((pixel, pixel))
    panel.set_frame((1, 0, 0), (0, -1, 0), (-shape[1] * pixel / 2, shape[0] * pixel / 2, -100))
    return panel


@pytest.mark.parametrize("photons", [0.05, 1.0, 30.0])
def test_hot_and_dead_pixels_are_found_and_no_others(photons):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:200, :300]
    rate = photons * np.exp(-np.hypot(x - 150, y - 100) / 120)
    chosen = rng.permutation(rate.size)[:40]
    hot, dead = chosen[:20], chosen[20:]
    rate.flat[hot] = 5 * rate.flat[hot] + 3
    rate.flat[hot[:5]] = 1e5
    rate.flat[dead] = 0
    found = bad_pixel_masks(sample_of(rate), np.ones(rate.shape, dtype=bool), PARAMS.bad_pixels)
    assert set(np.flatnonzero(found["hot"])) == set(hot)
    assert not found["untrusted"].any()
    if photons == 30.0:  # at lower counts no pixel can be called dead
        assert set(np.flatnonzero(found["dead"])) == set(dead)
    else:
        assert set(np.flatnonzero(found["dead"])) <= set(dead)


def test_untrusted_in_half_of_the_frames():
    sample = sample_of(np.ones((40, 40)))
    sample.valid[3, 4], sample.valid[5, 6] = 12, 13
    found = bad_pixel_masks(sample, np.ones((40, 40), dtype=bool), PARAMS.bad_pixels)
    assert np.argwhere(found["untrusted"]).tolist() == [[3, 4]]


BEAM = BeamFactory.make_beam(sample_to_source=(0, 0, 1), wavelength=1.1)


def stopped_beam(photons: float, fall: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rate and shadow of a stop with an arm; scattering falls away from the beam, or towards it."""
    y, x = np.mgrid[:300, :260] + 0.5
    radius = np.hypot(x - 130, y - 150)
    shadow = (radius < 18) | ((np.abs(x - 130) < 6) & (y > 150) & (y < 240))
    rate = photons * (np.exp(-radius / 100) if fall else 0.1 + np.exp(-(((radius - 110) / 40) ** 2)))
    rate = np.where(shadow, 0.02 * rate, rate)
    rate[148:152, 128:132] = 50  # a leak of the direct beam in the middle
    return rate, shadow


@pytest.mark.parametrize("photons, fall", [(0.2, True), (5.0, True), (5.0, False)])
def test_beam_stop(photons, fall):
    rate, shadow = stopped_beam(photons, fall)
    good = np.ones(rate.shape, dtype=bool)
    detector = Detector(panel_of(rate.shape))
    (found,) = beam_stop_masks([sample_of(rate)], detector, BEAM, [good], PARAMS.beam_stop)
    assert found[shadow].mean() > 0.99
    # the margin of 3 pixels, and half of the box of 9 pixels over which so few counts are averaged
    assert not found[distance_transform_edt(~shadow) > 3 + 5].any()


def test_no_beam_stop():
    y, x = np.mgrid[:300, :260] + 0.5
    rate = np.exp(-np.hypot(x - 130, y - 150) / 100)
    good = np.ones(rate.shape, dtype=bool)
    (found,) = beam_stop_masks([sample_of(rate)], Detector(panel_of(rate.shape)), BEAM, [good], PARAMS.beam_stop)
    assert found.mean() < 0.001


@pytest.mark.parametrize("cut", [150, 190])
def test_shadow_goes_on_from_panel_to_panel(cut):
    """The image divided in two, the lower panel nearer to the crystal, through the beam or below it."""
    rate, shadow = stopped_beam(5.0, True)
    whole = panel_of(rate.shape)
    detector = Detector()
    for start, stop, nearer in ((0, cut, 1.0), (cut, 300, 0.7)):
        panel = panel_of((stop - start, rate.shape[1]), 0.172 * nearer)
        corner = nearer * np.array(whole.get_pixel_lab_coord((0, start)))
        panel.set_frame((1, 0, 0), (0, -1, 0), tuple(corner))
        detector.add_panel(panel)
    parts = [rate[:cut], rate[cut:]]
    good = [np.ones(part.shape, dtype=bool) for part in parts]
    found = np.concatenate(beam_stop_masks([sample_of(p) for p in parts], detector, BEAM, good, PARAMS.beam_stop))
    assert found[shadow].mean() > 0.99
    assert not found[distance_transform_edt(~shadow) > 3 + 5].any()


def test_seams_between_chips_of_a_pilatus_module():
    good = virtual_pixel_mask(panel_of((195, 487)))
    columns = np.flatnonzero(~good.any(axis=0))
    assert columns.tolist() == sorted(c + d for c in range(60, 487, 61) for d in (-1, 0, 1))
    assert np.flatnonzero(~good.any(axis=1)).tolist() == [96, 97, 98]


def test_seams_of_a_whole_pilatus_and_of_an_unknown_detector():
    good = virtual_pixel_mask(panel_of((2527, 2463)))
    one = virtual_pixel_mask(panel_of((195, 487)))
    assert (good[212 * 3 : 212 * 3 + 195, 494 * 2 : 494 * 2 + 487] == one).all()
    assert virtual_pixel_mask(panel_of((1024, 1024), 0.08)).all()
    eiger = virtual_pixel_mask(panel_of((514, 1030), 0.075))
    assert np.flatnonzero(~eiger.any(axis=1)).tolist() == [255, 256, 257, 258]
    assert len(np.flatnonzero(~eiger.any(axis=0))) == 3 * 4
