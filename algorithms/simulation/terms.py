"""The scaling terms b(phi), a(x, y, phi), c(|q|, phi), d(x, y) and the background: smooth functions of known gauge.

Sweeps are counted from 0, angles are in degrees, pixels' centres are at halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libtbx.phil
import numpy as np
from dials.util import Sorry


@dataclass(frozen=True)
class Sweep:
    """One sweep: its frames (number), first angle and width (degrees) and exposure time (s) of a frame, scale.

    A series of stills is a sweep with the width 0."""

    frames: int
    start: float
    width: float
    exposure: float
    scale: float

    @property
    def range(self) -> float:
        """Rotation of the whole sweep in degrees."""
        return self.frames * self.width

    def angle(self, frame: int | np.ndarray) -> float | np.ndarray:
        """Angle of the middle of a frame (counted from 0) in degrees."""
        return self.start + (np.asarray(frame) + 0.5) * self.width

    def edges(self) -> np.ndarray:
        """Angles of the frames' ends in degrees, shape (frames + 1,)."""
        return self.start + np.arange(self.frames + 1) * self.width


def make_sweeps(params: libtbx.phil.scope_extract) -> list[Sweep]:
    """The sweeps that the parameters describe.

    Raises
    ------
    Sorry
        If a parameter has neither one value nor one for each sweep.
    """
    scale = list(params.b.scale) + [params.b.scale[-1]] * params.sweeps
    return [
        Sweep(*values)
        for values in zip(
            _one_a_sweep("frames", params.frames, params.sweeps),
            _one_a_sweep("oscillation.start", params.oscillation.start, params.sweeps),
            [0.0] * params.sweeps
            if params.stills
            else _one_a_sweep("oscillation.width", params.oscillation.width, params.sweeps),
            _one_a_sweep("exposure", params.exposure, params.sweeps),
            scale,
        )
    ]


def _one_a_sweep(name: str, values: Sequence, sweeps: int) -> list:
    if len(values) not in (1, sweeps):
        raise Sorry(f"{name} has {len(values)} values: give one, or one for each of the {sweeps} sweeps.")
    return list(values) * (sweeps // len(values))


class Terms:
    """The terms of one simulation.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Of the simulation.
    sweeps : list of Sweep
        Its sweeps.
    image_size : tuple of 2 int
        Pixels along fast and slow; a and d have the mean 1 over this rectangle.
    """

    def __init__(self, params: libtbx.phil.scope_extract, sweeps: list[Sweep], image_size: tuple[int, int]) -> None:
        self.params = params
        self.sweeps = sweeps
        self.image_size = image_size
        self._b_norm = float(np.mean(self._b_of_frames(0)))

    def b_of_frames(self, sweep: int) -> np.ndarray:
        """b at the middle of every frame; of stills a factor each, independent of the others."""
        return self._b_of_frames(sweep) / self._b_norm

    def _b_of_frames(self, sweep: int) -> np.ndarray:
        this = self.sweeps[sweep]
        if not self.params.stills:
            return self._b(sweep, this.angle(np.arange(this.frames)))
        random = np.random.RandomState([self.params.seed, 6271, sweep])
        return this.scale * (1 + self.params.b.variation * random.uniform(-1, 1, this.frames))

    def b(self, sweep: int, phi: np.ndarray) -> np.ndarray:
        """Beam, illuminated volume and decay; the mean over the frames of the first sweep is 1."""
        return self._b(sweep, phi) / self._b_norm

    def _b(self, sweep: int, phi: np.ndarray) -> np.ndarray:
        terms, this = self.params.b, self.sweeps[sweep]
        turned = np.asarray(phi, dtype=float) - this.start
        wave = 1 + terms.variation * np.sin(2 * np.pi * turned / terms.period + 0.7 + 1.9 * sweep)
        return this.scale * wave * np.exp(-terms.decay * turned / this.range if this.range else 0.0)

    def a(self, sweep: int, x: np.ndarray, y: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Absorption in the crystal; the mean over the image is 1 at every angle."""
        u, v = self._scaled(x, y)
        angle = np.radians(phi) + 0.9 + 1.3 * sweep
        pattern = (
            0.6 * u * np.cos(angle)
            + 0.5 * v * np.sin(angle)
            + 0.4 * u * v * np.cos(2 * angle)
            + 0.5 * (1.5 * u**2 - 0.5) * np.sin(2 * angle)
        )
        return 1 + self.params.a.strength * pattern

    def c(self, sweep: int, q: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Excess isotropic background, in the units of the strengths; the least value over phi is 0 at every q."""
        q = np.asarray(q, dtype=float)
        this = self.sweeps[sweep]
        turned = np.pi * (np.asarray(phi, dtype=float) - self.clean_angle(sweep)) / (1.2 * max(this.range, 1e-6))
        return self.params.c.strength * (
            0.7 * np.exp(-((q / 0.3) ** 2)) * np.sin(turned) ** 2
            + 0.3 * np.exp(-(((q - 0.28) / 0.08) ** 2)) * np.sin(2 * turned) ** 2
        )

    def clean_angle(self, sweep: int) -> float:
        """The angle, the middle of a frame, at which c vanishes."""
        this = self.sweeps[sweep]
        return float(this.angle(int(this.frames * (0.3 + 0.25 * (sweep % 3)))))

    def d(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Response of the detector; the mean over the image is 1."""
        u, v = self._scaled(x, y)
        pattern = 0.5 * u * (2.5 * u**2 - 1.5) + 0.7 * (1.5 * v**2 - 0.5) + 0.5 * u * v + 0.3 * v
        return 1 + self.params.d.strength * pattern

    def background_wave(self, phi: np.ndarray) -> np.ndarray:
        """How the background's rate varies with the rotation, around 1."""
        return 1 + self.params.background.variation * np.cos(np.radians(phi) - 0.5)

    def background_shape(self, q: np.ndarray) -> np.ndarray:
        """How the background falls with |q|."""
        return 1 / (1 + (q / self.params.background.q_fall) ** 2)

    def _scaled(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions scaled to -1...1 over the image (Legendre polynomials in them have the mean 0)."""
        fast, slow = self.image_size
        return 2 * np.asarray(x, dtype=float) / fast - 1, 2 * np.asarray(y, dtype=float) / slow - 1
