"""What a correction is: the base class of the built-in ones and of plug-ins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import libtbx.phil
import numpy as np

from dials_diffuse.algorithms.correction.geometry import PixelGeometry


class CorrectionModel(ABC):
    """A factor that the expected photons of an observation contain and the scattering cross-section does not.

    Observed rates are divided by it. A factor of 1 changes nothing.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Values of the class's :attr:`phil_scope`.

    Attributes
    ----------
    name : str
        Of the correction: its PHIL scope is ``correction.<name>``.
    phil_scope : libtbx.phil.scope
        The correction's parameters; must have a bool ``use``, which switches it on.
    same_on_all_frames : bool
        Whether the factor depends on the place on the detector alone and not on the frame (the z of
        ``geometry.xyz``): loops over frames then compute it once.
    """

    name: ClassVar[str]
    phil_scope: ClassVar[libtbx.phil.scope]
    same_on_all_frames: ClassVar[bool] = False

    def __init__(self, params: libtbx.phil.scope_extract) -> None:
        self.params = params

    @abstractmethod
    def factor(self, geometry: PixelGeometry) -> np.ndarray:
        """The factor at positions on one panel of one experiment.

        Parameters
        ----------
        geometry : PixelGeometry
            Of n positions.

        Returns
        -------
        ndarray, shape (n,), float
            Finite and positive.
        """
