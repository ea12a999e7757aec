"""The scaling model that an experiment carries: a plug-in that DIALS loads by itself (keep its import light)."""

from __future__ import annotations

from collections.abc import Sequence

import libtbx.phil
import numpy as np
from dials.algorithms.scaling.model.model import ScalingModelBase
from dials.array_family import flex
from dxtbx.model import Experiment
from iotbx.phil import parse

from dials_diffuse.algorithms.scaling.places import Places
from dials_diffuse.algorithms.scaling.scale_term import ScaleTerm
from dials_diffuse.algorithms.scaling.term import Term
from dials_diffuse.algorithms.scaling.terms import term_class
from dials_diffuse.phil_scope.scale import model_phil_str


class DiffuseScalingModel(ScalingModelBase):
    """Scaling of diffuse intensities: I_obs = a(x, y, phi) d(x, y) [b(phi) I + c(|q|, phi)].

    Parameters
    ----------
    terms : sequence of Term
        The first is b.
    configdict : dict, optional
        What else is known, such as the error model's parameters.
    """

    id_ = "diffuse"
    phil_scope = parse(model_phil_str)

    def __init__(self, terms: Sequence[Term], configdict: dict | None = None, is_scaled: bool = False) -> None:
        config = {term.name: term.to_config() for term in terms}
        super().__init__({**(configdict or {}), "corrections": [term.name for term in terms], **config}, is_scaled)
        for term in terms:
            self._components[term.name] = term

    @property
    def terms(self) -> list[Term]:
        """The components."""
        return list(self._components.values())

    @classmethod
    def for_experiment(
        cls, experiment: Experiment, names: Sequence[str], params: libtbx.phil.scope_extract, d_min: float
    ) -> DiffuseScalingModel:
        """The model of an experiment before refinement: every term does nothing.

        Parameters
        ----------
        experiment : Experiment
        names : sequence of str
            Of the terms; those that the experiment cannot have are left out.
        params : libtbx.phil.scope_extract
            The ``scaling`` scope of :data:`dials_diffuse.phil_scope.scale.phil_scope`.
        d_min : float
            Of the grid, Angstrom.
        """
        terms = [term_class(name).for_experiment(experiment, params, d_min) for name in names]
        return cls([term for term in terms if term is not None])

    def with_term(self, term: Term | None) -> DiffuseScalingModel:
        """A model of its own, with another term (or none more), and the parameters of this one."""
        terms = [type(t).from_config(t.to_config(), t.parameters.deep_copy(), None) for t in self.terms]
        return type(self)([*terms, *([] if term is None else [term])])

    @classmethod
    def from_data(
        cls, params: libtbx.phil.scope_extract, experiment: Experiment, reflection_table: flex.reflection_table
    ) -> DiffuseScalingModel:
        """As dials.scale calls it, with the parameters of this model in the scope ``diffuse``: b alone."""
        return cls([ScaleTerm.for_experiment(experiment, params.diffuse, 1.0)])

    @classmethod
    def from_dict(cls, obj: dict) -> DiffuseScalingModel:
        """The model that :meth:`to_dict` wrote."""
        if obj["__id__"] != cls.id_:
            raise RuntimeError(f"expected __id__ {cls.id_}, got {obj['__id__']}")
        config, terms = obj["configuration_parameters"], []
        for name in config["corrections"]:
            esds = obj[name].get("est_standard_devs")
            parameters = flex.double(obj[name]["parameters"])
            terms.append(term_class(name).from_config(config[name], parameters, flex.double(esds) if esds else None))
        return cls(terms, config, is_scaled=True)

    def configure_components(
        self, reflection_table: flex.reflection_table, experiment: Experiment, params: libtbx.phil.scope_extract
    ) -> None:
        """Give the terms what they need of the observations (called by DIALS)."""
        x, y, z = (np.asarray(part) for part in reflection_table["xyzobs.px.value"].parts())
        panel = np.asarray(reflection_table["panel"]) if "panel" in reflection_table else np.zeros(len(x), dtype=int)
        q = 1 / np.asarray(reflection_table["d"]) if "d" in reflection_table else np.zeros(len(x))
        places = Places(experiment, panel, x, y, z, q)
        for term in self.terms:
            knots = [axis.knots(getattr(places, axis.coordinate)) for axis in term.axes]
            term.data = {name: flex.double(values) for name, values in zip("xyz", knots)}

    @property
    def consecutive_refinement_order(self) -> list[list[str]]:
        """For dials.scale: all terms at once."""
        return [list(self.components)]
