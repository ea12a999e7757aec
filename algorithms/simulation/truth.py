"""The forward model and its truth: what every pixel of every frame is expected to count, and why.

    expected photons = t Omega P E A [a d (b I + c)] + background

Sweeps and frames are counted from 0 here (files from 1), angles are in degrees, pixels' centres are at halves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.util import Sorry
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Beam, Crystal, Detector, Experiment, ExperimentList, Goniometer, Scan, ScanFactory
from iotbx.phil import parse

from dials_diffuse.algorithms.simulation import instrument
from dials_diffuse.algorithms.simulation.bragg import Bragg, add_bragg, bragg_intensity, make_bragg, make_frame
from dials_diffuse.algorithms.simulation.diffuse import (
    Diffuse,
    diffuse_image,
    diffuse_intensity,
    diffuse_voxels,
    make_diffuse,
)
from dials_diffuse.algorithms.simulation.pixels import Pixels, bad_pixels, make_pixels
from dials_diffuse.algorithms.simulation.terms import Sweep, Terms, make_sweeps
from dials_diffuse.output import whole_files
from dials_diffuse.phil_scope.simulate import phil_scope
from dials_diffuse.provenance import ProcessRecord


class Truth:
    """A simulated experiment, known exactly.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Of :data:`dials_diffuse.phil_scope.simulate.phil_scope`.
    scales : dict of str to float, optional
        ``diffuse``, ``bragg``, ``background``: the photons / (s sr) that stand for a strength of 1, as a file holds
        them. Found from ``photons``, ``bragg.photons``, ``background.photons`` if None.
    templates : list of str, optional
        Images of each sweep, with ``#`` for digits.
    """

    def __init__(
        self,
        params: libtbx.phil.scope_extract,
        scales: dict[str, float] | None = None,
        templates: list[str] | None = None,
    ) -> None:
        self.params = params
        self.templates = templates
        self.sweeps: list[Sweep] = make_sweeps(params)
        self.beam: Beam = instrument.make_beam(params.beam)
        self.detector: Detector = instrument.make_detector(params.detector, self.beam)
        self.goniometer: Goniometer = instrument.make_goniometer()
        self.terms = Terms(params, self.sweeps, instrument.image_size(params.detector))
        self.cell = params.crystal.unit_cell
        self.space_group = params.crystal.space_group.group()
        if not self.space_group.is_compatible_unit_cell(self.cell):
            raise Sorry(f"Unit cell {self.cell} does not fit space group {params.crystal.space_group}.")
        self.orientations: list[np.ndarray] = _orientations(params)
        self.scales = scales or self._find_scales()

    @classmethod
    def from_file(cls, filename: str | os.PathLike) -> Truth:
        """The truth of images that ``dials.diffuse_simulate`` made, from its ``truth.json``.

        Raises
        ------
        Sorry
            If the file holds none.
        """
        try:
            with open(filename) as handle:
                content = json.load(handle)
            params = phil_scope.fetch(parse(content["parameters"])).extract()
            templates = [os.fspath(Path(filename).resolve().parent / name) for name in content["templates"]]
            return cls(params, content["scales"], templates)
        except (OSError, ValueError, KeyError) as error:
            raise Sorry(f"{filename} is no truth of dials.diffuse_simulate ({error}).") from error

    def write(self, filename: str | os.PathLike, record: ProcessRecord | None = None) -> None:
        """Write what :meth:`from_file` reads: all parameters, the scales, the names of the images."""
        folder = Path(filename).resolve().parent
        content = {
            "parameters": phil_scope.format(self.params).as_str(),
            "scales": self.scales,
            "templates": [os.path.relpath(name, folder) for name in self.templates or []],
            "history": [record.to_dict()] if record else [],
        }
        with whole_files(filename) as (part,):
            part.write_text(json.dumps(content, indent=1))

    # The crystal

    def diffuse(self, hkl: np.ndarray) -> np.ndarray:
        """Diffuse intensity (clouds, halos, Compton; no Bragg peaks).

        Parameters
        ----------
        hkl : ndarray, shape (n, 3)
            Fractional Miller indices.

        Returns
        -------
        ndarray, shape (n,)
            Photons / (s sr).
        """
        h, k, l = np.ascontiguousarray(np.asarray(hkl, dtype=float).T)
        out = np.empty(h.size)
        diffuse_intensity(h, k, l, self._diffuse, out)
        return out

    def bragg(self, hkl: np.ndarray) -> np.ndarray:
        """Intensity of the Bragg peaks at points (n, 3) in reciprocal space, photons / (s sr)."""
        hkl = np.ascontiguousarray(hkl, dtype=float)
        out = np.empty(len(hkl))
        bragg_intensity(hkl, self._bragg, self._orthogonal, out)
        return out

    def total(self, hkl: np.ndarray) -> np.ndarray:
        """Diffuse and Bragg intensity at points (n, 3) in reciprocal space, photons / (s sr)."""
        return self.diffuse(hkl) + self.bragg(hkl)

    def voxel_mean(self, index: np.ndarray, ndiv: tuple[int, int, int], samples: int = 5) -> np.ndarray:
        """Mean diffuse intensity over voxels.

        Parameters
        ----------
        index : ndarray of int, shape (n, 3)
            Voxels: the box (index +- 1/2) / ndiv in fractional Miller indices.
        ndiv : tuple of 3 int
            Voxels to a reciprocal-lattice spacing.
        samples : int
            Gauss-Legendre points along each edge.

        Returns
        -------
        ndarray, shape (n,)
            Photons / (s sr).
        """
        index = np.ascontiguousarray(index, dtype=float)
        out = np.empty(len(index))
        nodes, weights = np.polynomial.legendre.leggauss(samples)
        diffuse_voxels(index, np.array(ndiv, dtype=float), nodes, weights, self._diffuse, out)
        return out

    @cached_property
    def _diffuse(self) -> Diffuse:
        return make_diffuse(self.params)._replace(scale=float(self.scales["diffuse"]))

    @cached_property
    def _bragg(self) -> Bragg:
        d_min = 1 / (self.pixels.q_length.max() + 10 * self.params.bragg.sigma)
        bragg = make_bragg(self.params, d_min)
        return bragg._replace(intensity=bragg.intensity * self.scales["bragg"])

    @cached_property
    def _orthogonal(self) -> np.ndarray:
        """The B matrix in 1/A, as cctbx and DIALS have it."""
        return np.array(self.cell.fractionalization_matrix()).reshape(3, 3).T.copy()

    # The scaling terms

    def b(self, sweep: int, phi: np.ndarray) -> np.ndarray:
        """Beam, illuminated volume, decay at the angles phi; mean over the frames of the first sweep: 1."""
        return self.terms.b(sweep, phi)

    def a(self, sweep: int, x: np.ndarray, y: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Absorption in the crystal; x, y in pixels of the whole image; mean over each sweep: 1."""
        return self.terms.a(sweep, x, y, phi)

    def c(self, sweep: int, q: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Excess isotropic background in photons / (s sr); q in 1/A; least over phi: 0."""
        return self.scales["diffuse"] * self.terms.c(sweep, q, phi)

    def d(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Response of the detector; x, y in pixels of the whole image; mean: 1."""
        return self.terms.d(x, y)

    def background_rate(self, phi: float = 0.0) -> np.ndarray:
        """Photons of air scattering that each pixel (slow, fast) counts in a second, without the beam stop."""
        return self.scales["background"] * self._background_shape * self.terms.background_wave(phi)

    @cached_property
    def _background_shape(self) -> np.ndarray:
        return self.pixels.response * self.terms.background_shape(self.pixels.q_length)

    # The images

    @cached_property
    def pixels(self) -> Pixels:
        """Geometry and response of every pixel."""
        return make_pixels(self.params, self.detector, self.beam)

    @cached_property
    def bad_pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat indices of the hot pixels, what they count in a frame, flat indices of the dead pixels."""
        return bad_pixels(self.params, self.pixels.active)

    def mask(self) -> np.ndarray:
        """Pixels (slow, fast) that count as they should: no gaps, beam stop, hot or dead pixels."""
        good = self.pixels.active & (self.pixels.transmission == 1)
        hot, _, dead = self.bad_pixels
        good.ravel()[hot] = False
        good.ravel()[dead] = False
        return good

    def expected_image(self, sweep: int, frame: int) -> np.ndarray:
        """Expected photons in every pixel (slow, fast) of a frame; in gaps and bad pixels, too, as if they worked."""
        this, terms = self.sweeps[sweep], self.params
        phi = float(this.angle(frame))
        signal = self._intensity(sweep, frame)
        signal *= float(self.b(sweep, phi))
        if terms.c.strength:
            signal += self.c(sweep, self.pixels.q_length, phi)
        if terms.a.strength:
            signal *= self.a(sweep, *self._positions, phi)
        if terms.d.strength:
            signal *= self.d(*self._positions)
        signal *= self.pixels.response
        if terms.background.photons:
            signal += self.background_rate(phi)
        signal *= self.pixels.transmission
        signal *= this.exposure
        return signal

    def background_image(self, image: int) -> np.ndarray:
        """Expected photons in every pixel (slow, fast) of an image without the crystal."""
        background = self.background_sweep
        rate = self.background_rate(float(background.angle(image)))
        return background.exposure * rate * self.pixels.transmission

    @property
    def background_sweep(self) -> Sweep:
        """The images without crystal as a sweep through the range of the first."""
        images, first = self.params.background.images, self.sweeps[0]
        return Sweep(images, first.start, first.range / max(images, 1), self.params.background.exposure, 1.0)

    @property
    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        fast, slow = self.terms.image_size
        return np.arange(fast) + 0.5, np.arange(slow)[:, None] + 0.5

    def _intensity(self, sweep: int, frame: int) -> np.ndarray:
        """I of every pixel, averaged over the frame's rotation, photons / (s sr)."""
        signal = np.empty(self.pixels.q_length.shape)
        diffuse_image(self.pixels.q, self._to_hkl(sweep, frame), self._diffuse, signal)
        if self.params.bragg.photons:
            this = self.sweeps[sweep]
            setting = self._setting(sweep, this.angle(frame))
            axis = np.array(self.goniometer.get_rotation_axis())
            width = np.radians(this.width)
            model = make_frame(setting, axis, width, np.array(self.beam.get_s0()), self.detector[0])
            add_bragg(self.pixels.q, model, self._bragg, signal)
        return signal

    def _to_hkl(self, sweep: int, frame: int) -> np.ndarray:
        """Matrices from q in the laboratory to (h, k, l) at the angles that average over a frame."""
        this = self.sweeps[sweep]
        nodes, _ = np.polynomial.legendre.leggauss(self.params.oscillation.samples)
        angles = this.angle(frame) + 0.5 * this.width * nodes
        return np.array([np.linalg.inv(self._setting(sweep, angle)) for angle in angles])

    def _setting(self, sweep: int, phi: float) -> np.ndarray:
        """Matrix from (h, k, l) to q in the laboratory at an angle."""
        spindle = rotation(self.goniometer.get_rotation_axis(), phi)
        return spindle @ self.orientations[sweep] @ self._orthogonal

    # The scales

    def _find_scales(self) -> dict[str, float]:
        """The scales at which a pixel of the first sweep counts, on average, the photons asked for."""
        first = self.sweeps[0]
        active = self.pixels.active & (self.pixels.transmission == 1)
        scales = {"diffuse": 0.0, "bragg": 0.0, "background": 0.0}
        if self.params.photons:
            scales["diffuse"] = self.params.photons / (first.exposure * self._mean_diffuse(active))
        if self.params.bragg.photons:
            # photons of a reflection: t/dphi wavelength^2 J <Omega P E A>/Omega, the Lorentz factor being 1
            solid_angle = instrument.PIXEL_SIZE**2 / self.detector[0].get_distance() ** 2
            response = np.median(self.pixels.response[active]) / solid_angle
            per_intensity = first.exposure / np.radians(first.width) * self.beam.get_wavelength() ** 2 * response
            scales["bragg"] = self.params.bragg.photons / per_intensity
        if self.params.background.photons:
            mean = float(np.mean(self._background_shape[active]))
            scales["background"] = self.params.background.photons / (first.exposure * mean)
        return {name: float(value) for name, value in scales.items()}

    def _mean_diffuse(self, active: np.ndarray) -> float:
        """Mean of Omega P E A a d b I over active pixels (of every third row and column) and nine frames of the first
        sweep, at scale 1."""
        first, every = self.sweeps[0], (slice(None, None, 3), slice(None, None, 3))
        active, response = active[every], self.pixels.response[every]
        q = np.ascontiguousarray(self.pixels.q[(slice(None), *every)])
        x, y = (np.broadcast_to(position, self.pixels.active.shape)[every] for position in self._positions)
        model, image, means = make_diffuse(self.params), np.empty(active.shape), []
        for frame in np.unique(np.linspace(0, first.frames - 1, 9).astype(int)):
            phi = first.angle(frame)
            diffuse_image(q, self._to_hkl(0, frame), model, image)
            signal = image * response * self.a(0, x, y, phi) * self.d(x, y) * self.b(0, phi)
            means.append(signal[active].mean())
        return float(np.mean(means))

    # The models of DIALS

    def scan(self, sweep: int) -> Scan:
        """The scan of a sweep."""
        return make_scan(self.sweeps[sweep])

    def crystal(self, sweep: int) -> Crystal:
        """The crystal as it is mounted in a sweep."""
        real = np.linalg.inv(self.orientations[sweep] @ self._orthogonal)
        return Crystal(*(tuple(float(x) for x in axis) for axis in real), self.space_group)

    def experiments(self, multi_panel: bool = False, check_format: bool = False) -> ExperimentList:
        """The true models, one experiment a sweep.

        Parameters
        ----------
        multi_panel : bool
            A panel for each module, as dxtbx makes them with ``format.multi_panel=True``.
        check_format : bool
            Attach the images, too.
        """
        detector = instrument.make_detector(self.params.detector, self.beam, multi_panel)
        experiments = ExperimentList()
        for sweep in range(len(self.sweeps)):
            scan = self.scan(sweep)
            models = {"beam": self.beam, "detector": detector, "goniometer": self.goniometer, "scan": scan}
            experiment = Experiment(crystal=self.crystal(sweep), identifier=f"true-{sweep + 1}", **models)
            if check_format:
                experiment.imageset = ImageSetFactory.make_sequence(
                    template=self.templates[sweep],
                    indices=list(range(1, self.sweeps[sweep].frames + 1)),
                    format_kwargs={"multi_panel": multi_panel},
                    **models,
                )
            experiments.append(experiment)
        return experiments


def make_scan(sweep: Sweep) -> Scan:
    """A dxtbx scan of a sweep; images are counted from 1."""
    return ScanFactory.make_scan(
        image_range=(1, sweep.frames),
        exposure_times=[sweep.exposure] * sweep.frames,
        oscillation=(sweep.start, sweep.width),
        epochs={i: i * sweep.exposure for i in range(1, sweep.frames + 1)},
    )


def rotation(axis: Sequence[float], angle: float) -> np.ndarray:
    """Matrix of a right-handed rotation about a unit vector by an angle in degrees (Rodrigues' formula)."""
    cross = np.cross(np.eye(3), np.array(axis))
    angle = np.radians(angle)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _orientations(params: libtbx.phil.scope_extract) -> list[np.ndarray]:
    """U matrices of all sweeps.

    Raises
    ------
    Sorry
        If the number of angles is not three a sweep.
    """
    angles = params.crystal.orientation
    if angles is None:
        random = np.random.RandomState(params.seed)
        angles = [
            angle
            for _ in range(params.sweeps)
            for angle in (random.uniform(0, 360), np.degrees(np.arccos(random.uniform(-1, 1))), random.uniform(0, 360))
        ]
    if len(angles) != 3 * params.sweeps:
        raise Sorry(f"crystal.orientation has {len(angles)} angles: give three for each of the {params.sweeps} sweeps.")
    return [
        rotation((0, 0, 1), first) @ rotation((0, 1, 0), second) @ rotation((0, 0, 1), third)
        for first, second, third in zip(angles[::3], angles[1::3], angles[2::3])
    ]
