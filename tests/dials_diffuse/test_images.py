"""Frames as arrays: the shortcuts past dxtbx give what dxtbx gives."""

from __future__ import annotations

import numpy as np
import pytest
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import BeamFactory, Detector, DetectorFactory, Experiment, GoniometerFactory, ScanFactory
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.algorithms.simulation.cbf import Header, write_image
from dials_diffuse.algorithms.simulation.instrument import GAP, MODULE
from dials_diffuse.algorithms.simulation.nxmx import NXmxWriter
from dials_diffuse.algorithms.simulation.smv import write_smv
from dials_diffuse.images import exposure_times, frame_arrays


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


def as_still(path):
    """An experiment of one image without scan, as DIALS has stills."""
    imageset = ImageSetFactory.make_imageset([str(path)])
    return Experiment(detector=imageset.get_detector(0), beam=imageset.get_beam(0), imageset=imageset)


def test_stills_tell_their_exposure_times(tmp_path, pilatus):
    """CBF, SMV and NeXus; whether the images were opened with the experiments or not; unknown if they are gone."""
    files, images = pilatus
    detector = DetectorFactory.simple("PAD", 100, (10, 10), "+x", "-y", (0.1, 0.1), (300, 200), (-1, 1000))
    detector[0].set_material("Si")
    detector[0].set_thickness(0.45)
    smv = tmp_path / "ccd_0001.img"
    header = {"exposure": 0.4, "start": 0, "width": 0, "gain": 1, "pedestal": 0, "image_number": 1}
    geometry = {"beam": BeamFactory.simple(1.0), "panel": detector[0], "distance": 100, "beam_centre_px": (10, 10)}
    write_smv(smv, counts((200, 300), 1) + 2, **geometry, **header)
    parts = {"beam": BeamFactory.simple(1.0), "detector": detector, "goniometer": None, "scan": None}
    nexus = {"told": tmp_path / "told.nxs", "silent": tmp_path / "silent.nxs"}
    for name, exposure in (("told", 0.3), ("silent", None)):
        with NXmxWriter(nexus[name], exposure=exposure, **parts) as writer:
            for frame in range(2):
                writer.write(frame, (counts((200, 300), frame),))
    stills = ExperimentList([as_still(files[0]), as_still(smv)])
    for name in ("told", "silent"):
        stills.extend(ExperimentListFactory.from_filenames([str(nexus[name])]))
    assert all(experiment.scan is None for experiment in stills)
    expected = [0.1, 0.4, 0.3, 0.3, None, None]
    stills.as_json(str(tmp_path / "stills.expt"))
    for check_format in (True, False):
        for experiment, time in zip(ExperimentList.from_file(tmp_path / "stills.expt", check_format), expected):
            found = exposure_times(experiment)
            assert found is None if time is None else found.tolist() == [time]
    files[0].unlink()
    assert exposure_times(stills[0]) is None
    assert exposure_times(Experiment(detector=detector)) is None
