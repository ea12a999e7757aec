"""Observations of a crystal whose diffuse intensity is known, made directly: for tests of scaling and merging.

Nothing of the reduction's code is used but the containers: indices come from rotation matrices written out here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cctbx import sgtbx, uctbx
from dials.array_family import flex
from dxtbx.model import BeamFactory, Crystal, DetectorFactory, Experiment, GoniometerFactory, ScanFactory
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy

A, C, D_MIN, DISTANCE, SIZE, WAVELENGTH = 20.0, 28.0, 2.2, 150.0, 240.0, 1.0
GRID = GlobalGrid(uctbx.unit_cell((A, A, C, 90, 90, 90)), sgtbx.space_group_info("P 4").group(), (2, 2, 2), D_MIN)


@dataclass
class Truth:
    """What the data were made from: b, I, a, c and d of each observation, and I of any voxels."""

    b: np.ndarray
    intensity: np.ndarray
    level: float
    a: np.ndarray | float = 1.0
    c: np.ndarray | float = 0.0
    d: np.ndarray | float = 1.0

    def __call__(self, index: np.ndarray, ndiv: int = 2) -> np.ndarray:
        """Intensity of voxels, shape (n, 3) to (n,): with the symmetry of Laue group 4/m and no more."""
        h, k, l = (np.asarray(index) / ndiv).T
        q2 = (h**2 + k**2) / A**2 + (l / C) ** 2
        twist = h * k * (h**2 - k**2) / (1 + (h**2 + k**2) ** 2)
        texture = np.cos(2 * np.pi * h) + np.cos(2 * np.pi * k) + np.cos(np.pi * l) + 3 * twist
        return self.level * np.exp(-6 * q2) * (1 + 0.25 * np.tanh(texture))


def true_b(sweep: int, phi: np.ndarray) -> np.ndarray:
    """b at rotation phi in degrees; the first sweep's mean over 90 degrees is 1."""
    if sweep == 0:
        return 1 + 0.2 * np.sin(np.radians(4 * phi))
    return 0.6 - 0.15 * np.cos(np.radians(3 * phi + 20 * sweep)) + 0.1 * phi / 90


