from __future__ import annotations

import json

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.algorithms.absolute.absolute_models import absolute_model
from dials_diffuse.algorithms.scaling.apply import apply_models, term_values
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy
from dials_diffuse.map_file import ABSOLUTE_UNITS, INTENSITY_UNITS
from dials_diffuse.parameters import parameters

FACTOR = 0.04


def incoherent(q):
    """Like that of light atoms: 0 at 0, and level at the end."""
    return 900 * (1 - np.exp(-((q / 0.35) ** 2)))


def scaled(names, seed=0):
    """Observations with models that are far from 1, and smooth."""
    dataset, _ = observation_data.make_dataset(1, n_frames=60, samples=10)
    random = np.random.RandomState(seed)
    for experiment in dataset.experiments:
        model = DiffuseScalingModel.for_experiment(experiment, names, parameters("scale").scaling, 2.2)
        for term in model.terms:
            sizes = term.shape or (1,)
            wave = np.sin(np.linspace(0, 3, int(np.prod(sizes))) + random.uniform(0, 3))
            scale = 40.0 if term.name == "offset" else 0.2
            term.parameters = flex.double(term.null_parameter_value + scale * wave)
            term.parameter_esds = flex.double(term.n_params, 0.01)
        model.configdict["error_model_parameters"] = [1.1, 0.02]
        experiment.scaling_model = model
    apply_models(dataset)
    return dataset


def intensity(dataset):
    """I of each observation, of its own counts."""
    table = dataset.observations
    counts, background, response, offset, factor = (
        flumpy.to_numpy(table[name])
        for name in ("counts", "background.sum.value", "response", "offset.sum.value", "inverse_scale_factor")
    )
    return (counts - background - offset) / response / factor


def put(dataset):
    for experiment in dataset.experiments:
        experiment.scaling_model = absolute_model(experiment, FACTOR, incoherent, dataset.grid.d_min)
    apply_models(dataset)


@pytest.mark.parametrize("names", [["scale"], ["scale", "offset"], ["scale", "absorption", "offset", "detector"]])
def test_intensities_are_coherent_ones(names):
    dataset = scaled(names)
    before = intensity(dataset)
    assert dataset.units == INTENSITY_UNITS
    put(dataset)
    assert dataset.units == ABSOLUTE_UNITS
    q = dataset.grid.q(miller_index_to_numpy(dataset.observations["miller_index"]))
    expected = FACTOR * before - incoherent(q)
    np.testing.assert_allclose(intensity(dataset), expected, atol=1.5)  # c is on knots: within 0.2 % of 900
    kept = [name for name in names if name not in ("scale", "offset")]
    new = term_values(dataset)
    assert set(new) == {*names, "offset"}
    fresh = term_values(scaled(names))
    for name in kept:
        np.testing.assert_array_equal(new[name], fresh[name])
    np.testing.assert_allclose(new["scale"], fresh["scale"] / FACTOR, rtol=1e-9)


def test_errors_and_error_model_are_kept():
    dataset = scaled(["scale"])
    put(dataset)
    model = dataset.experiments[0].scaling_model
    assert model.configdict["error_model_parameters"] == [1.1, 0.02]
    np.testing.assert_allclose(model.components["scale"].parameter_esds, 0.01 / FACTOR)


def test_still():
    experiment = observation_data.experiment(0)
    experiment.scan = None
    model = DiffuseScalingModel.for_experiment(experiment, ["scale"], parameters("scale").scaling, 2.2)
    model.components["scale"].parameters = flex.double([1.7])
    experiment.scaling_model = model
    table = flex.reflection_table()
    table["id"], table["panel"] = flex.int(3, 0), flex.size_t(3, 0)
    table["xyzobs.px.value"] = flex.vec3_double([(30.0, 20.0, 0.5)] * 3)
    table["miller_index"] = flex.miller_index([(2, 1, 0), (5, 3, 4), (9, 2, 11)])
    table["response"] = flex.double(3, 1)
    dataset = Dataset(ExperimentList([experiment]), table, observation_data.GRID)
    put(dataset)
    q = observation_data.GRID.q(miller_index_to_numpy(table["miller_index"]))
    np.testing.assert_allclose(flumpy.to_numpy(table["inverse_scale_factor"]), 1.7 / FACTOR)
    np.testing.assert_allclose(
        flumpy.to_numpy(table["offset.sum.value"]), 1.7 / FACTOR * incoherent(q), atol=1.7 / FACTOR * 1.5
    )


def test_units_are_in_the_file(tmp_path):
    dataset = scaled(["scale"])
    put(dataset)
    name = tmp_path / "absolute.expt"
    dataset.experiments.as_json(str(name))
    read = ExperimentListFactory.from_dict(json.loads(name.read_text()), check_format=False)
    again = Dataset(read, dataset.observations, dataset.grid)
    assert again.units == ABSOLUTE_UNITS
    before = intensity(dataset)
    apply_models(again)
    np.testing.assert_allclose(intensity(again), before, rtol=1e-9)
