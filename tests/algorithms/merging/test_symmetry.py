from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import observation_data
import pytest
from cctbx import sgtbx, uctbx
from dials.array_family import flex

from dials_diffuse.algorithms.merging import symmetry
from dials_diffuse.algorithms.merging.scaled import scaled_partitions
from dials_diffuse.algorithms.scaling.error_model import ErrorModel
from dials_diffuse.algorithms.scaling.observations import GroupedObservations, scaled_observations
from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy


def dataset_of(group, level, pixels=40, seed=1, systematic=0.0, sweeps=2):
    """Scaled observations of a crystal of the Laue group 4/m, 4/mmm, 2/m (about c) or -1, on a tetragonal lattice.

    Relative errors of scale, ``systematic`` (a standard deviation), are common to sweep and ten frames.
    """
    dataset, truth = observation_data.make_dataset(level, pixels=pixels, seed=seed, sweeps=sweeps)
    table, rng = dataset.observations, np.random.default_rng(seed)
    h, k, l = (miller_index_to_numpy(table["miller_index"]) / 2).T
    radius = 1 + h**2 + k**2
    twist = h * k * (h**2 - k**2) / radius**2
    broken = {
        "4/mmm": np.cos(2 * np.pi * (h * k + l**2) / 3) + np.cos(2 * np.pi * (-h * k + l**2) / 3),
        "4/m": 6 * twist,
        "2/m": 6 * twist + (h**2 - k**2) / radius,
        "-1": 6 * twist + (h**2 - k**2) / radius + 2 * np.cos(2 * np.pi * (h * l + h * k) / 5),
    }[group]
    q2 = (h**2 + k**2) / observation_data.A**2 + (l / observation_data.C) ** 2
    periodic = np.cos(2 * np.pi * h) + np.cos(2 * np.pi * k) + np.cos(2 * np.pi * l)
    intensity = level * np.exp(-6 * q2) * (1 + 0.15 * np.tanh(periodic) + 0.15 * np.tanh(broken))
    frame = np.array(table["xyzobs.px.value"])[:, 2].astype(int) // 10
    error = rng.normal(1, systematic, (sweeps, 10))[np.array(table["id"]), frame]
    expected = np.array(table["response"]) * truth.b * intensity * error
    table["counts"] = flex.double(rng.poisson(expected + np.array(table["background.sum.value"])).astype(float))
    observation_data.put_scales(table, truth.b)
    return dataset


def symmetry_of(dataset):
    with scaled_partitions(dataset, 1, ".") as partitions:
        return symmetry.test_symmetry(partitions, dataset.grid, dataset.experiments)


@pytest.mark.parametrize("level,pixels", [(1, 40), (0.05, 200)])
@pytest.mark.parametrize("group", ["4/mmm", "4/m", "2/m", "-1"])
def test_finds_the_group_that_the_data_have(group, level, pixels):
    test = symmetry_of(dataset_of(group, level, pixels))
    assert test.best.symbol == group
    assert test.best.likelihood > 0.8 and test.best.confidence > 0.6
    assert test.assumed.symbol == "4/m"
    assert ("higher" in test.warning, "only a lower" in test.warning) == (group == "4/mmm", group in ("2/m", "-1"))
    assert bool(test.warning) == (group != "4/m")
    assert test.visited and "two rotations" not in test.warning
    if group == "2/m":
        assert test.best.operations == ["-h,-k,l"]
    for element in test.elements:
        if element.operation in test.best.operations:
            assert element.cc_true == pytest.approx(1, abs=4 * element.sigma + 0.02)
            assert element.p < 1e-6
        else:
            assert element.cc_true < 0.8


def test_correlations_are_corrected_for_noise_without_bias_and_errors_are_true():
    cc, sigma = [], []
    for seed in range(6):
        test = symmetry_of(dataset_of("4/m", 0.05, 60, seed))
        fourfold = next(e for e in test.elements if e.order == 4)
        cc.append((fourfold.cc, fourfold.cc_expected, fourfold.cc_true))
        sigma.append(fourfold.sigma)
    cc = np.array(cc)
    assert cc[:, 0].mean() < 0.25  # so weak
    assert cc[:, 2].mean() == pytest.approx(1, abs=3 * np.mean(sigma) / np.sqrt(6))
    assert 0.5 < cc[:, 2].std(ddof=1) / np.mean(sigma) < 1.7


@pytest.mark.parametrize("pixels", [1, 3])
def test_data_too_weak_to_tell_vote_for_nothing(pixels):
    for seed in range(3):
        test = symmetry_of(dataset_of("4/m", 0.05, pixels, seed))
        assert not test.warning
        assert test.best.likelihood < 0.5


