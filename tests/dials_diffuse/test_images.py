"""Frames as arrays: the shortcuts past dxtbx give what dxtbx gives."""

from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import BeamFactory, Detector, GoniometerFactory, ScanFactory
from dxtbx.model.experiment_list import ExperimentListFactory

from dials_diffuse.algorithms.simulation.cbf import Header, write_image
from dials_diffuse.algorithms.simulation.instrument import GAP, MODULE
from dials_diffuse.algorithms.simulation.nxmx import NXmxWriter
from dials_diffuse.images import frame_arrays


def counts(shape, seed):
    return np.random.default_rng(seed).integers(-2, 300, shape).astype(np.int32)


@pytest.fixture
def pilatus(tmp_path):
    """Two images of a 300K: three modules above each other."""
    header = Header(
        model="300K",
        wavelength=1.0,
        distance=100,
        beam_centre=(240, 300),
        thickness=0.32,
        exposure=0.1,
        start=0,
        width=0.5,
        polarisation_fraction=0.99,
    )
    images = [counts((3 * MODULE[1] + 2 * GAP[1], MODULE[0]), seed) for seed in (1, 2)]
    files = [tmp_path / f"pilatus_{number:04d}.cbf" for number in (1, 2)]
    for number, (image, name) in enumerate(zip(images, files)):
        write_image(image, header, number, name)
    return files, images


def test_panels_cut_from_one_image(pilatus):
    files, images = pilatus
    (whole,) = ExperimentListFactory.from_filenames([str(name) for name in files])
    (cut,) = ExperimentListFactory.from_filenames([str(name) for name in files], format_kwargs={"multi_panel": True})
    assert len(cut.detector) == 3
    for index, image in enumerate(images):
        assert np.array_equal(frame_arrays(whole.imageset, index)[0], image)
        panels = frame_arrays(cut.imageset, index)
        for panel, expected in zip(panels, cut.imageset.get_raw_data(index)):
            assert np.array_equal(panel, flumpy.to_numpy(expected))
        top = MODULE[1] + GAP[1]
        assert np.array_equal(panels[1], image[top : top + MODULE[1]])


def test_panels_without_a_place_in_the_image(pilatus):
    """A detector model that somebody made by hand does not tell where its panels lie: dxtbx knows."""
    files, images = pilatus
    (cut,) = ExperimentListFactory.from_filenames([str(name) for name in files], format_kwargs={"multi_panel": True})
    detector = Detector()
    for panel in cut.detector:
        copied = detector.add_panel(panel)
        copied.set_raw_image_offset((0, 0))
    cut.imageset.set_detector(detector)
    assert np.array_equal(np.concatenate(frame_arrays(cut.imageset, 0)), np.concatenate(modules(images[0])))


def modules(image):
    height = MODULE[1] + GAP[1]
    return [image[i * height : i * height + MODULE[1]] for i in range(3)]


def test_a_damaged_image_is_named(pilatus):
    files, _ = pilatus
    kwargs = {"multi_panel": True}
    (cut,) = ExperimentListFactory.from_filenames([str(name) for name in files], format_kwargs=kwargs)
    files[1].write_bytes(files[1].read_bytes()[:3000])
    with pytest.raises(Sorry, match="pilatus_0002.cbf"):
        frame_arrays(cut.imageset, 1)


def test_modules_of_a_nexus_file_are_read_in_time(tmp_path):
    """An image larger than HDF5's own cache is decompressed once, not for every module."""
    from time import process_time

    size = (1024, 32)
    experiments = []
    for modules in (1, 32):
        detector = Detector()
        for number in range(modules):
            panel = detector.add_panel()
            panel.set_frame((1, 0, 0), (0, -1, 0), (-50.0, 50 - 3.2 * number, -100))
            panel.set_pixel_size((0.1, 0.1))
            panel.set_image_size((size[0], size[1] * 32 // modules))
            panel.set_trusted_range((0, 1000))
            panel.set_thickness(0.45)
            panel.set_material("Si")
            panel.set_raw_image_offset((0, size[1] * number))
        filename = tmp_path / f"{modules}.nxs"
        with NXmxWriter(
            filename,
            beam=BeamFactory.simple(1.0),
            detector=detector,
            goniometer=GoniometerFactory.single_axis(),
            scan=ScanFactory.make_scan((1, 4), [1] * 4, (0, 0.1), dict.fromkeys(range(1, 5), 0)),
        ) as writer:
            for frame in range(4):
                image = counts((1024, 1024), frame)
                writer.write(frame, tuple(np.split(image, modules)))
        experiments += ExperimentListFactory.from_filenames([str(filename)])
    whole, cut = (experiment.imageset for experiment in experiments)
    seconds = {}
    for imageset in (whole, cut):
        began = process_time()
        frames = [frame_arrays(imageset, index) for index in range(4)]
        seconds[len(imageset.get_detector())] = process_time() - began
        assert all(np.array_equal(np.concatenate(frame), counts((1024, 1024), i)) for i, frame in enumerate(frames))
    assert seconds[32] < 6 * seconds[1]  # 20 times and more without
