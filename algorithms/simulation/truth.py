"""The forward model and its truth: what every pixel of every frame is expected to count, and why.

    expected photons = t Omega P E A [a d (b I + c)] + background

Sweeps and frames are counted from 0 here (files from 1), angles are in degrees, pixels' centres are at halves. Images
come as one array a panel; positions x, y are those in the raw image, in which panels lie under one another.
With ``stills`` a sweep is a series of stills, and a frame one of them.
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.util import Sorry
from dxtbx.model import Beam, Detector, ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.simulation import instrument
from dials_diffuse.algorithms.simulation.atoms import Atoms
from dials_diffuse.algorithms.simulation.bragg import Bragg, add_bragg, bragg_intensity, make_bragg, make_frame
from dials_diffuse.algorithms.simulation.diffuse import (
    Diffuse,
    diffuse_image,
    diffuse_intensity,
    diffuse_voxels,
    make_diffuse,
)
from dials_diffuse.algorithms.simulation.models import make_experiments
from dials_diffuse.algorithms.simulation.mounting import Mounting, orthogonal
from dials_diffuse.algorithms.simulation.pixels import Pixels, bad_pixels, make_pixels, split, split_image
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
        them; of an absolute crystal, for an electron^2 per unit cell. Found from ``photons``, ``bragg.photons``,
        ``background.photons`` if None.
    templates : list of str, optional
        Images of each sweep: with ``#`` for digits, or the HDF5 file that holds all.
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
        self.detector: Detector = instrument.make_detector(params, self.beam)
        self.mounting = Mounting(params, self.sweeps, np.array(self.beam.get_s0()))
        self.goniometer = self.mounting.make_goniometer()
        self.terms = Terms(params, self.sweeps, instrument.image_size(params.detector))
        self.cell = params.crystal.unit_cell
        self.space_group = params.crystal.space_group.group()
        if not self.space_group.is_compatible_unit_cell(self.cell):
            raise Sorry(f"Unit cell {self.cell} does not fit space group {params.crystal.space_group}.")
        self.orientations: list[np.ndarray] = self.mounting.orientations
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
        d_min = 1 / (self._raw.q_length.max() + 10 * self.params.bragg.sigma)
        bragg = make_bragg(self.params, d_min)
        return bragg._replace(intensity=bragg.intensity * self.scales["bragg"])

    @cached_property
    def _orthogonal(self) -> np.ndarray:
        """The B matrix in 1/A, as cctbx and DIALS have it."""
        return orthogonal(self.cell)

    @cached_property
    def atoms(self) -> Atoms | None:
        """What is in the unit cell, if that is given: intensities over ``scales["diffuse"]`` are then in electrons^2
        per unit cell."""
        return None if self.params.absolute.crystal is None else Atoms(self.params)

    # The scaling terms

    def b(self, sweep: int, phi: np.ndarray) -> np.ndarray:
        """Beam, illuminated volume, decay at the angles phi; mean over the frames of the first sweep: 1."""
        return self.terms.b(sweep, phi)

    def b_of_frames(self, sweep: int) -> np.ndarray:
        """b of every frame or still of a sweep; mean over the first sweep: 1."""
        return self.terms.b_of_frames(sweep)

    def a(self, sweep: int, x: np.ndarray, y: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Absorption in the crystal; x, y in pixels of the raw image; mean over each sweep: 1."""
        return self.terms.a(sweep, x, y, phi)

    def c(self, sweep: int, q: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Excess isotropic background in photons / (s sr); q in 1/A; least over phi: 0."""
        strongest = 1.0 if self.atoms is None else float(self.atoms.diffuse(np.linspace(0, 1, 200)).max())
        return self.scales["diffuse"] * strongest * self.terms.c(sweep, q, phi)

    def d(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Response of the detector; x, y in pixels of the raw image; mean: 1."""
        return self.terms.d(x, y)

    def background_rate(self, phi: float = 0.0) -> tuple[np.ndarray, ...]:
        """Photons of air scattering that each pixel (slow, fast) counts in a second, without the beam stop; one array a
        panel."""
        return split_image(self._background_rate(phi), self.detector)

    def _background_rate(self, phi: float) -> np.ndarray:
        return self.scales["background"] * self._background_shape * self.terms.background_wave(phi)

    @cached_property
    def _background_shape(self) -> np.ndarray:
        return self._raw.response * self.terms.background_shape(self._raw.q_length)

    # The images

    @property
    def pixels(self) -> tuple[Pixels, ...]:
        """Geometry and response of every pixel, for each panel."""
        return split(self._raw, self.detector)

    @cached_property
    def _raw(self) -> Pixels:
        """The same for the raw image, on which everything is computed."""
        return make_pixels(self.params, self.detector, self.beam)

    @cached_property
    def bad_pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat indices (in the raw image) of the hot pixels, what they count in a frame, flat indices of the dead
        pixels."""
        return bad_pixels(self.params, self._raw.active)

    def mask(self) -> tuple[np.ndarray, ...]:
        """Pixels (slow, fast) that count as they should: no gaps, beam stop, hot or dead pixels; one array a panel."""
        good = self._raw.active & (self._raw.transmission == 1)
        hot, _, dead = self.bad_pixels
        good.ravel()[hot] = False
        good.ravel()[dead] = False
        return split_image(good, self.detector)

    def expected_image(self, sweep: int, frame: int) -> tuple[np.ndarray, ...]:
        """Expected photons in every pixel (slow, fast) of a frame, one array a panel; in gaps and bad pixels, too, as
        if they worked. Where the beam drifts, the intensity follows it, the response and the background do not."""
        this, terms = self.sweeps[sweep], self.params
        phi = float(this.angle(frame))
        signal = self._intensity(sweep, frame)
        signal *= float(self._frame_scale(sweep, frame))
        if terms.c.strength:
            signal += self.c(sweep, self._raw.q_length, phi)
        if terms.a.strength:
            signal *= self.a(sweep, *self._positions, phi)
        if terms.d.strength:
            signal *= self.d(*self._positions)
        signal *= self._raw.response
        if terms.background.photons:
            signal += self._background_rate(phi)
        signal *= self._raw.transmission
        signal *= this.exposure
        return split_image(signal, self.detector)

    def _frame_scale(self, sweep: int, frame: int) -> float:
        stills = self.params.stills
        return self.b_of_frames(sweep)[frame] if stills else self.b(sweep, self.sweeps[sweep].angle(frame))

    def background_image(self, image: int) -> tuple[np.ndarray, ...]:
        """Expected photons in every pixel (slow, fast) of an image without the crystal, one array a panel."""
        background = self.background_sweep
        rate = self._background_rate(float(background.angle(image)))
        return split_image(background.exposure * rate * self._raw.transmission, self.detector)

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
        """I of every pixel of the raw image, averaged over the frame's rotation, photons / (s sr)."""
        this, lattices = self.sweeps[sweep], self.params.lattices
        phi, s0 = this.angle(frame), self.mounting.s0(sweep, this.angle(frame))
        q = self._raw.q
        if self.mounting.beam_drifts:
            q = q + (np.array(self.beam.get_s0()) - s0)[:, None, None]
        signal = np.empty(self._raw.q_length.shape)
        diffuse_image(q, self._to_hkl(sweep, frame), self._diffuse, signal)
        for lattice in range(1, lattices.number if lattices.diffuse else 1):
            further = np.empty_like(signal)
            diffuse_image(q, self._to_hkl(sweep, frame, lattice), self._diffuse, further)
            signal += lattices.diffuse * further
        for lattice in range(lattices.number if self.params.bragg.photons else 0):
            strength = 1.0 if lattice == 0 else lattices.bragg
            model = self._bragg._replace(intensity=strength * self._bragg.intensity)
            setting, axis = self.mounting.setting(sweep, phi, frame, lattice), self.mounting.scan_axis
            add_bragg(q, make_frame(setting, axis, np.radians(this.width), s0, self.detector), model, signal)
        return signal

    def _to_hkl(self, sweep: int, frame: int, lattice: int = 0) -> np.ndarray:
        """Matrices from q in the laboratory to (h, k, l) at the angles that average over a frame."""
        this = self.sweeps[sweep]
        nodes, _ = np.polynomial.legendre.leggauss(self.params.oscillation.samples if this.width else 1)
        angles = this.angle(frame) + 0.5 * this.width * nodes
        return np.array([np.linalg.inv(self.mounting.setting(sweep, angle, frame, lattice)) for angle in angles])

    # The scales

    def _find_scales(self) -> dict[str, float]:
        """The scales at which a pixel of the first sweep counts, on average, the photons asked for."""
        first = self.sweeps[0]
        active = self._raw.active & (self._raw.transmission == 1)
        scales = {"diffuse": 0.0, "bragg": 0.0, "background": 0.0}
        if self.params.photons:
            scales["diffuse"] = self.params.photons / (first.exposure * self._mean_diffuse(active))
        if self.params.absolute.crystal is not None:
            scales["bragg"] = scales["diffuse"]
        elif self.params.bragg.photons:
            # photons of a reflection: t/dphi wavelength^2 J <Omega P E A>/Omega, the Lorentz factor being 1;
            # on a still the sphere cuts the Gaussian in its middle: 1/sqrt(2 pi sigma^2) in place of 1/dphi
            solid_angle = instrument.PIXEL_SIZE**2 / self.detector[0].get_distance() ** 2
            response = np.median(self._raw.response[active]) / solid_angle
            width = np.radians(first.width) if first.width else np.sqrt(2 * np.pi) * self.params.bragg.sigma
            per_intensity = first.exposure / width * self.beam.get_wavelength() ** 2 * response
            scales["bragg"] = self.params.bragg.photons / per_intensity
        if self.params.background.photons:
            mean = float(np.mean(self._background_shape[active]))
            scales["background"] = self.params.background.photons / (first.exposure * mean)
        return {name: float(value) for name, value in scales.items()}

    def _mean_diffuse(self, active: np.ndarray) -> float:
        """Mean of Omega P E A a d b I over active pixels (of every third row and column) and nine frames of the first
        sweep, at scale 1."""
        first, every = self.sweeps[0], (slice(None, None, 3), slice(None, None, 3))
        active, response = active[every], self._raw.response[every]
        q = np.ascontiguousarray(self._raw.q[(slice(None), *every)])
        x, y = (np.broadcast_to(position, self._raw.active.shape)[every] for position in self._positions)
        model, image, means = make_diffuse(self.params), np.empty(active.shape), []
        for frame in np.unique(np.linspace(0, first.frames - 1, 9).astype(int)):
            phi = first.angle(frame)
            diffuse_image(q, self._to_hkl(0, frame), model, image)
            signal = image * response * self.a(0, x, y, phi) * self.d(x, y) * self._frame_scale(0, frame)
            means.append(signal[active].mean())
        return float(np.mean(means))

    # The models of DIALS

    def experiments(self, multi_panel: bool = False, check_format: bool = False) -> ExperimentList:
        """The true models: an experiment for every lattice in every sweep, or in every still (without scan and
        goniometer, as dials.stills_process makes them). A drift is in the models as values at scan points.

        Parameters
        ----------
        multi_panel : bool
            A panel for each module of a flat detector, as dxtbx makes them with ``format.multi_panel=True``.
        check_format : bool
            Attach the images, too.
        """
        return make_experiments(self, multi_panel, check_format)