def test_pure_noise_correlates_by_chance_as_often_as_it_should():
    """Elements of a crystal whose intensity is isotropic."""
    z = []
    for seed in range(6):
        dataset, truth = observation_data.make_dataset(0.3, seed=seed)
        table, rng = dataset.observations, np.random.default_rng(seed)
        q = dataset.grid.q(miller_index_to_numpy(table["miller_index"]))
        expected = np.array(table["response"]) * truth.b * 0.3 * np.exp(-6 * q**2)
        table["counts"] = flex.double(rng.poisson(expected + np.array(table["background.sum.value"])).astype(float))
        observation_data.put_scales(table, truth.b)
        z += [element.z for element in symmetry_of(dataset).elements]
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))
    assert 0.65 < np.std(z) < 1.4


def test_what_every_lattice_shows_does_not_count_as_symmetry():
    """Halos alike about all Bragg points are in the mean of equivalent places, whatever the crystal's symmetry."""
    dataset, truth = observation_data.make_dataset(1)
    table, rng = dataset.observations, np.random.default_rng(0)
    h, k, l = (miller_index_to_numpy(table["miller_index"]) / 2).T
    halo = 4 + np.cos(2 * np.pi * h) + np.cos(2 * np.pi * k) + np.cos(2 * np.pi * l)
    expected = np.array(table["response"]) * truth.b * halo / 5
    table["counts"] = flex.double(rng.poisson(expected).astype(float))
    table["background.sum.value"] = flex.double(len(table), 0.0)
    observation_data.put_scales(table, truth.b)
    test = symmetry_of(dataset)
    assert all(abs(element.z) < 4 for element in test.elements)
    assert not test.warning


