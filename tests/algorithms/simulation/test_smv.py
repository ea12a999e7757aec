"""SMV images through dxtbx's own reader."""

from __future__ import annotations

import dxtbx
import numpy as np
import pytest
from dxtbx import flumpy
from dxtbx.model import BeamFactory, DetectorFactory
from dxtbx.model.experiment_list import ExperimentListFactory

from dials_diffuse.algorithms.simulation.smv import write_smv


@pytest.fixture
def images(tmp_path):
    beam = BeamFactory.simple(0.97)
    panel = DetectorFactory.simple("CCD", 120, (8, 9), "+x", "-y", (0.1, 0.1), (150, 170), (0, 1), [])[0]
    random = np.random.default_rng(3)
    series = random.integers(0, 65536, (3, 170, 150)).astype(np.int32)
    series[0, 0, :2] = -5, 70000
    for number, counts in enumerate(series, 1):
        write_smv(
            tmp_path / f"ccd_{number:04d}.img",
            counts,
            beam=beam,
            panel=panel,
            distance=120.5,
            beam_centre_px=(70.25, 90.5),
            exposure=2.5,
            start=10 + 0.4 * number,
            width=0.4,
            gain=2,
            pedestal=40,
            image_number=number,
        )
    return sorted(tmp_path.glob("*.img")), series


def test_models_and_pixels(images):
    files, series = images
    (experiment,) = ExperimentListFactory.from_filenames([str(name) for name in files])
    assert dxtbx.load(str(files[0])).__class__.__name__ == "FormatSMVADSC"
    (panel,) = experiment.detector
    assert panel.get_gain() == 2
    assert panel.get_pedestal() == 40
    assert panel.get_image_size() == (150, 170)
    assert panel.get_distance() == pytest.approx(120.5)
    assert panel.get_beam_centre_px(experiment.beam.get_s0()) == pytest.approx((70.25, 90.5))
    assert panel.get_trusted_range()[1] >= 65534 - 40
    assert experiment.beam.get_wavelength() == pytest.approx(0.97)
    assert experiment.scan.get_oscillation() == pytest.approx((10.4, 0.4))
    assert experiment.scan.get_image_range() == (1, 3)
    assert experiment.scan.get_exposure_times()[0] == 2.5
    assert experiment.goniometer.get_rotation_axis() == (1, 0, 0)
    series[0, 0, :2] = 0, 65535  # beyond what the converter can say
    for index, counts in enumerate(series):
        (raw,) = experiment.imageset.get_raw_data(index)
        assert np.array_equal(flumpy.to_numpy(raw), counts)
