"""One experiment as the kernel needs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dxtbx.model import Experiment

from dials_diffuse.algorithms.masking.bragg import BraggMask
from dials_diffuse.algorithms.masking.masks import ExperimentMasks
from dials_diffuse.geometry import IndexMapping
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.images import dynamic_mask, exposure_times, frame_arrays


@dataclass
class Frames:
    """A run of frames in memory.

    Attributes
    ----------
    raw : list of ndarray, shape (frames, slow, fast)
        Raw values, one array a panel; pixels masked on a single frame hold a value that is never trusted.
    z : ndarray, shape (frames,)
        Frame centres in array index units.
    exposure : ndarray, shape (frames,)
        Seconds.
    ray_to_hkl : tuple of ndarray, shape (frames, 3, 3) and (frames, 3), float32
    """

    raw: list[np.ndarray]
    z: np.ndarray
    exposure: np.ndarray
    ray_to_hkl: tuple[np.ndarray, np.ndarray]


class Sweep:
    """One experiment: its geometry, masks and frames.

    Parameters
    ----------
    number : int
        Of the experiment: the observations' ``id``.
    masks : ExperimentMasks
    rays : list of ndarray, shape (slow, 3, fast), float32
        One a panel, of :func:`dials_diffuse.rays.detector_rays`.
    grid : GlobalGrid

    Attributes
    ----------
    good : list of ndarray, shape (slow, fast), bool
        Pixels that no static mask takes and that can fall into the grid.
    """

    def __init__(self, number: int, masks: ExperimentMasks, rays: list[np.ndarray], grid: GlobalGrid) -> None:
        self.number = number
        self.experiment: Experiment = masks.experiment
        self.bragg: BraggMask = masks.bragg
        self.others = masks.others
        self.rays = rays
        self.grid = grid
        self.mapping = IndexMapping(self.experiment)
        times = exposure_times(self.experiment)
        self.exposure = np.ones(len(self.experiment.imageset)) if times is None else times
        reach = 1 / grid.d_min + 0.5 * sum(grid.supercell.reciprocal().parameters()[:3])
        s0 = self.mapping.s0(self.mapping.array_range[0] + 0.5)
        self.good = []
        for panel, mask in enumerate(masks.pixels):
            # |q|^2 = 2 (1 - cos 2 theta) / wavelength^2; the margin covers a beam that drifts over the scan
            direction = (s0 / np.linalg.norm(s0)).astype(np.float32)
            cosine = np.einsum("ykx,k->yx", rays[panel], direction)
            mask = mask & (2 * (1 - cosine) * (s0 @ s0) <= (1.02 * reach) ** 2)
            if masks.bragg.static is not None:
                mask &= masks.bragg.static[panel]
            self.good.append(mask)

    def read(self, start: int, stop: int) -> Frames:
        """Read frames ``start`` to ``stop``, counted from 0, the end excluded."""
        imageset = self.experiment.imageset
        raw: list[np.ndarray] = []
        for i, index in enumerate(range(start, stop)):
            arrays = frame_arrays(imageset, index)
            if not raw:
                raw = [np.empty((stop - start, *array.shape), array.dtype) for array in arrays]
            for panel, array in enumerate(arrays):
                raw[panel][i] = array
            self._mask_frame([panel[i] for panel in raw], index)
        z = self.mapping.array_range[0] + np.arange(start, stop) + 0.5
        maps = [self.mapping.ray_to_hkl(position) for position in z]
        ray_to_hkl = tuple(np.array(part, dtype=np.float32) for part in zip(*maps))
        return Frames(raw, z, self.exposure[start:stop], ray_to_hkl)

    def _mask_frame(self, raw: list[np.ndarray], index: int) -> None:
        """Put a value that is never trusted where this frame alone is masked."""
        values = [never_trusted(array.dtype) for array in raw]
        shadows = dynamic_mask(self.experiment.imageset, self.experiment, index)
        if shadows is not None:
            for array, value, shadow in zip(raw, values, shadows):
                array[~shadow] = value
        self.bragg.mask_boxes(index, raw, values)  # the kernel itself knows the ellipsoids
        for bragg, frame in self.others.get(index, ()):
            bragg.mask_frame(frame, raw, values)


def never_trusted(dtype: np.dtype) -> int | float:
    """A raw value outside every trusted range."""
    return np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else np.nan
