"""Scaling models that give coherent intensities in electrons squared at once.

With I = (I' + incoherent) / k, where I' is the coherent intensity in the new units and k the factor,

    b I + c = (b / k) I' + [c + (b / k) incoherent(|q|)]:

b is divided by the factor, and c takes up the incoherent scattering.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from dials.array_family import flex
from dxtbx.model import Experiment

from dials_diffuse.algorithms.scaling.axis import Axis, dense_basis
from dials_diffuse.algorithms.scaling.model import DiffuseScalingModel
from dials_diffuse.algorithms.scaling.offset_term import OffsetTerm
from dials_diffuse.algorithms.scaling.scale_term import ScaleTerm
from dials_diffuse.dataset import UNITS_KEY
from dials_diffuse.geometry import resolution
from dials_diffuse.map_file import ABSOLUTE_UNITS

logger = logging.getLogger("dials.diffuse.absolute")

#: Distance between knots of c in 1/Angstrom: fine enough for the incoherent scattering.
Q_INTERVAL = 0.02
#: Points between two knots at which the new c is fitted.
SAMPLES = 10


def absolute_model(
    experiment: Experiment, factor: float, incoherent: Callable[[np.ndarray], np.ndarray], d_min: float
) -> DiffuseScalingModel:
    """The scaling model of an experiment on the absolute scale.

    Parameters
    ----------
    experiment : Experiment
        With its scaling model.
    factor : float
        Electrons^2 for a photon / (s sr).
    incoherent : callable
        Incoherent intensity in electrons^2 of |q| in 1/Angstrom, shape (n,) to (n,).
    d_min : float
        Of the grid, Angstrom.

    Returns
    -------
    DiffuseScalingModel
        A new one, with the same terms but for b and c.
    """
    model: DiffuseScalingModel = experiment.scaling_model
    old = model.components["scale"]
    scale = ScaleTerm(
        old.axes, old.parameters / factor, None if old.parameter_esds is None else old.parameter_esds / factor
    )
    if others := [t.name for t in model.terms if t.role == "inner" and t.name != "scale"]:
        logger.warning(
            "The incoherent scattering is subtracted as if the scaling term %s were 1: it should be a part of b.",
            others[0],
        )
    offset = _offset(experiment, scale, model.components.get("offset"), incoherent, d_min)
    terms = [{"scale": scale, "offset": offset}.get(term.name, term) for term in model.terms]
    if "offset" not in model.components:
        terms.append(offset)
    return DiffuseScalingModel(terms, {**model.configdict, UNITS_KEY: ABSOLUTE_UNITS}, is_scaled=True)


def _offset(
    experiment: Experiment,
    scale: ScaleTerm,
    old: OffsetTerm | None,
    incoherent: Callable[[np.ndarray], np.ndarray],
    d_min: float,
) -> OffsetTerm:
    """c + b incoherent, by least squares on knots as close as any of the terms that it is made of needs."""
    q_axis = Axis.over("q", 0.0, 1 / min(d_min, resolution(experiment)), Q_INTERVAL)
    phi_axes = [*scale.axes, *(old.axes[1:] if old else ())]
    phi_axis = min(phi_axes, key=lambda axis: axis.spacing) if phi_axes else Axis("phi", 0.0, 1.0, 2)
    q, phi = (axis.samples(SAMPLES * axis.n_intervals + 1) for axis in (q_axis, phi_axis))
    b = dense_basis(scale.axes[0], phi) @ np.asarray(scale.parameters) if scale.axes else scale.parameters[0]
    wanted = np.multiply.outer(incoherent(q), b * np.ones(len(phi)))
    if old is not None:
        values = np.asarray(old.parameters).reshape(old.shape, order="F")
        wanted += dense_basis(old.axes[0], q) @ values @ dense_basis(old.axes[1], phi).T
    of_q = np.linalg.lstsq(dense_basis(q_axis, q), wanted, rcond=None)[0]
    parameters = np.linalg.lstsq(dense_basis(phi_axis, phi), of_q.T, rcond=None)[0]  # (phi, q): q runs fastest
    return OffsetTerm((q_axis, phi_axis), flex.double(np.ascontiguousarray(parameters.ravel())))
