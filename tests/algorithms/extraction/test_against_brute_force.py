"""The kernel against a plain loop over all pixels in double precision, on the real images."""

from __future__ import annotations

import numpy as np
import pytest
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.extraction.extract import extract
from dials_diffuse.algorithms.masking.masks import make_masks
from dials_diffuse.command_line.diffuse_extract import phil_scope
from dials_diffuse.dataset import Dataset
from dials_diffuse.geometry import IndexMapping

FRAMES = 2


@pytest.fixture
def experiments(snase) -> ExperimentList:
    experiments = ExperimentList.from_file("refined.expt")
    experiment = experiments[0]
    experiment.imageset = experiment.imageset[0:FRAMES]
    experiment.scan = experiment.imageset.get_scan()
    return experiments


def parameters(text: str = ""):
    common = "nproc=1 d_min=2.0 grid.ndiv=2,2,3 mask.untrusted.circle=531,494,30 mask.bad_pixels.frames=4"
    return phil_scope.fetch(parse("\n".join((common + " " + text).split()))).extract()


def reflections() -> flex.reflection_table:
    return flex.reflection_table.from_file("refined.refl")


def by_voxel(dataset: Dataset) -> dict:
    """Counts and pixels summed by voxel and batch."""
    table = dataset.observations
    index = dataset.grid.index2key(np.array(table["miller_index"]))
    batch = np.array(table["batch"])
    keys, inverse = np.unique(np.stack([batch, index]), axis=1, return_inverse=True)
    inverse = inverse.ravel()
    counts = np.bincount(inverse, flumpy.to_numpy(table["counts"]))
    pixels = np.bincount(inverse, np.array(table["num_pixels.valid"]))
    return {tuple(key): (c, p) for key, c, p in zip(keys.T.tolist(), counts, pixels)}


@pytest.mark.parametrize("mode", ["none", "ellipsoid", "shoebox"])
def test_sums_are_those_of_a_loop_over_pixels(experiments, mode):
    params = parameters(f"bragg_mask.mode={mode} extract.batch_width=1")
    dataset = extract(experiments, reflections(), params)
    experiment, grid = experiments[0], dataset.grid
    masks = make_masks(experiments, reflections(), params)[0]
    panel = experiment.detector[0]
    y, x = np.mgrid[0:1024, 0:1024]
    mapping = IndexMapping(experiment)
    boxes = np.array(reflections().select(reflections()["id"] == 0)["bbox"])
    expected = {}
    for frame in range(FRAMES):
        raw = flumpy.to_numpy(experiment.imageset.get_raw_data(frame)[0])
        good = masks.pixels[0] & flumpy.to_numpy(
            panel.get_trusted_range_mask(experiment.imageset.get_raw_data(frame)[0])
        )
        h = mapping.hkl(0, x.ravel() + 0.5, y.ravel() + 0.5, np.full(x.size, frame + 0.5))
        if mode == "shoebox":
            for x0, x1, y0, y1, z0, z1 in boxes:
                if z0 <= frame < z1:
                    good[y0:y1, x0:x1] = False
        if mode == "ellipsoid":
            ellipsoids = masks.bragg.ellipsoids
            w = ellipsoids.weight.astype(float)
            weight = np.array([[w[0], w[3], w[4]], [w[3], w[1], w[5]], [w[4], w[5], w[2]]])
            nearest = np.floor(h + 0.5).astype(int)
            distance = np.einsum("ni,ij,nj->n", h - nearest, weight, h - nearest)
            limit = ellipsoids.radius_squared[tuple((nearest + np.array(ellipsoids.radius_squared.shape) // 2).T)]
            good &= (distance >= limit).reshape(good.shape)
        index = np.floor(h * np.array(grid.ndiv) + 0.5).astype(int)
        inside = good.ravel() & (np.abs(index) <= grid.n_max).all(axis=1)
        inside[inside] &= grid.contains(index[inside])
        keys, inverse = np.unique(grid.index2key(index[inside]), return_inverse=True)
        counts = np.bincount(inverse, raw.ravel()[inside])
        for key, c, p in zip(keys.tolist(), counts, np.bincount(inverse)):
            expected[frame, key] = (c, p)

    found = by_voxel(dataset)
    assert len(found) == pytest.approx(len(expected), rel=1e-3)
    # A pixel within a rounding error of a voxel's face may fall to either side.
    same = [key for key in found if expected.get(key) == found[key]]
    assert len(same) > 0.97 * len(expected)
    assert sum(c for c, _ in found.values()) == pytest.approx(sum(c for c, _ in expected.values()), rel=1e-4)
    assert sum(p for _, p in found.values()) == pytest.approx(sum(p for _, p in expected.values()), rel=1e-4)


def test_pixel_mode_holds_the_same_pixels(experiments):
    """Summed by voxel, the pixels are exactly the observations; and rlp is DIALS's."""
    whole = extract(experiments, reflections(), parameters("extract.mode=voxel extract.batch_width=2"))
    pixels = extract(experiments, reflections(), parameters("extract.mode=pixel extract.batch_width=2"))
    assert by_voxel(whole) == by_voxel(pixels)
    assert set(np.array(pixels.observations["num_pixels.valid"])) == {1}

    chosen = pixels.observations.select(flex.size_t(range(0, len(pixels.observations), 1009)))
    again = flex.reflection_table()
    for column in ("id", "panel", "rlp", "xyzobs.px.value"):
        again[column] = chosen[column]
    again["imageset_id"] = flex.int(len(again), 0)
    again["xyzobs.px.variance"] = flex.vec3_double(len(again), (1, 1, 1))
    again.centroid_px_to_mm(experiments)
    again.map_centroids_to_reciprocal_space(experiments)
    assert np.abs(np.array(again["rlp"]) - np.array(chosen["rlp"])).max() < 1e-6


def test_the_result_does_not_depend_on_the_number_of_processes(experiments):
    one = extract(experiments, reflections(), parameters("nproc=1"))
    two = extract(experiments, reflections(), parameters("nproc=2"))
    for column in one.observations.keys():
        assert list(one.observations[column]) == list(two.observations[column])


def test_the_result_does_not_depend_on_how_many_frames_are_held_at_once(experiments, monkeypatch):
    from dials_diffuse.algorithms.extraction import voxel_sums

    whole = extract(experiments, reflections(), parameters("extract.batch_width=2"))
    monkeypatch.setattr(voxel_sums, "FRAME_BYTES", 1)
    single = extract(experiments, reflections(), parameters("extract.batch_width=2"))
    assert list(whole.observations["counts"]) == list(single.observations["counts"])
    assert list(whole.observations["miller_index"]) == list(single.observations["miller_index"])
