from __future__ import annotations

import subprocess
import sys

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dials_session import dials
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.algorithms.scaling.design import Design
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.places import Places
from dials_diffuse.parameters import parameters


def params(**changes):
    scaling = parameters("scale").scaling
    for name, value in changes.items():
        setattr(scaling, name, value)
    return scaling


def model_of(experiment, *names, **changes):
    return DiffuseScalingModel.for_experiment(experiment, names or ["scale"], params(**changes), 2.2)


@pytest.mark.parametrize("n_frames,interval", [(90, 5), (90, 60), (3, 5), (1, 5), (360, 1)])
def test_knots_cover_the_scan(n_frames, interval):
    (axis,) = model_of(observation_data.experiment(0, n_frames), scale_interval=interval).components["scale"].axes
    np.testing.assert_allclose(axis.knots([0, n_frames]), [0, axis.n_intervals])
    assert axis.spacing <= interval


def test_scan_that_does_not_begin_at_the_first_image():
    experiment = observation_data.experiment(0, 90)
    experiment.scan = experiment.scan[30:90]
    (axis,) = model_of(experiment).components["scale"].axes
    zeros = np.zeros(2)
    places = Places(experiment, zeros.astype(int), zeros, zeros, np.array([30.0, 90.0]), zeros)
    np.testing.assert_allclose(axis.knots(places.phi), [0, axis.n_intervals])


def test_still_has_one_factor():
    experiment = observation_data.experiment(0)
    experiment.scan = None
    model = model_of(experiment, "scale", "absorption", "offset")
    assert model.n_params == 1 and list(model.components) == ["scale"]


@pytest.fixture
def full_model():
    model = model_of(observation_data.experiment(0), "scale", "absorption", "offset", "detector", "modules")
    rng = np.random.default_rng(0)
    for term in model.terms:
        term.parameters = flex.double(rng.uniform(0.8, 1.2, term.n_params))
        term.parameter_esds = flex.double(term.n_params, 0.01)
    model.configdict["error_model_parameters"] = [1.1, 0.02]
    return model


@pytest.mark.parametrize("name", ["scale", "absorption", "offset", "detector"])
def test_values_are_those_of_dials_components(name, full_model):
    """DIALS evaluates its component; we evaluate ours through the table of basis functions."""
    rng = np.random.default_rng(1)
    experiment, n = observation_data.experiment(0), 500
    frame, fast, slow, q = rng.uniform(0, 90, n), *rng.uniform(0, 60, (2, n)), rng.uniform(0.01, 1 / 2.2, n)
    table = flex.reflection_table()
    table["xyzobs.px.value"] = flex.vec3_double(*map(flex.double, (fast, slow, frame)))
    table["panel"], table["d"] = flex.size_t(n, 0), flex.double(1 / q)
    full_model.configure_components(table, experiment, None)
    term = full_model.components[name]
    term.update_reflection_data()
    expected = np.array(term.calculate_scales())
    model = DiffuseScalingModel([term])
    design = Design([model])
    zeros = np.zeros(n, dtype=np.int32)
    placed = design.place(ExperimentList([experiment]), zeros, zeros, np.stack([fast, slow, frame], axis=1), q)
    found = placed.values(design.parameters).terms[:, 0]
    assert np.sqrt(np.mean((found - expected) ** 2)) < 2e-3  # DIALS's weights jump where the farthest neighbour changes
    assert np.ptp(expected) > 0.1


def test_survives_the_experiment_file(tmp_path, full_model):
    """DIALS itself finds the plug-in by its entry point."""
    experiments = ExperimentList([observation_data.experiment(0)])
    experiments[0].scaling_model = full_model
    experiments.as_file(str(tmp_path / "scaled.expt"))
    read = ExperimentListFactory.from_json_file(str(tmp_path / "scaled.expt"), check_format=False)[0].scaling_model
    assert isinstance(read, DiffuseScalingModel)
    assert read.is_scaled
    assert read.to_dict() == full_model.to_dict()
    assert "Absorption component" in str(read)


def test_survives_programs_of_dials(tmp_path, full_model):
    """Those that keep scaling models: dials.combine_experiments leaves out DIALS's own, too."""
    dataset, _ = observation_data.make_dataset(1, sweeps=2, n_frames=4, samples=10)
    for experiment in dataset.experiments:
        experiment.scaling_model = full_model
    dataset.write(tmp_path / "scaled.expt", tmp_path / "scaled.refl")
    dials(tmp_path, "split_experiments", "scaled.expt", "scaled.refl")
    for name in ("split_0.expt", "split_1.expt"):
        (experiment,) = ExperimentListFactory.from_json_file(str(tmp_path / name), check_format=False)
        assert experiment.scaling_model.to_dict() == full_model.to_dict()
    dials(tmp_path, "show", "split_0.expt")
    assert "Absorption component" in (tmp_path / "dials.show.out").read_text()


def test_dials_scale_can_make_one():
    from dials.algorithms.scaling.model.model import model_phil_scope

    params = model_phil_scope.extract()
    params.diffuse.scale_interval = 30
    experiment = observation_data.experiment(0)
    model = DiffuseScalingModel.from_data(params, experiment, None)
    table = flex.reflection_table()
    table["xyzobs.px.value"] = flex.vec3_double([(0, 0, 15), (0, 0, 75)])
    model.configure_components(table, experiment, params)
    assert model.n_params == 5
    np.testing.assert_allclose(model.components["scale"].data["x"], [0.5, 2.5])
    assert model.consecutive_refinement_order == [["scale"]]


@pytest.mark.parametrize(
    "first",
    ["dials_diffuse.algorithms.scaling.model", "dials.algorithms.scaling.model.model", "dials.command_line.scale"],
)
def test_whoever_imports_first(first):
    code = f"import dials_diffuse, {first}, dials_diffuse.algorithms.scaling.scale"
    subprocess.run([sys.executable, "-c", code], check=True)
