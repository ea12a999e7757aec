from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model import Detector

from dials_diffuse.algorithms.masking.mask_file import read_mask, write_mask


@pytest.fixture
def detector():
    detector = Detector()
    for size in ((7, 5), (4, 3)):
        panel = detector.add_panel()
        panel.set_image_size(size)
    return detector


def test_round_trip(tmp_path, detector):
    rng = np.random.default_rng(0)
    mask = tuple(rng.random(shape) > 0.5 for shape in ((5, 7), (3, 4)))
    write_mask(mask, tmp_path / "pixels.mask")
    read = read_mask(tmp_path / "pixels.mask", detector)
    assert all((a == b).all() for a, b in zip(mask, read))
    with open(tmp_path / "pixels.mask", "rb") as handle:  # as DIALS reads it
        panels = pickle.load(handle)
    assert isinstance(panels, tuple) and all(isinstance(panel, flex.bool) for panel in panels)
    assert [panel.focus() for panel in panels] == [(5, 7), (3, 4)]


def test_mask_as_dials_writes_it(tmp_path, detector):
    with open(tmp_path / "pixels.mask", "wb") as handle:
        pickle.dump((flex.bool(flex.grid(5, 7), True), flex.bool(flex.grid(3, 4), False)), handle)
    read = read_mask(tmp_path / "pixels.mask", detector)
    assert read[0].all() and not read[1].any()


def test_mask_of_another_detector(tmp_path, detector):
    write_mask((np.ones((5, 7), dtype=bool),), tmp_path / "pixels.mask")
    with pytest.raises(Sorry, match="another detector: it has 1 panel of 7 x 5 pixels, these images have 2 panels"):
        read_mask(tmp_path / "pixels.mask", detector)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("content", [Malicious(), [1, 2], (flex.int(3),), "text", {"a": 1}])
def test_unpickling_runs_no_code(tmp_path, monkeypatch, detector, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.mask").write_bytes(pickle.dumps(content))
    with pytest.raises(Sorry, match="evil.mask is not a pixel mask"):
        read_mask("evil.mask", detector)
    assert not (tmp_path / "hacked").exists()


def test_garbage_and_missing_files(tmp_path, detector):
    (tmp_path / "garbage.mask").write_bytes(b"\x00\x01garbage")
    with pytest.raises(Sorry, match="garbage.mask is not a pixel mask"):
        read_mask(tmp_path / "garbage.mask", detector)
    with pytest.raises(Sorry, match="Cannot read the mask .*nowhere.mask"):
        read_mask(tmp_path / "nowhere.mask", detector)
