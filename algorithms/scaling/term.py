"""What all terms of the scaling model have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import libtbx.phil
import numpy as np
from dials.algorithms.scaling.model.components.smooth_scale_components import (
    GaussianSmoother1D,
    GaussianSmoother2D,
    GaussianSmoother3D,
)
from dials.array_family import flex
from dxtbx.model import Experiment

from dials_diffuse.algorithms.scaling.axis import Axis, basis_table
from dials_diffuse.algorithms.scaling.places import Places

SMOOTHERS = {1: GaussianSmoother1D, 2: GaussianSmoother2D, 3: GaussianSmoother3D}


class Term:
    """A term: a function of up to three coordinates, linear in its parameters (or the exponential of such a one).

    To be mixed in before the component of DIALS whose parameters and serialisation it shares. DIALS's own smooth
    components build their smoother anew for every selection of the data and take the smallest coordinate in it for the
    origin; here it depends on the axes alone, so that coordinates mean the same whichever observations are looked at.

    Attributes
    ----------
    name : str
        Of the component, in files, on the command line.
    role : str
        ``outer``: multiplies everything (a, d); ``inner``: multiplies the crystal's intensity only (b); ``offset``: is
        added to it (c).
    shared : bool
        One for all experiments that have the same :meth:`to_config`.
    exponential : bool
        The term is exp(covariate x linear function) in place of the linear function.
    null_parameter_value : float
        Of the parameters of a term that does nothing.
    nil_in_reference : bool
        What the term is on the whole cannot be told from the intensities: the mean of its linear function over the
        reference sweep is fixed at ``null_parameter_value``.
    least_rotation : float
        Degrees that the longest sweep must have for ``scaling.terms=Auto`` to try the term.
    axes : tuple of Axis
        Empty for a single factor.
    """

    name: ClassVar[str]
    role: ClassVar[str]
    shared: ClassVar[bool] = False
    exponential: ClassVar[bool] = False
    null_parameter_value: ClassVar[float] = 1.0
    nil_in_reference: ClassVar[bool] = False
    least_rotation: ClassVar[float] = 0.0

    axes: tuple[Axis, ...]

    def __init__(
        self, axes: tuple[Axis, ...], parameters: flex.double | None = None, esds: flex.double | None = None
    ) -> None:
        self.axes = tuple(axes)
        if parameters is None:
            parameters = flex.double(int(np.prod(self.shape)), self.null_parameter_value)
        if len(self.axes) < 2:
            super().__init__(parameters, esds)
        else:
            super().__init__(parameters, self.shape, esds)

    @classmethod
    def for_experiment(cls, experiment: Experiment, params: libtbx.phil.scope_extract, d_min: float) -> Term | None:
        """The term of an experiment before refinement, or None if the experiment can have none.

        Parameters
        ----------
        experiment : Experiment
        params : libtbx.phil.scope_extract
            The ``scaling`` scope of :data:`dials_diffuse.phil_scope.scale.phil_scope`.
        d_min : float
            Of the grid, Angstrom.
        """
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """What :meth:`from_config` needs besides the parameters, JSON-ready."""
        return {"axes": [axis.to_dict() for axis in self.axes]}

    @classmethod
    def from_config(cls, config: dict[str, Any], parameters: flex.double, esds: flex.double | None) -> Term:
        """The term as it was written."""
        return cls(tuple(Axis(**axis) for axis in config["axes"]), parameters, esds)

    def rows(self, places: Places) -> list[np.ndarray]:
        """Rows of each axis' table of basis functions, int32, shape (n,) each."""
        return [axis.table_row(getattr(places, axis.coordinate)) for axis in self.axes]

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of parameters along the axes; the first runs fastest, as in DIALS."""
        return tuple(axis.n_params for axis in self.axes)

    def tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Basis functions of each axis, see :func:`~dials_diffuse.algorithms.scaling.axis.basis_table`."""
        return [basis_table(axis.n_params) for axis in self.axes]

    def covariate(self, places: Places) -> np.ndarray | None:
        """What the linear function is multiplied by, shape (n,); None for 1."""
        return None

    def update_reflection_data(self, selection=None, block_selections=None) -> None:
        """See ScaleComponentBase; the origin stays where it is."""
        names = "xyz"[: len(self.axes)]
        values = [self.data[name] if selection is None else self.data[name].select(selection) for name in names]
        ranges = [argument for axis in self.axes for argument in ([0, axis.n_intervals], axis.n_intervals)]
        self._smoother = SMOOTHERS[len(self.axes)](*ranges)
        for name, value in zip(names, values):
            blocks = [value.select(block) for block in block_selections] if block_selections else [value]
            setattr(self, "_normalised_values" if len(names) == 1 else f"_normalised_{name}_values", blocks)
            self._n_refl = [block.size() for block in blocks]
