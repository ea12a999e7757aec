"""How the crystals stand in the beam at every angle: goniometer, orientations, drift, and lattices beyond the first.

    q = S R(phi) F U(phi) B(phi) h

with the setting rotation S, the rotation R about the scan axis, the fixed rotation F, and the setting matrix U B, which
may drift with phi. Everything is written out from axes and angles, so that it can check the code that reduces data.
"""

from __future__ import annotations

from collections.abc import Sequence

import libtbx.phil
import numpy as np
from cctbx import uctbx
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model import Goniometer, GoniometerFactory, MultiAxisGoniometer

from dials_diffuse.algorithms.simulation.terms import Sweep

#: Between the omega and the kappa axis, in degrees.
ALPHA = 50
#: Axes (unnormalised) about which orientation and beam drift.
ORIENTATION_DRIFT_AXIS = (0.4, 0.7, -0.59)
BEAM_DRIFT_AXIS = (0.8, 0.6, 0.0)
#: By how much an edge drifts, against the largest.
EDGE_DRIFT = (1.0, -0.4, 0.7)


class Mounting:
    """The matrices of one simulation.

    Parameters
    ----------
    params : libtbx.phil.scope_extract
        Of the simulation.
    sweeps : list of Sweep
        Its sweeps.
    s0 : ndarray, shape (3,)
        Of the beam without drift.

    Raises
    ------
    Sorry
        If the orientations given do not fit the sweeps or stills are to drift.
    """

    def __init__(self, params: libtbx.phil.scope_extract, sweeps: list[Sweep], s0: np.ndarray) -> None:
        self.params = params
        self.sweeps = sweeps
        self._s0 = s0
        self.drifts = bool(params.drift.orientation or params.drift.cell)
        self.beam_drifts = bool(params.drift.beam)
        if params.stills and (self.drifts or self.beam_drifts):
            raise Sorry("Stills do not drift: leave out drift.* or stills=True.")
        self.orientations = _orientations(params)
        self._orthogonal = orthogonal(params.crystal.unit_cell)

    def orientation(self, sweep: int, frame: int = 0, lattice: int = 0) -> np.ndarray:
        """The U matrix of a lattice without drift; ``frame`` matters for stills only."""
        if lattice == 0 and not self.params.stills:
            return self.orientations[sweep]
        return euler(*_random_angles(np.random.RandomState([self.params.seed, 7541, sweep, lattice, self._own(frame)])))

    def _own(self, frame: int) -> int:
        return frame if self.params.stills else 0

    def crystal_setting(self, sweep: int, phi: float, frame: int = 0, lattice: int = 0) -> np.ndarray:
        """A = U B at an angle: from (h, k, l) to q at zero rotation."""
        u, b = self._u_and_b(sweep, phi, frame, lattice)
        return u @ b

    def setting(self, sweep: int, phi: float, frame: int = 0, lattice: int = 0) -> np.ndarray:
        """S R(phi) F U B: from (h, k, l) to q in the laboratory."""
        u, b = self._u_and_b(sweep, phi, frame, lattice)
        return (self.goniometer_rotation(phi) @ u) @ b

    def _u_and_b(self, sweep: int, phi: float, frame: int, lattice: int) -> tuple[np.ndarray, np.ndarray]:
        u = self.orientation(sweep, frame, lattice)
        if not self.drifts:
            return u, self._orthogonal
        drift, crystal = self.params.drift, self.params.crystal
        turn = rotation(unit(ORIENTATION_DRIFT_AXIS), drift.orientation * self._course(sweep, phi, 0.4))
        strain = drift.cell * self._course(sweep, phi, 2.1)
        cell = list(crystal.unit_cell.parameters())
        cell[:3] = (edge * (1 + strain * share) for edge, share in zip(cell, EDGE_DRIFT))
        return turn @ u, orthogonal(crystal.space_group.group().average_unit_cell(uctbx.unit_cell(cell)))

    def s0(self, sweep: int, phi: float) -> np.ndarray:
        """Beam vector at an angle, 1/A."""
        if not self.beam_drifts:
            return self._s0
        return rotation(unit(BEAM_DRIFT_AXIS), self.params.drift.beam * self._course(sweep, phi, 1.3)) @ self._s0

    def _course(self, sweep: int, phi: float, phase: float) -> float:
        """From about -1/2 to 1/2 over a sweep, smoothly, not on a straight line; the mean is 0."""
        this = self.sweeps[sweep]
        t = (phi - this.start) / this.range
        return t - 0.5 + 0.12 * np.sin(2 * np.pi * t + phase + 0.9 * sweep)

    # The goniometer

    @property
    def _x(self) -> np.ndarray:
        return np.array([-1.0 if self.params.goniometer.invert else 1.0, 0, 0])

    @property
    def _kappa(self) -> np.ndarray:
        """The kappa axis, in the plane of x and y."""
        alpha = np.radians(ALPHA)
        return self._x[0] * np.array([np.cos(alpha), np.sin(alpha), 0])

    @property
    def scan_axis(self) -> np.ndarray:
        """The axis, in the laboratory, about which the crystal turns."""
        goniometer = self.params.goniometer
        if goniometer.model == "single" or goniometer.scan_axis == "omega":
            return self._x
        omega, kappa, _ = goniometer.angles
        return rotation(self._x, omega) @ rotation(self._kappa, kappa) @ self._x

    def goniometer_rotation(self, phi: float) -> np.ndarray:
        """S R(phi) F: omega turns kappa, kappa turns phi, phi turns the crystal. The identity for stills."""
        if self.params.stills:
            return np.eye(3)
        goniometer = self.params.goniometer
        if goniometer.model == "single":
            return rotation(self._x, phi)
        omega, kappa, last = goniometer.angles
        omega, last = (phi, last) if goniometer.scan_axis == "omega" else (omega, phi)
        return rotation(self._x, omega) @ rotation(self._kappa, kappa) @ rotation(self._x, last)

    def make_goniometer(self) -> Goniometer | MultiAxisGoniometer | None:
        """dxtbx's model; axes run from the crystal outwards. None for stills."""
        if self.params.stills:
            return None
        goniometer = self.params.goniometer
        if goniometer.model == "single":
            return GoniometerFactory.single_axis_reverse() if goniometer.invert else GoniometerFactory.single_axis()
        omega, kappa, phi = goniometer.angles
        x, arm = tuple(self._x), tuple(self._kappa)
        axes, angles = flex.vec3_double([x, arm, x]), flex.double([phi, kappa, omega])
        number = {"phi": 0, "omega": 2}[goniometer.scan_axis]
        return GoniometerFactory.multi_axis(axes, angles, flex.std_string(["PHI", "KAPPA", "OMEGA"]), number)


