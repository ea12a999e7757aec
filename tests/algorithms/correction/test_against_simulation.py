"""Extraction and correction of simulated images, whose forward model shares no code with them."""

from __future__ import annotations

import numpy as np
import pytest
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentListFactory
from iotbx.phil import parse

from dials_diffuse.algorithms.correction.correct import correct
from dials_diffuse.algorithms.extraction.extract import extract
from dials_diffuse.algorithms.masking.mask_file import write_mask
from dials_diffuse.algorithms.simulation.simulate import simulate
from dials_diffuse.command_line.diffuse_extract import phil_scope as extract_scope
from dials_diffuse.phil_scope.correct import phil_scope as correct_scope
from dials_diffuse.phil_scope.simulate import phil_scope as simulate_scope

SIMULATION = """
detector { model = 100K
  distance = 60 }
sweeps = 1
frames = 6
exposure = 0.2
photons = 0.5
nproc = 1
bragg.photons = 0
halos.strength = 0
background { photons = 0.3
  images = 8
  exposure = 5 }
"""
EXTRACTION = "extract.mode = pixel\nmask.virtual_pixels = False\ngrid.d_min = 0.9\nnproc = 1"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The truth, and the true experiment's pixels, corrected."""
    folder = tmp_path_factory.mktemp("simulated")
    truth = simulate(simulate_scope.fetch(parse(SIMULATION)).extract(), folder)
    names = sorted(str(path) for path in folder.glob("background_*.cbf"))
    background = ExperimentListFactory.from_filenames(names)
    background.as_json(str(folder / "bkg.expt"))
    experiments = truth.experiments(check_format=True)
    for panel, imported in zip(experiments[0].detector, background[0].detector):
        panel.set_trusted_range(imported.get_trusted_range())  # means different things to dxtbx's versions
    params = extract_scope.fetch(parse(EXTRACTION)).extract()
    params.bragg_mask.mode = "none"
    dataset = extract(experiments, None, params)
    params = correct_scope.extract()
    params.background = [str(folder / "bkg.expt")]
    params.background_model.mask = str(folder / "pixels.mask")
    write_mask(truth.mask(), params.background_model.mask)
    return truth, correct(dataset, params).observations


def test_response_background_and_intensity(simulated):
    truth, table = simulated
    x, y, z = flumpy.to_numpy(table["xyzobs.px.value"]).T
    pixel = (y.astype(int), x.astype(int))
    good = truth.mask()[0][pixel]
    assert np.count_nonzero(good) > 3e5
    counts, g, background, found, variance = (
        flumpy.to_numpy(table[name])
        for name in (
            "counts",
            "response",
            "background.sum.value",
            "intensity.sum.value",
            "intensity.sum.variance",
        )
    )
    assert np.allclose(g, 0.2 * truth.pixels[0].response[pixel], rtol=2e-4)

    true_background = 0.2 * truth.background_rate()[0][pixel]
    assert background[good].sum() == pytest.approx(true_background[good].sum(), rel=5e-3)
    inner = good & (np.abs(x - 243) < 150) & (np.abs(y - 97) < 60)
    assert np.std((background / true_background)[inner]) < 0.03

    expected = np.zeros_like(counts)
    for frame in range(6):
        rows = z.astype(int) == frame
        expected[rows] = truth.expected_image(0, frame)[0][pixel][rows]
    signal = expected - true_background
    assert np.sum((counts - background)[good]) == pytest.approx(signal[good].sum(), rel=0.01)
    true_intensity = signal / g
    z_score = (found - true_intensity)[good] / np.sqrt(variance[good])
    assert np.mean(z_score**2) == pytest.approx(1, abs=0.02)
    weight = 1 / variance[good]
    assert np.sum(weight * found[good]) / np.sum(weight * true_intensity[good]) == pytest.approx(1, abs=0.01)
