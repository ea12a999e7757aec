"""The terms of the scaling model held against what the images were simulated from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from observation_data import put_scales
from scipy.ndimage import map_coordinates

from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import miller_index_to_numpy

#: Degrees, pixels and 1/Angstrom within which errors are constant: the cells over which gauges are found.
DEGREES, PIXELS, Q = 1.0, 8.0, 0.01


@dataclass
class TermErrors:
    """Root mean square errors, relative (c: to the mean intensity); every pixel measurement counts the same.

    What observations cannot tell is brought into one gauge before (see :func:`term_errors`). ``c_shape`` is c after a
    function of |q| alone, times b, which might as well belong to the intensity, has been fitted to its error.
    """

    b: float
    a: float
    d: float
    c: float
    c_shape: float
    factor: float

    def __str__(self) -> str:
        values = " ".join(f"{name} {100 * value:.2f} %" for name, value in vars(self).items())
        return f"rms errors of the terms: {values}"


def true_terms(dataset: Dataset, truth: Truth) -> dict[str, np.ndarray]:
    """The terms at the mean position of every observation, for images of one panel.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``scale`` b, ``absorption`` a, ``offset`` c in photons / (s sr), ``detector`` d, by the names of the model's
        components.
    """
    table = dataset.observations
    x, y, z = (flumpy.to_numpy(part) for part in table["xyzobs.px.value"].parts())
    q = map_coordinates(truth.pixels[0].q_length, (y - 0.5, x - 0.5), order=1, mode="nearest")
    ids = flumpy.to_numpy(table["id"])
    values = {name: np.empty(len(table)) for name in ("scale", "absorption", "offset")}
    for number, sweep in enumerate(truth.sweeps):
        these = ids == number
        phi = sweep.start + sweep.width * z[these]
        values["scale"][these] = truth.b(number, phi)
        values["absorption"][these] = truth.a(number, x[these], y[these], phi)
        values["offset"][these] = truth.c(number, q[these], phi)
    return {**values, "detector": truth.d(x, y)}


def put_terms(table: flex.reflection_table, terms: dict[str, np.ndarray]) -> None:
    """The columns that scaling adds, for known terms and nothing rejected."""
    response = terms["absorption"] * terms["detector"]
    put_scales(table, response * terms["scale"])
    table["offset.sum.value"] = table["response"] * flumpy.from_numpy(response * terms["offset"])


def term_errors(dataset: Dataset, truth: Truth, found: dict[str, np.ndarray]) -> TermErrors:
    """Errors of refined terms in a gauge that both have in common.

    Observations are the same for

    - a(x, y, phi) / f(x, y) and d(x, y) f(x, y): the mean logarithm of a at every point of the detector is made the
      true one;
    - a / h(phi), b h and c h: so is its mean over the image at every angle;
    - d f(|q|), c / f and I / f, |q| being the same at all angles: so is the mean of d at every |q|;
    - b k and I / k: the mean of b.

    Parameters
    ----------
    dataset : Dataset
        n observations.
    truth : Truth
    found : dict of str to ndarray, shape (n,)
        As of :func:`true_terms`; what is missing was not refined.
    """
    table = dataset.observations
    true, weight = true_terms(dataset, truth), flumpy.to_numpy(table["num_pixels.valid"]).astype(float)
    x, y, z = (flumpy.to_numpy(part) for part in table["xyzobs.px.value"].parts())
    ids = flumpy.to_numpy(table["id"])
    width = np.array([sweep.width for sweep in truth.sweeps])[ids]
    index = miller_index_to_numpy(table["miller_index"])
    at_angle, on_detector = _cells(ids, z * width / DEGREES), _cells(x / PIXELS, y / PIXELS)
    shells = _cells(dataset.grid.q(index) / Q)

    def error(name: str) -> np.ndarray:
        return np.log(found[name] / true[name]) if name in found else -np.log(true[name])

    b, a, d = error("scale"), error("absorption"), error("detector")
    moved = np.zeros(len(table))
    for _ in range(20):  # the observations are not at all points of the detector at all angles: the means mix a little
        static = _means(on_detector, a, weight)
        a, d = a - static, d + static
        common, radial = _means(at_angle, a, weight), _means(shells, d, weight)
        a, d = a - common, d - radial
        b, moved = b + common, moved + common + radial
    factor = a + b + d
    b, factor = (values - np.average(values, weights=weight) for values in (b, factor))
    c = found.get("offset", np.zeros(len(table))) * np.exp(moved) - true["offset"]
    intensity = np.average(truth.diffuse(index / dataset.grid.ndiv), weights=weight)
    c_shape = c - true["scale"] * _multiple(true["scale"], c, shells, weight)[shells]
    rms = [float(np.sqrt(np.average(values**2, weights=weight))) for values in (b, a, d, c, c_shape, factor)]
    return TermErrors(*rms[:3], rms[3] / intensity, rms[4] / intensity, rms[5])


def offset_gauge(dataset: Dataset, truth: Truth, found: dict[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """What c holds of the intensity: at every |q| the multiple of b that its error is; in photons / (s sr)."""
    true, weight = true_terms(dataset, truth), flumpy.to_numpy(dataset.observations["num_pixels.valid"]).astype(float)
    q = dataset.grid.q(miller_index_to_numpy(dataset.observations["miller_index"]))
    shells = _cells(q / Q)
    nodes = np.bincount(shells, weight * q) / np.bincount(shells, weight)
    lost = _multiple(true["scale"], found["offset"] - true["offset"], shells, weight)
    return lambda at: np.interp(at, nodes, lost)


def static_response(truth: Truth) -> Callable[[np.ndarray], np.ndarray]:
    """The mean of the true a d at |q|, over the detector and all sweeps: what no observation can tell from intensity.

    A map whose a and d have the mean 1 at every |q| holds the intensity times this.
    """
    good, q = truth.mask()[0], truth.pixels[0].q_length
    y, x = np.nonzero(good)
    total = np.zeros(len(x))
    for number, sweep in enumerate(truth.sweeps):
        angles = sweep.angle(np.linspace(0, sweep.frames - 1, 9))
        total += np.mean([truth.a(number, x + 0.5, y + 0.5, phi) for phi in angles], axis=0)
    total *= truth.d(x + 0.5, y + 0.5) / len(truth.sweeps)
    shells = _cells(q[good] / Q)
    nodes, means = (np.bincount(shells, values) / np.bincount(shells) for values in (q[good], total))
    return lambda at: np.interp(at, nodes, means)


def _cells(*coordinates: np.ndarray) -> np.ndarray:
    """Numbers of the boxes of edge 1 that points are in, shape (n,), int."""
    numbers = [np.floor(values).astype(np.int64) for values in coordinates]
    return np.unique(np.ravel_multi_index(numbers, [values.max() + 1 for values in numbers]), return_inverse=True)[1]


def _multiple(of: np.ndarray, values: np.ndarray, cells: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """By least squares, of every cell."""
    return np.bincount(cells, weight * of * values) / np.bincount(cells, weight * of**2)


def _means(cells: np.ndarray, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean of the cell that each is in, shape (n,)."""
    return (np.bincount(cells, weight * values) / np.bincount(cells, weight))[cells]
