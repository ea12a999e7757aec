"""Where pixels look: from pixels to fractional Miller indices, for any panel, goniometer, scan and crystal.

Conventions of dxtbx: q = s1 - s0 with |s1| = |s0| = 1 / wavelength, in 1/Angstrom (no 2 pi);
q = S R(phi) F A h with setting rotation S, rotation R about the scan axis, fixed rotation F and setting matrix A.
z counts frames in array index units: the centre of the first image of a scan is array_range[0] + 0.5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model import Experiment, Panel
from scitbx import matrix

from dials_diffuse.stills import is_still


def resolution(experiment: Experiment) -> float:
    """Resolution in Angstrom that an experiment's detector reaches."""
    return experiment.detector.get_max_resolution(experiment.beam.get_s0())


def pixel_directions(panel: Panel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Unit vectors from the crystal through positions (x, y) in pixels (centres at halves); float64, shape (n, 3)."""
    lab = pixel_positions(panel, x, y)
    return lab / np.sqrt(np.einsum("ij,ij->i", lab, lab))[:, None]


def pixel_positions(panel: Panel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Laboratory coordinates in mm, float64, shape (n, 3), of positions (x, y) in pixels (centres at halves).

    They are where the rays enter the sensor, by the panel's own pixel to millimetre strategy (parallax included).
    """
    pixels = flex.vec2_double(
        flumpy.from_numpy(np.ascontiguousarray(x, dtype=float)), flumpy.from_numpy(np.ascontiguousarray(y, dtype=float))
    )
    millimetres = flumpy.to_numpy(panel.pixel_to_millimeter(pixels))
    axes = np.array([panel.get_fast_axis(), panel.get_slow_axis()])
    return millimetres @ axes + np.array(panel.get_origin())


class IndexMapping:
    """From rays in the laboratory to fractional Miller indices, for one experiment.

    Parameters
    ----------
    experiment : dxtbx.model.Experiment
        With beam and crystal; scan and goniometer may be missing (stills). Scan-varying crystal, beam and goniometer
        models are interpolated linearly between their scan points.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.array_range = experiment.scan.get_array_range() if experiment.scan else (0, 1)

    def s0(self, z: float) -> np.ndarray:
        """Incident beam vector at frame position z; shape (3,), 1/Angstrom."""
        beam = self.experiment.beam
        return self._at(z, beam.num_scan_points, beam.get_s0_at_scan_point, beam.get_s0)

    def setting_matrix(self, z: float) -> np.ndarray:
        """A at frame position z; shape (3, 3), 1/Angstrom."""
        crystal = self.experiment.crystal
        return self._at(z, crystal.num_scan_points, crystal.get_A_at_scan_point, crystal.get_A).reshape(3, 3)

    def crystal_frame(self, z: float) -> np.ndarray:
        """S R(z) F, the rotation from the crystal frame at zero rotation into the laboratory; shape (3, 3).

        A still's crystal frame is the laboratory, as DIALS's predictor of stills takes it.
        """
        scan, goniometer = self.experiment.scan, self.experiment.goniometer
        if is_still(self.experiment) or goniometer is None:
            return np.eye(3)
        setting = self._at(
            z,
            goniometer.num_scan_points,
            goniometer.get_setting_rotation_at_scan_point,
            goniometer.get_setting_rotation,
        )
        axis = matrix.col(goniometer.get_rotation_axis_datum())
        rotation = axis.axis_and_angle_as_r3_rotation_matrix(scan.get_angle_from_array_index(z, deg=False), deg=False)
        fixed = np.array(goniometer.get_fixed_rotation()).reshape(3, 3)
        return setting.reshape(3, 3) @ np.array(rotation.elems).reshape(3, 3) @ fixed

    def q_to_hkl(self, z: float) -> np.ndarray:
        """The matrix that takes q in the laboratory to fractional Miller indices; shape (3, 3), Angstrom."""
        return np.linalg.inv(self.crystal_frame(z) @ self.setting_matrix(z))

    def ray_to_hkl(self, z: float) -> tuple[np.ndarray, np.ndarray]:
        """M and c of the affine map h = M u + c from unit rays u to fractional Miller indices.

        Returns
        -------
        M : ndarray, shape (3, 3)
        c : ndarray, shape (3,)
        """
        s0 = self.s0(z)
        q_to_hkl = self.q_to_hkl(z)
        return q_to_hkl * np.linalg.norm(s0), -q_to_hkl @ s0

    def hkl(self, panel: int, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Fractional Miller indices of positions on one panel.

        Parameters
        ----------
        panel : int
        x, y, z : ndarray, shape (n,)
            Pixels (centres at halves) and frame positions in array index units.

        Returns
        -------
        ndarray, shape (n, 3), float64
        """
        rays = pixel_directions(self.experiment.detector[panel], x, y)
        result = np.empty_like(rays)
        frames, inverse = np.unique(z, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        edges = np.searchsorted(inverse[order], np.arange(len(frames) + 1))
        for i, frame in enumerate(frames):
            these = order[edges[i] : edges[i + 1]]
            m, c = self.ray_to_hkl(frame)
            result[these] = rays[these] @ m.T + c
        return result

    def _at(self, z: float, count: int, at_point: Callable, static: Callable) -> np.ndarray:
        """A model's value at z: between two scan points if it varies over the scan."""
        if count < 2:
            return np.array(static())
        position = min(max(z - self.array_range[0], 0.0), count - 1.0)
        i = min(int(position), count - 2)
        fraction = position - i
        return (1 - fraction) * np.array(at_point(i)) + fraction * np.array(at_point(i + 1))
