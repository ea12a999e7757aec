from __future__ import annotations

import numpy as np
import observation_data
import pytest
from dials.array_family import flex
from dials.util import Sorry
from dials.util.exclude_images import exclude_image_ranges_for_scaling
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.scaling.exclude_images import exclude_images, parse_ranges
from dials_diffuse.algorithms.scaling.observations import scaled_observations
from dials_diffuse.phil_scope.outliers import phil_scope


@pytest.fixture
def dataset():
    return observation_data.make_dataset(1, n_frames=30, samples=20)[0]


def frame(dataset) -> np.ndarray:
    return np.array(dataset.observations["xyzobs.px.value"].parts()[2])


def sweep(dataset) -> np.ndarray:
    return np.array(dataset.observations["id"])


def values(text: str):
    return phil_scope.fetch(parse(text)).extract().exclude_images


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("", []),
        ("exclude_images=None", []),
        ("exclude_images=0:5:8", [(0, 5, 8)]),
        ("exclude_images=0:5:8,1:20:30", [(0, 5, 8), (1, 20, 30)]),
        ("exclude_images='0:5:8 1:20:30'", [(0, 5, 8), (1, 20, 30)]),
        ("exclude_images=0:5:8 1:20:30", [(0, 5, 8), (1, 20, 30)]),
        ("exclude_images=0:5:8\nexclude_images=1:20:20", [(0, 5, 8), (1, 20, 20)]),
    ],
)
def test_text(dataset, text, wanted):
    assert parse_ranges(values(text), dataset.experiments) == wanted


def test_single_experiment_needs_no_number(dataset):
    assert parse_ranges([["5:8"]], dataset.experiments[:1]) == [(0, 5, 8)]
    assert parse_ranges([["0:5:8"]], dataset.experiments[:1]) == [(0, 5, 8)]


def test_without_batches_the_same_rows_as_dials(dataset):
    tables = [dataset.observations.select(dataset.observations["id"] == i) for i in (0, 1)]
    for i, table in enumerate(tables):
        del table.experiment_identifiers()[1 - i]
        table["flags"] = flex.size_t(len(table), 0)
    copies = ExperimentList([observation_data.experiment(i, 30) for i in (0, 1)])
    exclude_image_ranges_for_scaling(tables, copies, [["0:5:8,1:20:30"]])
    wanted = [np.array(table.get_flags(table.flags.user_excluded_in_scaling)) for table in tables]
    rows = exclude_images(dataset, [["0:5:8,1:20:30"]])
    flags = dataset.observations.get_flags(dataset.observations.flags.user_excluded_in_scaling)
    np.testing.assert_array_equal(np.array(flags), rows)
    edge = np.isin(frame(dataset), (4, 8, 19, 30))  # DIALS keeps what lies just on the edge
    for i in (0, 1):
        same = ~edge[sweep(dataset) == i]
        np.testing.assert_array_equal(rows[sweep(dataset) == i][same], wanted[i][same])
        assert dataset.experiments[i].scan.get_valid_image_ranges(f"sweep-{i}") == copies[
            i
        ].scan.get_valid_image_ranges(f"sweep-{i}")


def test_batches_that_overlap_go_whole(dataset):
    """Two frames to a batch: images 5 and 6 are one, 7 and 8 another."""
    dataset.observations["batch"] = flex.int((frame(dataset) // 2).astype(np.int32))
    rows = exclude_images(dataset, [["0:6:7"]])
    np.testing.assert_array_equal(rows, (sweep(dataset) == 0) & (frame(dataset) >= 4) & (frame(dataset) < 8))


def test_nothing_excluded(dataset):
    assert not exclude_images(dataset, []).any()
    assert not exclude_images(dataset, [None]).any()
    assert list(dataset.experiments[0].scan.get_valid_image_ranges("sweep-0")) == []


def test_excluded_before_stays_excluded(dataset):
    dataset.experiments[0].scan.set_valid_image_ranges("sweep-0", [(1, 10), (16, 30)])
    wanted = (sweep(dataset) == 0) & (frame(dataset) >= 10) & (frame(dataset) < 15)
    np.testing.assert_array_equal(exclude_images(dataset, None), wanted)
    exclude_images(dataset, [["0:11:20"]])
    assert list(dataset.experiments[0].scan.get_valid_image_ranges("sweep-0")) == [(1, 10), (21, 30)]


def test_all_of_a_sweep(dataset):
    np.testing.assert_array_equal(exclude_images(dataset, [["1:1:30"]]), sweep(dataset) == 1)


def test_is_not_merged(dataset):
    observation_data.put_scales(dataset.observations, np.ones(len(dataset.observations)))
    rows = exclude_images(dataset, [["0:5:8"]])
    assert not rows[scaled_observations(dataset).rows].any()


@pytest.mark.parametrize(
    "text, message",
    [
        ("5:8", "give experiment:start:end"),
        ("0:5", "give experiment:start:end"),
        ("0:a:8", "give experiment:start:end"),
        ("0-5-8", "give experiment:start:end"),
        ("2:5:8", "there is no experiment 2; they are 0 to 1"),
        ("0:31:40", "experiment 0 has the images 1 to 30"),
        ("0:8:5", "experiment 0 has the images 1 to 30"),
        ("1:5:8", "experiment 1 is a still"),
    ],
)
def test_no_such_images(dataset, text, message):
    dataset.experiments[1].scan = None
    with pytest.raises(Sorry, match=message):
        exclude_images(dataset, [[text]])
