"""Corrected observations of a simulated experiment, made without images: as many as one likes, of many sweeps, fast."""

from __future__ import annotations

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from true_terms import true_terms

from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.dataset import Dataset
from dials_diffuse.grid import GlobalGrid, miller_index_from_numpy
from dials_diffuse.parameters import parameters


def make_truth(*options: str) -> Truth:
    """An experiment on a 300K detector in frames of one degree, with all four terms and background.

    Parameters
    ----------
    options : str
        Of dials.diffuse_simulate.
    """
    terms = ("a.strength=0.15", "c.strength=0.3", "d.strength=0.08", "background.variation=0.2")
    return Truth(parameters("simulate", "oscillation.width=1", "frames=60", *terms, *options))


def simulated_observations(
    truth: Truth,
    n: int,
    *,
    ndiv: tuple[int, int, int] = (3, 3, 3),
    d_min: float = 2.0,
    pixels: float = 30,
    seed: int = 1,
) -> Dataset:
    """What dials.diffuse_correct would write, about ``n`` observations.

    An observation is made at a pixel drawn at random, of the voxel that it sees at the middle of a frame; the intensity
    is the mean of that voxel, and voxels of Bragg points are left out, so that what observations of a voxel differ in
    is in the four terms, the background and the counting.

    Parameters
    ----------
    truth : Truth
        Of images of one panel.
    pixels : float
        Pixel measurements in an observation, on average; from a third to five thirds of that.
    seed : int
        Of positions and counts.
    """
    random = np.random.default_rng(seed)
    grid = GlobalGrid(truth.cell, truth.space_group, ndiv, d_min)
    raw = truth.pixels[0]
    useful = np.flatnonzero(truth.mask()[0] & (raw.q_length < 1 / d_min))
    q, rate = raw.q.reshape(3, -1), raw.response.ravel()
    n_frame = round(n / sum(sweep.frames for sweep in truth.sweeps))
    parts = []
    for number, sweep in enumerate(truth.sweeps):
        for frame in range(sweep.frames):
            phi = float(sweep.angle(frame))
            pixel = random.choice(useful, n_frame)
            hkl = np.linalg.inv(truth.mounting.setting(number, phi)) @ q[:, pixel]
            index = np.rint(hkl.T * ndiv).astype(np.int32)
            kept = (index % ndiv != 0).any(axis=1) & grid.contains(index)
            index, pixel = index[kept], pixel[kept]
            measured = np.maximum(1, np.rint(pixels * random.uniform(1 / 3, 5 / 3, len(pixel)))).astype(np.int32)
            exposure = measured * sweep.exposure
            y, x = np.divmod(pixel, raw.q_length.shape[1])
            position = np.stack([x + 0.5, y + 0.5, np.full(len(x), frame + 0.5)], axis=1)
            background = truth.background_rate(phi)[0].ravel()[pixel] * exposure
            ids = np.full(len(pixel), number, dtype=np.int32)
            parts.append((ids, index, measured, position, rate[pixel] * exposure, background))
    ids, index, measured, position, response, background = (np.concatenate(values) for values in zip(*parts))
    del parts
    table = flex.reflection_table()
    table["id"] = flex.int(ids)
    table["panel"] = flex.size_t(len(ids), 0)
    table["miller_index"] = miller_index_from_numpy(index)
    table["num_pixels.valid"] = flex.int(measured)
    table["xyzobs.px.value"] = flumpy.vec_from_numpy(position)
    table["response"] = flumpy.from_numpy(response)
    table["background.sum.value"] = flumpy.from_numpy(background)
    table["background.sum.variance"] = flumpy.from_numpy(0.0015 * background)
    experiments = truth.experiments()
    for i, experiment in enumerate(experiments):
        table.experiment_identifiers()[i] = experiment.identifier
    dataset = Dataset(experiments, table, grid)
    terms = true_terms(dataset, truth)
    scattered = terms["scale"] * intensities(truth, grid, index) + terms["offset"]
    scattered *= terms["absorption"] * terms["detector"] * response
    table["counts"] = flumpy.from_numpy(random.poisson(scattered + background).astype(float))
    return dataset


def intensities(truth: Truth, grid: GlobalGrid, index: np.ndarray) -> np.ndarray:
    """Mean true intensity of voxels, shape (n, 3), in photons / (s sr), shape (n,)."""
    keys = np.concatenate(
        [grid.index2key(grid.map_to_asu(part)) for part in np.array_split(index, 1 + len(index) // 10**6)]
    )
    unique, number = np.unique(keys, return_inverse=True)
    return truth.voxel_mean(grid.key2index(unique), grid.ndiv)[number]
