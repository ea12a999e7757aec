from __future__ import annotations

from dataclasses import replace

import numpy as np
import observation_data
import pytest
from cctbx import miller, sgtbx
from dials.util import Sorry

from dials_diffuse.algorithms.merging.groups import check_kind, group_of_observations, possible_kinds
from dials_diffuse.algorithms.merging.halves import half_sets, sweeps_in_first_half
from dials_diffuse.algorithms.scaling.observations import ARRAYS, GroupedObservations
from dials_diffuse.grid import miller_index_to_numpy


@pytest.fixture(scope="module")
def dataset():
    return observation_data.make_dataset(1, n_frames=20, samples=25, sweeps=3)[0]


@pytest.fixture(scope="module")
def observations(dataset):
    return GroupedObservations.from_dataset(dataset)


def halves_of(kind, dataset, observations, seed=0):
    own = miller_index_to_numpy(dataset.observations["miller_index"])[observations.rows]
    groups = group_of_observations(kind, dataset.grid, observations, own)
    sweeps = sweeps_in_first_half(np.bincount(observations.experiment, observations.response, 3), seed)
    return half_sets(kind, dataset.grid, observations, groups, sweeps, seed)


@pytest.mark.parametrize("kind", ["observation", "sweep", "operation", "friedel"])
def test_halves_depend_neither_on_order_nor_on_the_other_voxels(kind, dataset, observations):
    """Shuffled within voxels, with equal responses here and there; every third voxel alone."""
    rng = np.random.default_rng(4)
    tied = replace(observations, response=np.round(observations.response, -1) + 10)
    half = halves_of(kind, dataset, tied)
    order = np.lexsort((rng.random(len(tied)), tied.spread(np.arange(len(tied.voxels)))))
    shuffled = replace(tied, **{name: getattr(tied, name)[order] for name in ARRAYS})
    np.testing.assert_array_equal(halves_of(kind, dataset, shuffled), half[order])
    if kind != "sweep":  # which are divided by all of their observations
        third = tied.spread(np.arange(len(tied.voxels)) % 3 == 0)
        np.testing.assert_array_equal(halves_of(kind, dataset, tied.select(third)), half[third])


@pytest.mark.parametrize("kind", ["observation", "operation"])
def test_halves_hold_as_much(kind, dataset, observations):
    half = halves_of(kind, dataset, observations)
    response = np.array([observations.sum(np.where(part, observations.response, 0)) for part in (half, ~half)])
    several = response.min(axis=0) > 0
    assert response[0].sum() == pytest.approx(response[1].sum(), rel=0.08)
    toss = np.random.default_rng(1).random(len(half)) < 0.5
    tossed = observations.sum(np.where(toss, observations.response, 0)) / response.sum(axis=0)
    share = response[0] / response.sum(axis=0)
    assert share[several].std() < (0.5 if kind == "observation" else 0.9) * tossed[several].std()
    assert (half != halves_of(kind, dataset, observations, seed=1)).any()
    assert (half == halves_of(kind, dataset, observations)).all()


def test_observations_are_divided_evenly(dataset, observations):
    half = halves_of("observation", dataset, observations)
    difference = observations.sum(np.where(half, 1, -1))
    assert (np.abs(difference) == observations.multiplicity % 2).all()
    assert abs(difference[difference != 0].mean()) < 0.2


def test_mates_are_divided_whole(dataset, observations):
    half = halves_of("operation", dataset, observations)
    own = np.array(list(dataset.observations["miller_index"]))[observations.rows]
    sides: dict[tuple, set] = {}
    for index, side in zip(own, half):
        sides.setdefault(tuple(map(int, index)), set()).add(bool(side))
    assert all(len(side) == 1 for side in sides.values())
    shared = 0
    for index in list(sides)[::50]:
        mates = {m.h() for m in miller.sym_equiv_indices(dataset.grid.laue_group, index).indices()}
        seen = [sides[mate] for mate in mates if mate in sides]
        if len(seen) > 1:
            assert abs(2 * sum(side == {True} for side in seen) - len(seen)) <= 1
            shared += 1
    assert shared > 10


def test_sweeps_are_divided_whole_and_alike_in_all_voxels(dataset, observations):
    halves = [halves_of("sweep", dataset, observations, seed) for seed in range(8)]
    for half in halves:
        sides = [set(half[observations.experiment == i]) for i in range(3)]
        assert sorted(map(len, sides)) == [1, 1, 1]
        assert len(set.union(*sides)) == 2
    assert len({tuple(half) for half in halves}) > 2


def test_hands(dataset, observations):
    """By definition: rotations of point group 4 take the own voxel to that of the asymmetric unit, or do not."""
    half = halves_of("friedel", dataset, observations)
    own = np.array(list(dataset.observations["miller_index"]))[observations.rows]
    voxel = np.repeat(observations.voxels, observations.multiplicity, axis=0)
    h, k, l = own.T
    turned = [np.stack(mate, axis=1) for mate in ((h, k, l), (-k, h, l), (-h, -k, l), (k, -h, l))]
    np.testing.assert_array_equal(half, np.any([(mate == voxel).all(axis=1) for mate in turned], axis=0))
    assert half[l == 0].all()  # -n is equivalent by the twofold axis there
    assert 0.3 < half.mean() < 0.7


def test_what_can_not_be_divided_is_said(dataset):
    assert possible_kinds(dataset.grid, 3) == ["observation", "sweep", "operation", "friedel"]
    apart = replace(dataset.grid, friedel_apart=True)
    triclinic = replace(apart, space_group=sgtbx.space_group())
    centric = replace(dataset.grid, space_group=sgtbx.space_group("-P 4"))
    for kind, grid, n_sweeps, reason in (
        ("sweep", dataset.grid, 1, "halves=sweep: there is one experiment only"),
        ("friedel", apart, 3, "Friedel mates are not merged with each other"),
        ("friedel", centric, 3, "space group P 4/m is centrosymmetric"),
        ("operation", triclinic, 3, "no two voxels are equivalent in point group P 1"),
    ):
        assert kind not in possible_kinds(grid, n_sweeps)
        with pytest.raises(Sorry, match=reason):
            check_kind(kind, grid, n_sweeps)
