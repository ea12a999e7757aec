"""The scaling model that an experiment carries: a plug-in that DIALS loads by itself (keep its import light)."""

from __future__ import annotations

from typing import Any

import libtbx.phil
import numpy as np
from dials.algorithms.scaling.model.model import ScalingModelBase, initialise_smooth_input
from dials.array_family import flex
from dxtbx.model import Experiment
from iotbx.phil import parse

from dials_diffuse.algorithms.scaling.scale_term import ScaleTerm
from dials_diffuse.phil_scope.scale import model_phil_str

#: The terms of the model by the names of their components.
TERMS = {"scale": ScaleTerm}


class DiffuseScalingModel(ScalingModelBase):
    """Scaling of diffuse intensities: I_obs = b(phi) I.

    Parameters
    ----------
    parameters_dict : dict
        For each term in ``configdict["corrections"]``: ``{"parameters": flex.double, "parameter_esds": flex.double or
        None}``.
    configdict : dict
        ``corrections``, the names of the terms; ``scale_rot_interval``, degrees between knots; ``s_norm_fac``, knots to
        a frame (both None for a still).
    """

    id_ = "diffuse"
    phil_scope = parse(model_phil_str)

    def __init__(self, parameters_dict: dict, configdict: dict, is_scaled: bool = False) -> None:
        super().__init__(configdict, is_scaled)
        for name in configdict["corrections"]:
            self._components[name] = TERMS[name](
                parameters_dict[name]["parameters"], parameters_dict[name]["parameter_esds"]
            )

    @classmethod
    def for_experiment(cls, experiment: Experiment, scale_interval: float) -> DiffuseScalingModel:
        """The model of an experiment before refinement: b = 1.

        Parameters
        ----------
        experiment : Experiment
            Knots are laid over its whole scan; a still gets one factor.
        scale_interval : float
            Degrees between knots; made a little smaller so that knots fit the scan.
        """
        configdict: dict[str, Any] = {"corrections": ["scale"], "scale_rot_interval": None, "s_norm_fac": None}
        n_parameters = 1
        if experiment.scan is not None and not experiment.scan.is_still():
            scan = experiment.scan
            n_parameters, configdict["s_norm_fac"], configdict["scale_rot_interval"] = initialise_smooth_input(
                scan.get_oscillation_range(), scan.get_oscillation()[1], scale_interval
            )
            configdict["first_frame"] = scan.get_array_range()[0]
        return cls({"scale": {"parameters": flex.double(n_parameters, 1.0), "parameter_esds": None}}, configdict)

    @classmethod
    def from_data(
        cls, params: libtbx.phil.scope_extract, experiment: Experiment, reflection_table: flex.reflection_table
    ) -> DiffuseScalingModel:
        """As dials.scale calls it, with the parameters of this model in the scope ``diffuse``."""
        return cls.for_experiment(experiment, params.diffuse.scale_interval)

    @classmethod
    def from_dict(cls, obj: dict) -> DiffuseScalingModel:
        """The model that :meth:`to_dict` wrote."""
        if obj["__id__"] != cls.id_:
            raise RuntimeError(f"expected __id__ {cls.id_}, got {obj['__id__']}")
        configdict = obj["configuration_parameters"]
        parameters = {}
        for name in configdict["corrections"]:
            esds = obj[name].get("est_standard_devs")
            parameters[name] = {
                "parameters": flex.double(obj[name]["parameters"]),
                "parameter_esds": flex.double(esds) if esds else None,
            }
        return cls(parameters, configdict, is_scaled=True)

    def knots(self, frame: np.ndarray) -> np.ndarray:
        """Positions, array index units as ``xyzobs.px.value`` z, shape (n,), in units of the knots of b, from 0."""
        if self.configdict["s_norm_fac"] is None:
            return np.zeros(len(frame))
        return (np.asarray(frame) - self.configdict["first_frame"]) * self.configdict["s_norm_fac"]

    def configure_components(
        self, reflection_table: flex.reflection_table, experiment: Experiment, params: libtbx.phil.scope_extract
    ) -> None:
        """Give the terms what they need of the observations (called by DIALS)."""
        frame = np.asarray(reflection_table["xyzobs.px.value"].parts()[2])
        self.components["scale"].data = {"x": flex.double(self.knots(frame))}

    @property
    def consecutive_refinement_order(self) -> list[list[str]]:
        """For dials.scale: all terms at once."""
        return [list(self.components)]
