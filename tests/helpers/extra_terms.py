"""Scaling terms that the package does not have, as a plug-in would bring them."""

from __future__ import annotations

from collections.abc import Sequence

from dials.algorithms.scaling.model.components.smooth_scale_components import SmoothScaleComponent1D

from dials_diffuse.algorithms.scaling import terms
from dials_diffuse.algorithms.scaling.axis import Axis
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.term import Term


class FalloffTerm(Term, SmoothScaleComponent1D):
    """exp(-B(phi) |q|^2)."""

    name = "falloff"
    role = "inner"
    exponential = True
    null_parameter_value = 0.0

    @classmethod
    def for_experiment(cls, experiment, params, d_min):
        return cls((Axis.over("phi", *experiment.scan.get_oscillation_range(), 10),))

    def covariate(self, places):
        return -(places.q**2)


class DampingTerm(FalloffTerm):
    """exp(-f(phi)), of everything."""

    name = "damping"
    role = "outer"

    def covariate(self, places):
        return None


class GlowTerm(FalloffTerm):
    """exp(f(phi)) of excess background."""

    name = "glow"
    role = "offset"

    def covariate(self, places):
        return None


class SlopeTerm(FalloffTerm):
    """f(phi) |q|^2 of excess background: nothing in the middle."""

    name = "slope"
    role = "offset"
    exponential = False

    def covariate(self, places):
        return places.q**2


class RingsTerm(FalloffTerm):
    """A factor of |q|."""

    name = "rings"
    role = "outer"
    exponential = False
    null_parameter_value = 1.0

    @classmethod
    def for_experiment(cls, experiment, params, d_min):
        return cls((Axis.over("q", 0.0, 0.5, 0.02),))

    def covariate(self, places):
        return None


def use_terms(monkeypatch, *extra: type[Term]) -> None:
    """Let the package know the terms until the test ends."""
    monkeypatch.setattr(terms, "BUILT_IN", (*terms.BUILT_IN, *extra))


def models_of(experiments, names: Sequence[Sequence[str]], scaling, d_min: float = 2.2) -> list[DiffuseScalingModel]:
    """A model for every experiment, each with the terms of its own names."""
    return [DiffuseScalingModel.for_experiment(e, own, scaling, d_min) for e, own in zip(experiments, names)]
