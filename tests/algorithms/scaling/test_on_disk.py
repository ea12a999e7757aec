"""Outliers, bad frames and residuals of observations on disk are those of the same observations in memory."""

from __future__ import annotations

import numpy as np
import observation_data
import pytest
from dxtbx import flumpy
from iotbx.phil import parse
from partitions_on_disk import in_memory, on_disk

from dials_diffuse.algorithms.scaling.bad_frames import find_bad_frames
from dials_diffuse.algorithms.scaling.outliers import REASON, find_outliers, outlier_maps
from dials_diffuse.algorithms.scaling.partitions import VoxelPartitions, repeated
from dials_diffuse.algorithms.scaling.residuals import residual_report
from dials_diffuse.dataset import Dataset
from dials_diffuse.phil_scope.mp import phil_scope as mp_scope
from dials_diffuse.phil_scope.outliers import phil_scope

PARAMS = phil_scope.extract()


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, np.ndarray]:
    """Observations with 5 % outliers, and a shadow on images 41 to 46 of sweep 0; their scales."""
    dataset, truth = observation_data.make_dataset(1, pixels=100, n_frames=60, samples=40)
    table, rng = dataset.observations, np.random.default_rng(1)
    counts = flumpy.to_numpy(table["counts"])
    x, _, z = flumpy.to_numpy(table["xyzobs.px.value"]).T
    counts[(flumpy.to_numpy(table["id"]) == 0) & (x < 30) & (z >= 40) & (z < 46)] *= 0.5
    counts *= rng.choice([0.3, 1, 3], len(counts), p=[0.03, 0.95, 0.02])
    return dataset, truth.b


def all_that_is_found(partitions: VoxelPartitions, dataset: Dataset) -> tuple:
    outliers = find_outliers(partitions, dataset.grid, PARAMS.outlier)
    codes = np.concatenate([partition.get(REASON) for partition in partitions.partitions])
    maps = outlier_maps(partitions, dataset.experiments[0].detector)
    kept = partitions.viewed(no_outliers)
    bad = find_bad_frames(kept, dataset.grid, dataset.experiments, PARAMS.bad_frames)
    return (
        outliers,
        codes.tolist(),
        maps,
        bad,
        residual_report(kept.viewed(repeated), dataset.grid, dataset.experiments),
    )


def no_outliers(partition, observations):
    return observations.select(partition.get(REASON) == 0)


@pytest.mark.parametrize("method", ["processes", "dask"])
def test_on_disk_as_in_memory(method, data, tmp_path):
    dataset, b = data
    mp = mp_scope.fetch(parse(f"mp {{ method = {method}\nnproc = 2 }}")).extract().mp
    partitions = on_disk(dataset, b, tmp_path, 4, mp)
    assert len(partitions.partitions) > 3
    found = all_that_is_found(partitions, dataset)
    outliers, _, _, bad, _ = found
    assert outliers.counts["high"] > 100 < outliers.counts["low"] and len(bad) == 1
    assert found == all_that_is_found(in_memory(partitions), dataset)
    left = {path.name.split("-", 1)[1] for path in (tmp_path / "scratch").iterdir()}
    assert left == {"rows.npy", "voxels.npy", "first.npy", f"{REASON}.npy"}