def true_a(sweep: int, x: np.ndarray, y: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Absorption at pixels, less 1, for the strength 1: about 0 on average over the detector at every angle."""
    turn = np.radians(2 * phi + 70 * sweep)
    return np.sin(np.pi * (x / 60 - 0.5)) * np.cos(turn) + np.sin(np.pi * (y / 60 - 0.5)) * np.sin(turn)


def true_c(sweep: int, q: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Excess background at |q| for the strength and level 1: 0 at some angle at every |q|."""
    return np.exp(-(((q - 0.25) / 0.12) ** 2)) * np.sin(np.radians(2 * phi + 40 * sweep)) ** 2


def true_d(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The detector's response, less 1, for the strength 1: 0 on average, on every circle about its centre, too."""
    return np.sin(np.pi * (x / 60 - 0.5)) * np.sin(np.pi * (y / 60 - 0.5)) + 0.7 * np.cos(np.pi * x / 60)


def experiment(sweep: int, n_frames: int = 90, space_group: str = "P 4") -> Experiment:
    """A sweep of one-degree frames about the x axis, each in an orientation of its own, on a flat square detector."""
    setting = _rotation([0.3, 1.0, -0.5], 25 + 50 * sweep) @ _rotation([1, 0, 0.2], 40.0 * sweep)
    real = setting @ np.diag([A, A, C])
    crystal = Crystal(*(tuple(column) for column in real.T), space_group_symbol=space_group)
    pixels = 60
    detector = DetectorFactory.simple(
        "PAD", DISTANCE, (SIZE / 2, SIZE / 2), "+x", "-y", (SIZE / pixels,) * 2, (pixels, pixels), (0, 1e6)
    )
    scan = ScanFactory.make_scan((1, n_frames), 1.0, (0.0, 1.0), {i: float(i) for i in range(1, n_frames + 1)})
    return Experiment(
        identifier=f"sweep-{sweep}",
        beam=BeamFactory.simple(WAVELENGTH),
        detector=detector,
        goniometer=GoniometerFactory.single_axis(),
        scan=scan,
        crystal=crystal,
    )


def make_dataset(
    level: float,
    *,
    sweeps: int = 2,
    pixels: float = 40,
    background: float = 0.3,
    n_frames: int = 90,
    seed: int = 1,
    samples: int = 60,
    a: float = 0.0,
    c: float = 0.0,
    d: float = 0.0,
) -> tuple[Dataset, Truth]:
    """Corrected observations.

    Parameters
    ----------
    level : float
        Photons in a pixel near the origin of reciprocal space where b is 1.
    sweeps, n_frames : int
        Sweeps of one-degree frames.
    pixels : float
        Pixels that each sampled point of the detector stands for.
    background : float
        Expected background relative to the signal, at most; it varies over frames and detector.
    samples : int
        Points sampled along an edge of the detector.
    a, c, d : float
        Strengths of absorption, excess background and the detector's response: see :func:`true_a` and so on.
    """
    rng = np.random.default_rng(seed)
    truth = Truth(np.empty(0), np.empty(0), level)
    names = ("id", "index", "n", "xyz", "g", "B", "b", "I", "a", "c", "d")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    experiments = ExperimentList([experiment(i, n_frames) for i in range(sweeps)])
    for i in range(sweeps):
        index, xyz, n = _observations(experiments[i], samples, n_frames)
        g = n * pixels * (1 - 0.3 * np.hypot(xyz[:, 0] - 30, xyz[:, 1] - 30) / 42)
        intensity = truth(index)
        b = true_b(i, xyz[:, 2])
        varied = 0.5 * (1 + np.cos(xyz[:, 2] / 9 + i)) * (0.2 + 0.8 * xyz[:, 0] / 60)
        x, y, phi = xyz.T
        terms = 1 + a * true_a(i, x, y, phi), c * level * true_c(i, GRID.q(index), phi), 1 + d * true_d(x, y)
        expected_background = background * level * 0.5 * g * varied
        sweep = np.full(len(n), i)
        for name, values in zip(names, (sweep, index, n, xyz, g, expected_background, b, intensity, *terms)):
            columns[name].append(values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    seen = joined["g"] * joined["a"] * joined["d"]
    counts = rng.poisson(seen * joined["b"] * joined["I"] + seen * joined["c"] + joined["B"]).astype(float)
    table = flex.reflection_table()
    table["id"] = flex.int(joined["id"].astype(np.int32))
    table["panel"] = flex.size_t(len(counts), 0)
    table["miller_index"] = miller_index_from_numpy(joined["index"])
    table["num_pixels.valid"] = flex.int((joined["n"] * pixels).round().astype(np.int32))
    table["counts"] = flex.double(counts)
    table["response"] = flex.double(joined["g"])
    table["background.sum.value"] = flex.double(joined["B"])
    table["background.sum.variance"] = flex.double(np.zeros(len(counts)))
    table["xyzobs.px.value"] = flex.vec3_double(*(flex.double(np.ascontiguousarray(c)) for c in joined["xyz"].T))
    for i in range(sweeps):
        table.experiment_identifiers()[i] = experiments[i].identifier
    truth.b, truth.intensity = joined["b"], joined["I"]
    truth.a, truth.c, truth.d = joined["a"], joined["c"], joined["d"]
    return Dataset(experiments, table, GRID), truth


def _observations(model: Experiment, samples: int, n_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxel, mean position and number of sampled points of every observation of a sweep, two degrees to a batch."""
    edge = (np.arange(samples) + 0.5) / samples
    fast, slow = (axis.ravel() for axis in np.meshgrid(edge, edge))
    lab = np.stack([(fast - 0.5) * SIZE, -(slow - 0.5) * SIZE, np.full(fast.shape, -DISTANCE)], axis=-1)
    s0 = np.array(model.beam.get_s0())
    q_lab = lab / np.linalg.norm(lab, axis=1)[:, None] / WAVELENGTH - s0
    within = np.linalg.norm(q_lab, axis=1) < 1 / D_MIN
    q_lab, fast, slow = q_lab[within], fast[within], slow[within]
    inverse = np.linalg.inv(np.array(model.crystal.get_A()).reshape(3, 3))
    phi = np.arange(n_frames) + 0.5
    hkl = np.stack([q_lab @ (inverse @ _rotation([1, 0, 0], -angle)).T for angle in phi])
    index = np.floor(2 * hkl + 0.5).astype(np.int64).reshape(-1, 3)
    frame = np.repeat(phi, len(fast))
    key = ((frame // 2 * 1000 + index[:, 0] + 500) * 1000 + index[:, 1] + 500) * 1000 + index[:, 2] + 500
    _, first, inverse_key, n = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    inverse_key = inverse_key.ravel()
    position = (np.tile(fast, n_frames) * 60, np.tile(slow, n_frames) * 60, frame)
    xyz = np.stack([np.bincount(inverse_key, values) / n for values in position], axis=-1)
    return index[first], xyz, n.astype(float)


def _rotation(axis: list[float], degrees: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def make_stills(level: float, *, stills: int, pixels: float = 40, samples: int = 60, seed: int = 1):
    """Corrected observations of stills without background, each with a crystal and a factor b of its own.

    Parameters as of :func:`make_dataset`; b is between 0.3 and 2, its mean over all stills is 1.
    """
    rng = np.random.default_rng(seed)
    base = experiment(0)
    real = np.array(base.crystal.get_real_space_vectors())
    b_of_stills = rng.uniform(0.3, 2, stills)
    b_of_stills /= b_of_stills.mean()
    truth = Truth(np.empty(0), np.empty(0), level)
    experiments, tables = ExperimentList(), []
    for i in range(stills):
        turned = real @ _rotation(rng.normal(size=3), rng.uniform(0, 180)).T
        crystal = Crystal(*(tuple(vector) for vector in turned), space_group_symbol="P 4")
        experiments.append(Experiment(base.beam, base.detector, crystal=crystal, identifier=f"still-{i}"))
        index, xyz, n = _observations(experiments[i], samples, 1)
        tables.append((np.full(len(n), i), index, xyz, n * pixels * (1 - 0.3 * np.hypot(*(xyz[:, :2] - 30).T) / 42)))
    ids, index, xyz, g = (np.concatenate(part) for part in zip(*tables))
    truth.intensity, truth.b = truth(index), b_of_stills[ids]
    table = flex.reflection_table()
    table["id"] = flex.int(ids.astype(np.int32))
    table["panel"] = flex.size_t(len(ids), 0)
    table["miller_index"] = miller_index_from_numpy(index)
    table["num_pixels.valid"] = flex.int(len(ids), int(pixels))
    table["counts"] = flex.double(rng.poisson(g * truth.b * truth.intensity).astype(float))
    table["response"] = flex.double(g)
    for name in ("background.sum.value", "background.sum.variance"):
        table[name] = flex.double(len(ids), 0.0)
    table["xyzobs.px.value"] = flex.vec3_double(*(flex.double(np.ascontiguousarray(c)) for c in xyz.T))
    for i, still in enumerate(experiments):
        table.experiment_identifiers()[i] = still.identifier
    return Dataset(experiments, table, GRID), truth


def put_scales(table: flex.reflection_table, b: np.ndarray) -> None:
    """The columns that scaling adds, for known scales and nothing rejected."""
    table["inverse_scale_factor"] = flex.double(b)
    table["offset.sum.value"] = flex.double(len(table), 0.0)
    table["flags"] = flex.size_t(len(table), 0)
