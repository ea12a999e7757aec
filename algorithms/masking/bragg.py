"""Masks of the Bragg peaks: strategies that say, for any frame, which pixels see one."""

from __future__ import annotations

import logging

import libtbx.phil
import numpy as np
from cctbx import miller
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model import Experiment

from dials_diffuse.algorithms.masking.ellipsoid import BraggEllipsoids
from dials_diffuse.algorithms.masking.mask_file import PixelMask, read_mask
from dials_diffuse.algorithms.masking.peak_shape import PeakShape, measure_peak_shape, need_columns
from dials_diffuse.grid import lattice_group, miller_index_from_numpy, miller_index_to_numpy
from dials_diffuse.images import sweep_name

logger = logging.getLogger("dials.diffuse.masking")


class BraggMask:
    """No pixel is masked; the base of the strategies that do.

    A strategy may say where peaks are in three ways, which add up.

    Attributes
    ----------
    ellipsoids : BraggEllipsoids
        Regions round the lattice points; tested for every pixel of every frame within the extraction itself.
    static : tuple of ndarray, bool, or None
        One a panel: pixels (False) that are masked on all frames.
    """

    ellipsoids: BraggEllipsoids = BraggEllipsoids.none()
    static: PixelMask | None = None

    def frame_boxes(self, index: int) -> list[tuple[int, int, int, int, int]]:
        """Rectangles (panel, x0, x1, y0, y1) that are masked on a frame, which is counted from 0; ends excluded."""
        return []


class EllipsoidBraggMask(BraggMask):
    """Ellipsoids round the lattice points, shaped as the peaks are and growing with their strength.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
    shape : PeakShape
        Of its peaks.
    d_min : float
        Resolution limit in Angstrom.
    params : libtbx.phil.scope_extract
        The scope ``bragg_mask``.
    """

    def __init__(
        self, experiment: Experiment, shape: PeakShape, d_min: float, params: libtbx.phil.scope_extract
    ) -> None:
        self.shape = shape
        edges = experiment.crystal.get_unit_cell().parameters()[:3]
        limits = [int(edge / d_min) + 1 for edge in edges]
        hkl = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limits), indexing="ij"), axis=-1).reshape(-1, 3)
        b = np.array(experiment.crystal.get_B()).reshape(3, 3)
        spread = 1 + shape.growth * ((hkl @ b.T) ** 2).sum(axis=1)
        radius_squared = spread * self._radius_squared(experiment, hkl, params)
        centring = lattice_group(experiment.crystal.get_space_group())
        if centring.order_z() > 1:
            radius_squared[flumpy.to_numpy(centring.is_sys_absent(miller_index_from_numpy(hkl)))] = 0
        self.ellipsoids = BraggEllipsoids.from_covariance(
            shape.covariance, radius_squared.reshape([2 * n + 1 for n in limits])
        )

    def _radius_squared(self, experiment: Experiment, hkl: np.ndarray, params: libtbx.phil.scope_extract) -> np.ndarray:
        """Radius squared, in standard deviations of the peak, at which its tail fades; shape (n,).

        A Gaussian peak of height p leaves p exp(-r^2 / 2) photons a pixel at r. The strength of a reflection is the
        largest among those measured of its Laue mates; where none was, that of a weak measured one.
        """
        laue = experiment.crystal.get_space_group().build_derived_laue_group().type()

        def keys(indices: np.ndarray) -> np.ndarray:
            representatives = miller_index_from_numpy(indices)
            miller.map_to_asu(laue, False, representatives)
            shifted = miller_index_to_numpy(representatives).astype(np.int64) + 2**20
            return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]

        measured, inverse = np.unique(keys(self.shape.miller_index), return_inverse=True)
        strongest = np.zeros(len(measured))
        np.maximum.at(strongest, inverse, self.shape.strength)
        height = np.full(len(hkl), np.percentile(self.shape.strength, 10))
        wanted = keys(hkl)
        position = np.minimum(np.searchsorted(measured, wanted), len(measured) - 1)
        found = measured[position] == wanted
        height[found] = strongest[position[found]]
        background = self.shape.background if np.isfinite(self.shape.background) else 1.0
        tail = params.residual * max(background, 0.05)
        return np.maximum(params.n_sigma**2, 2 * np.log(np.maximum(height / tail, 1.0)))


class ShoeboxBraggMask(BraggMask):
    """The bounding boxes of the reflections themselves."""

    def __init__(self, experiment: Experiment, reflections: flex.reflection_table) -> None:
        first = experiment.scan.get_array_range()[0] if experiment.scan else 0
        self._boxes: dict[int, list[tuple[int, int, int, int, int]]] = {}
        boxes = np.stack([flumpy.to_numpy(part) for part in reflections["bbox"].parts()], axis=1)
        for panel, (x0, x1, y0, y1, z0, z1) in zip(reflections["panel"], boxes.tolist()):
            for z in range(z0 - first, z1 - first):
                self._boxes.setdefault(z, []).append((panel, max(x0, 0), x1, max(y0, 0), y1))

    def frame_boxes(self, index: int) -> list[tuple[int, int, int, int, int]]:
        return self._boxes.get(index, [])


class FileBraggMask(BraggMask):
    """One mask for the whole sweep, from a file: for stills and people who have one."""

    def __init__(self, experiment: Experiment, filename: str) -> None:
        self.static = read_mask(filename, experiment.detector)


def bragg_mask(
    experiment: Experiment, reflections: flex.reflection_table | None, d_min: float, params: libtbx.phil.scope_extract
) -> BraggMask:
    """The Bragg mask of one experiment by the strategy asked for.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
    reflections : flex.reflection_table or None
        Of that experiment alone; not needed for the modes none and file.
    d_min : float
        Resolution limit in Angstrom.
    params : libtbx.phil.scope_extract
        The scope ``bragg_mask``.

    Raises
    ------
    Sorry
        If the strategy lacks reflections or its file.
    """
    if params.mode in (None, "none"):  # PHIL reads the word as None
        return BraggMask()
    if params.mode == "file":
        if params.file is None:
            raise Sorry("bragg_mask.mode=file needs bragg_mask.file=<a pickled tuple of flex.bool>.")
        return FileBraggMask(experiment, params.file)
    if reflections is None or not len(reflections):
        raise Sorry(
            f"bragg_mask.mode={params.mode} needs reflections, and there are none of {sweep_name(experiment)}: give "
            "the .refl file that belongs to its .expt file, or set bragg_mask.mode=none."
        )
    if flex.max(reflections["panel"].as_int()) >= len(experiment.detector):
        raise Sorry(
            f"Reflections of {sweep_name(experiment)} lie on panels that its detector has not: give the .refl file "
            "that was written together with the .expt file."
        )
    if params.mode == "shoebox":
        need_columns(experiment, reflections, "bbox")
        return ShoeboxBraggMask(experiment, reflections)
    shape = measure_peak_shape(experiment, reflections, params)
    mask = EllipsoidBraggMask(experiment, shape, d_min, params)
    widths = np.sqrt(np.diag(shape.covariance))
    logger.info(
        "Bragg peaks: standard deviations %.3f, %.3f, %.3f in h, k, l at q = 0, %.0f %% more at %.2f A; ellipsoids of "
        "%.1f to %.1f of them (median %.1f)",
        *widths,
        100 * (np.sqrt(1 + shape.growth / d_min**2) - 1),
        d_min,
        *(
            np.sqrt(np.percentile(mask.ellipsoids.radius_squared[mask.ellipsoids.radius_squared > 0], p))
            for p in (0, 100, 50)
        ),
    )
    return mask
