from __future__ import annotations

import subprocess
import sys

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dxtbx.model.experiment_list import ExperimentList, ExperimentListFactory

from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel


def model_of(n_frames=90, interval=5.0):
    return DiffuseScalingModel.for_experiment(observation_data.experiment(0, n_frames), interval)


@pytest.mark.parametrize("n_frames,interval", [(90, 5), (90, 60), (3, 5), (1, 5), (360, 1)])
def test_knots_cover_the_scan(n_frames, interval):
    model = model_of(n_frames, interval)
    term = model.components["scale"]
    x = model.knots(np.array([0, n_frames]))
    assert x[0] == 0
    assert 0.99 * term.n_intervals < x[1] <= term.n_intervals
    assert model.configdict["scale_rot_interval"] <= max(interval, 1) + 1e-4


def test_scan_that_does_not_begin_at_the_first_image():
    experiment = observation_data.experiment(0, 90)
    experiment.scan = experiment.scan[30:90]
    model = DiffuseScalingModel.for_experiment(experiment, 5)
    assert model.knots(np.array([30.0]))[0] == 0


def test_still_has_one_factor():
    experiment = observation_data.experiment(0)
    experiment.scan = None
    model = DiffuseScalingModel.for_experiment(experiment, 5)
    assert model.n_params == 1
    assert (model.knots(np.array([0.5, 7.5])) == 0).all()


def test_survives_the_experiment_file(tmp_path):
    """DIALS itself finds the plug-in by its entry point."""
    experiments = ExperimentList([observation_data.experiment(0)])
    model = DiffuseScalingModel.for_experiment(experiments[0], 10)
    term = model.components["scale"]
    term.parameters = flex.double(np.linspace(0.8, 1.2, term.n_params))
    term.parameter_esds = flex.double(term.n_params, 0.01)
    experiments[0].scaling_model = model
    experiments.as_file(str(tmp_path / "scaled.expt"))
    read = ExperimentListFactory.from_json_file(str(tmp_path / "scaled.expt"), check_format=False)[0].scaling_model
    assert isinstance(read, DiffuseScalingModel)
    assert read.is_scaled
    assert read.to_dict() == model.to_dict()
    assert "Scale component" in str(read)


def test_dials_scale_can_make_one():
    from dials.algorithms.scaling.model.model import model_phil_scope

    params = model_phil_scope.extract()
    params.diffuse.scale_interval = 30
    model = DiffuseScalingModel.from_data(params, observation_data.experiment(0), None)
    table = flex.reflection_table()
    table["xyzobs.px.value"] = flex.vec3_double([(0, 0, 10.5), (0, 0, 80.5)])
    model.configure_components(table, None, params)
    assert model.n_params == 5
    np.testing.assert_allclose(model.components["scale"].data["x"], model.knots(np.array([10.5, 80.5])))
    assert model.consecutive_refinement_order == [["scale"]]


@pytest.mark.parametrize(
    "first",
    ["dials_diffuse.algorithms.scaling.model", "dials.algorithms.scaling.model.model", "dials.command_line.scale"],
)
def test_whoever_imports_first(first):
    code = f"import dials_diffuse, {first}, dials_diffuse.algorithms.scaling.scale"
    subprocess.run([sys.executable, "-c", code], check=True)
