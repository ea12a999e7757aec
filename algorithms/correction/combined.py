"""All corrections together: the built-in ones and those of other packages."""

from __future__ import annotations

import copy

import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.correction.air_attenuation import AirAttenuation
from dials_diffuse.algorithms.correction.detector_efficiency import DetectorEfficiency
from dials_diffuse.algorithms.correction.geometry import PixelGeometry
from dials_diffuse.algorithms.correction.lorentz import Lorentz
from dials_diffuse.algorithms.correction.model import CorrectionModel
from dials_diffuse.algorithms.correction.polarisation import Polarisation
from dials_diffuse.algorithms.correction.solid_angle import SolidAngle
from dials_diffuse.plugins import plugin_classes

BUILT_IN = (SolidAngle, Polarisation, DetectorEfficiency, AirAttenuation, Lorentz)

#: Entry points of this group add corrections: see docs/extending.md.
PLUGIN_GROUP = "dials_diffuse.correction"


#: Minimum, sum, maximum of a factor, and at how many positions, by the correction's name.
Seen = dict[str, tuple[float, float, float, int]]


def correction_models() -> dict[str, type[CorrectionModel]]:
    """Classes of all corrections by name: the built-in ones, then plug-ins in alphabetical order.

    Raises
    ------
    Sorry
        If a plug-in cannot be loaded, is not a CorrectionModel with a ``use`` switch, or takes another's name.
    """
    return plugin_classes(PLUGIN_GROUP, CorrectionModel, BUILT_IN, "correction", _check)


def _check(which: str, model: type[CorrectionModel]) -> None:
    if not hasattr(model.phil_scope.extract(), "use"):
        raise Sorry(f"The phil_scope of {which[0].lower()}{which[1:]} has no `use`.")


def correction_scope() -> libtbx.phil.scope:
    """The PHIL scope ``correction``, with one scope for every correction."""
    scopes = [model.phil_scope.customized_copy(name=name) for name, model in correction_models().items()]
    return libtbx.phil.scope(name="", objects=[libtbx.phil.scope(name="correction", objects=scopes)])


class CombinedCorrection:
    """The product of all corrections that are switched on.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Values of the scope ``correction`` of :func:`correction_scope`.

    Attributes
    ----------
    models : list of CorrectionModel
        Those in use.
    seen : dict of str to (float, float, float, int)
        Of each factor, by the correction's name: minimum, sum, maximum and number of positions so far.
    """

    def __init__(self, params: libtbx.phil.scope_extract) -> None:
        classes = correction_models()
        self.models = [model(getattr(params, name)) for name, model in classes.items() if getattr(params, name).use]
        self.seen: Seen = {}

    def split(self) -> tuple[CombinedCorrection, CombinedCorrection]:
        """The corrections that are the same on all frames, and the others."""
        parts = copy.copy(self), copy.copy(self)
        for part, constant in zip(parts, (True, False)):
            part.models = [model for model in self.models if model.same_on_all_frames is constant]
        return parts

    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        """The product of the factors at positions on one panel of one experiment.

        Returns
        -------
        ndarray, shape (n,), float
            Finite and positive; with the solid angle in use, in steradian.

        Raises
        ------
        Sorry
            If a correction gives anything but one finite, positive number a position.
        """
        product = np.ones(len(geometry.xyz))
        for model in self.models:
            factor = np.asarray(model.factor(geometry))
            if factor.shape != product.shape:
                raise Sorry(f"The correction {model.name} gives {factor.shape} values for {len(product)} positions.")
            if bad := np.count_nonzero(~(np.isfinite(factor) & (factor > 0))):
                raise Sorry(
                    f"The correction {model.name} is zero, negative or infinite for {bad} observations on panel "
                    f"{geometry.panel_index}: check the geometry, or switch it off (correction.{model.name}.use=False)."
                )
            if len(factor):
                of_these = float(factor.min()), float(factor.sum()), float(factor.max()), len(factor)
                self.add_seen({model.name: of_these})
            product *= factor
        return product

    def add_seen(self, others: Seen) -> None:
        """Add what was seen elsewhere."""
        for name, other in others.items():
            least, total, most, number = self.seen.get(name, (np.inf, 0.0, -np.inf, 0))
            self.seen[name] = min(least, other[0]), total + other[1], max(most, other[2]), number + other[3]

    def summary(self) -> dict[str, dict[str, float]]:
        """Minimum, mean and maximum of each factor over all positions so far, by the correction's name."""
        return {
            name: {"minimum": least, "mean": total / number, "maximum": most}
            for name, (least, total, most, number) in self.seen.items()
        }
