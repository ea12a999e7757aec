from __future__ import annotations

import logging

import numpy as np
import observation_data
import pytest
from cctbx import miller
from dials.array_family import flex
from dials.util import Sorry

from dials_diffuse.algorithms.scaling import observations as module
from dials_diffuse.algorithms.scaling.observations import GroupedObservations


def test_groups_are_the_laue_equivalent_voxels(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 700)  # keys are made in chunks
    dataset, _ = observation_data.make_dataset(1, sweeps=2, n_frames=10, samples=20)
    grouped = GroupedObservations.from_dataset(dataset)
    table = dataset.observations
    wanted: dict[tuple, list[int]] = {}
    for row, index in enumerate(table["miller_index"]):
        if dataset.grid.contains(np.array([index]))[0]:
            mates = miller.sym_equiv_indices(dataset.grid.laue_group, index).indices()
            wanted.setdefault(max(m.h() for m in mates), []).append(row)
    found = [grouped.rows[begin:end].tolist() for begin, end in zip(grouped.first[:-1], grouped.first[1:])]
    assert sorted(found) == sorted(wanted.values())
    counts, background = (np.array(table[name]) for name in ("counts", "background.sum.value"))
    np.testing.assert_allclose(grouped.signal, (counts - background)[grouped.rows])
    np.testing.assert_allclose(
        grouped.position[:, 2], np.array(table["xyzobs.px.value"].parts()[2])[grouped.rows], rtol=1e-6
    )
    voxels, rows = zip(*grouped.chunks(700))
    assert len(voxels) > 2
    assert [s.start for s in voxels[1:]] == [s.stop for s in voxels[:-1]] and voxels[-1].stop == len(grouped.voxels)
    assert [s.start for s in rows[1:]] == [s.stop for s in rows[:-1]] and rows[-1].stop == len(grouped.rows)


def test_repeated():
    dataset, _ = observation_data.make_dataset(1, sweeps=1, n_frames=4, samples=20)
    grouped = GroupedObservations.from_dataset(dataset)
    repeated = grouped.repeated()
    assert 0 < len(repeated.voxels) < len(grouped.voxels)
    assert repeated.multiplicity.min() == 2
    assert set(repeated.rows) < set(grouped.rows)
    np.testing.assert_allclose(repeated.sum(repeated.signal), grouped.sum(grouped.signal)[grouped.multiplicity > 1])


def test_useless_observations_are_left_out(caplog):
    dataset, _ = observation_data.make_dataset(1, sweeps=1, n_frames=4, samples=20)
    response = np.array(dataset.observations["response"])
    response[:3] = (0, np.nan, -1)
    dataset.observations["response"] = flex.double(response)
    wanted = np.arange(len(response)) > 1
    beyond = np.sum(~dataset.grid.contains(np.array(list(dataset.observations["miller_index"])))[3:])
    with caplog.at_level(logging.INFO, "dials.diffuse"):
        assert not {0, 1, 2} & set(GroupedObservations.from_dataset(dataset).rows)
        assert not {0, 1, 2} & set(GroupedObservations.from_dataset(dataset, wanted).rows)
    assert [record.message.split()[0] for record in caplog.records] == [str(beyond + 3), str(beyond + 1)]
    dataset.observations["response"] = flex.double(len(response), 0.0)
    with pytest.raises(Sorry, match="no observations"):
        GroupedObservations.from_dataset(dataset)