def test_a_sample_of_whole_orbits_tells_the_same(monkeypatch, caplog):
    dataset = dataset_of("2/m", 1)
    every = symmetry_of(dataset)
    n = len(dataset.observations)
    monkeypatch.setattr(symmetry, "ENOUGH", n // 2)
    with caplog.at_level("INFO"):
        sample = symmetry_of(dataset)
    told = re.search(r"on (\d+) of (\d+) observations", caplog.text)
    assert int(told[1]) == pytest.approx(int(told[2]) / 2, rel=0.1)
    assert sample.best.symbol == every.best.symbol == "2/m"
    for one, other in zip(every.elements, sample.elements):
        assert other.pairs / one.pairs == pytest.approx(0.5, rel=0.1)  # a quarter if voxels were chosen one by one
        assert other.cc_true == pytest.approx(one.cc_true, abs=4 * other.sigma)


def test_errors_of_scale_do_not_break_the_symmetry():
    test = symmetry_of(dataset_of("4/m", 1, systematic=0.05, sweeps=4))
    assert test.best.symbol == "4/m" and not test.warning


def test_correlations_against_a_plain_loop():
    """Voxels looked up one by one in a dictionary; images computed from the operation's name."""
    dataset = dataset_of("2/m", 1, 40)
    test = symmetry_of(dataset)
    triclinic = replace(dataset.grid, space_group=sgtbx.space_group())
    observations = scaled_observations(replace(dataset, grid=triclinic))
    rotations, _, _ = symmetry.lattice_symmetry(dataset.grid)
    degrees = observations.position[:, 2]
    comparison = symmetry._Comparison(observations, dataset.grid, list(rotations.values()), degrees)
    values = {tuple(v): (x, w, i) for v, x, w, i in zip(
        observations.voxels.tolist(), comparison.x, comparison.weight, comparison.intensity)}  # fmt: skip
    for element in test.elements:
        a, b, weights, r = [], [], [], [0.0, 0.0]
        for (h, k, l), (x, w, intensity) in values.items():
            image = eval(element.operation, {"h": h, "k": k, "l": l})
            found = values.get(image) or values.get(tuple(-n for n in image))
            if found and image != (h, k, l) and image != (-h, -k, -l):
                a.append(x)
                b.append(found[0])
                weights.append(w * found[1])
                r[0] += abs(intensity - found[2])
                r[1] += intensity + found[2]
        a, b, weights = map(np.array, (a, b, weights))
        assert element.pairs == len(a)
        plain = np.sum(weights * a * b) / np.sum(weights * (a**2 + b**2) / 2)
        assert element.cc == pytest.approx(plain, abs=0.03)  # corrected for what the subtraction of means did
        assert element.r == pytest.approx(r[0] / r[1])


@pytest.mark.parametrize(
    "cell,space_group,ndiv,groups,left_out",
    [
        ((20, 20, 28, 90, 90, 90), "P1", (2, 2, 2), 10, 0),
        ((20, 20.3, 28, 90, 90, 90), "P1", (2, 2, 2), 10, 0),  # within 2 degrees
        ((20, 22, 28, 90, 90, 90), "P1", (2, 2, 2), 5, 0),
        ((20, 20, 28, 90, 90, 90), "P222", (2, 3, 2), 5, 4),  # axes that ndiv does not let mix
        ((20, 20, 20, 90, 90, 90), "P23", (1, 1, 1), 30, 0),
        ((20, 20, 30, 90, 90, 120), "P3", (3, 3, 3), 16, 0),
        ((20, 20, 30, 90, 90, 120), "R3:H", (3, 3, 3), 6, 0),
        ((20, 22, 25, 70, 80, 100), "P1", (1, 2, 3), 1, 0),
        ((20, 22, 25, 90, 100, 90), "C2", (2, 2, 2), 2, 0),
    ],
)
def test_groups_of_a_lattice(cell, space_group, ndiv, groups, left_out):
    """Numbers of subgroups as they are listed in group theory (D4 has 10, O 30, D6 16, D3 6, D2 5)."""
    grid = GlobalGrid(uctbx.unit_cell(cell), sgtbx.space_group_info(space_group).group(), ndiv, 4)
    rotations, subgroups, n_left_out = symmetry.lattice_symmetry(grid)
    assert (len(subgroups), n_left_out) == (groups, left_out)
    largest = max(subgroups, key=lambda group: len(group[1]))
    assert largest[1] == set(rotations)
    for rotation in rotations.values():
        turned = np.array([[3, 5, 7]]) @ rotation
        assert grid.q(turned * ndiv) == pytest.approx(grid.q(np.array([[3, 5, 7]]) * ndiv), rel=0.02)


def test_a_triclinic_lattice_has_nothing_to_test():
    dataset = dataset_of("4/m", 1)
    grid = GlobalGrid(uctbx.unit_cell((20, 21.5, 28, 85, 80, 95)), sgtbx.space_group(), (2, 2, 2), 2.5)
    test = symmetry_of(replace(dataset, grid=grid))
    assert test.elements == [] and [g.symbol for g in test.subgroups] == ["-1"]
    assert test.best is test.assumed and test.best.likelihood == 1 and not test.warning
    assert "-1" in str(test)


def test_table_and_json():
    test = symmetry_of(dataset_of("4/m", 1))
    values = json.loads(json.dumps(test.to_dict(), allow_nan=False))
    assert values["best"] == values["assumed"] == "4/m"
    assert [group["symbol"] for group in values["subgroups"]].count("2/m") == 5
    assert sum(group["likelihood"] for group in values["subgroups"]) == pytest.approx(1)
    assert values["subgroups"][0]["operations"] == ["k,-h,l", "-h,-k,l"]
    lines = str(test).splitlines()
    assert any("4/m *" in line and "(assumed)" in line for line in lines)
    assert sum("-fold" in line for line in lines) == 6
    assert max(map(len, lines)) < 140


def test_products_of_different_visits_against_a_loop():
    rng = np.random.default_rng(2)
    first = np.array([0, 1, 4, 9, 12])
    n = first[-1]
    experiment, degrees = rng.integers(0, 2, n), rng.choice([0.0, 1.0, 5.0, 40.0, 44.0], n)
    signal, response = rng.normal(size=n), rng.uniform(1, 2, n)
    weight, mean = rng.uniform(1, 2, n), rng.normal(size=4)
    observations = GroupedObservations(
        np.arange(n), signal, response, np.ones(n), experiment, np.zeros(n), np.zeros((n, 3)), np.zeros((4, 3)), first,
        ErrorModel(),
    )  # fmt: skip
    own, known, visited = symmetry.own_products(observations, weight, mean, degrees)
    assert visited
    for v in range(4):
        rows = range(first[v], first[v + 1])
        a = {i: weight[i] * response[i] ** 2 for i in rows}
        x = {i: signal[i] / response[i] - mean[v] for i in rows}
        apart = [
            (i, j) for i in rows for j in rows
            if experiment[i] != experiment[j] or (degrees[i] > 20) != (degrees[j] > 20)
        ]  # fmt: skip
        total = sum(a.values()) ** 2
        assert own[v] == pytest.approx(sum(a[i] * a[j] * x[i] * x[j] for i, j in apart) / total, abs=1e-12)
        assert known[v] == pytest.approx(sum(a[i] * a[j] for i, j in apart) / total, abs=1e-12)