def unit(vector: Sequence[float]) -> np.ndarray:
    """A vector at the length 1."""
    return np.array(vector) / np.linalg.norm(vector)


def orthogonal(cell: uctbx.unit_cell) -> np.ndarray:
    """The B matrix in 1/A, as cctbx and DIALS have it."""
    return np.array(cell.fractionalization_matrix()).reshape(3, 3).T.copy()


def rotation(axis: Sequence[float], angle: float) -> np.ndarray:
    """Matrix of a right-handed rotation about a unit vector by an angle in degrees (Rodrigues' formula)."""
    cross = np.cross(np.eye(3), np.array(axis))
    angle = np.radians(angle)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def euler(first: float, second: float, third: float) -> np.ndarray:
    """Rotations about z, y, z by angles in degrees."""
    return rotation((0, 0, 1), first) @ rotation((0, 1, 0), second) @ rotation((0, 0, 1), third)


def _random_angles(random: np.random.RandomState) -> tuple[float, float, float]:
    """Euler angles of a random rotation, in degrees."""
    return random.uniform(0, 360), np.degrees(np.arccos(random.uniform(-1, 1))), random.uniform(0, 360)


def _orientations(params: libtbx.phil.scope_extract) -> list[np.ndarray]:
    """U matrices of the first lattice in all sweeps.

    Raises
    ------
    Sorry
        If the number of angles is not three a sweep.
    """
    angles = params.crystal.orientation
    if angles is None:
        random = np.random.RandomState(params.seed)
        return [euler(*_random_angles(random)) for _ in range(params.sweeps)]
    if params.stills:
        raise Sorry("Every still has a crystal of its own: leave out crystal.orientation or stills=True.")
    if len(angles) != 3 * params.sweeps:
        raise Sorry(f"crystal.orientation has {len(angles)} angles: give three for each of the {params.sweeps} sweeps.")
    return [euler(*angles[i : i + 3]) for i in range(0, len(angles), 3)]
