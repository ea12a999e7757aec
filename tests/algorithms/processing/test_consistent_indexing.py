"""Sweeps of synthetic Bragg intensities of known symmetry, indexed in settings that the lattice allows."""

from __future__ import annotations

import numpy as np
import pytest
from cctbx import crystal, miller, sgtbx
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model import Crystal, Experiment
from dxtbx.model.experiment_list import ExperimentList
from scitbx import matrix

from dials_diffuse.algorithms.processing.consistent_indexing import consistent_indexing, possible_settings
from dials_diffuse.grid import miller_index_from_numpy, miller_index_to_numpy

TETRAGONAL, HEXAGONAL, CUBIC = (48, 48, 63, 90, 90, 90), (60, 60, 90, 90, 90, 120), (50, 50, 50, 90, 90, 90)

#: Space group, cell, a wrong setting, the number of settings. The numbers of merohedral settings are the orders of the
#: lattice's point group over that of the Laue group's rotations (International Tables C, table 1.3.4.2).
CASES = {
    "P4": (TETRAGONAL, "k,h,-l", 2),
    "P41": ((48.2, 48.2, 63, 90, 90, 90), "-k,-h,-l", 2),
    "P3": (HEXAGONAL, "-h,-k,l", 4),
    "P31": (HEXAGONAL, "-k,-h,-l", 4),
    "P321": (HEXAGONAL, "-h,-k,l", 2),
    "P6": (HEXAGONAL, "k,h,-l", 2),
    "R3:H": (HEXAGONAL, "k,h,-l", 2),
    "R3:R": ((52, 52, 52, 70, 70, 70), "-k,-h,-l", 2),
    "I23": (CUBIC, "k,h,-l", 2),
    "P21": ((41, 52, 63, 90, 90.3, 90), "-h,-k,l", 2),
    "C2": ((60, 40, 115.91, 90, 105.3, 90), "-h,-k,h+l", 2),
    "P212121": ((50, 50.4, 63, 90, 90, 90), "k,h,-l", 2),
}


def bragg_sweep(
    symbol: str, cell: tuple, seed: int, share: float | np.ndarray, noise: float = 0.1, operator: str = "h,k,l"
) -> tuple[ExperimentList, flex.reflection_table]:
    """A sweep's integrated reflections: ``share`` of all (or these), as they are indexed after ``operator``.

    The intensities of unique reflections are Wilson's (exponential) and fall off with resolution; Lorentz and
    efficiency factors are to be undone, and every tenth reflection was not integrated.
    """
    rng = np.random.default_rng(seed)
    symmetry = crystal.symmetry(cell, symbol)
    whole = miller.build_set(symmetry, anomalous_flag=False, d_min=3.0)
    unique = whole.indices()
    true = np.random.default_rng(99).exponential(1000, len(unique))
    true *= np.exp(-20 * flumpy.to_numpy(whole.d_star_sq().data()))
    value = dict(zip(unique, true))
    hkl = share
    if isinstance(share, float):
        hkl = miller_index_to_numpy(whole.expand_to_p1().indices())
        hkl = hkl[rng.random(len(hkl)) < share] * rng.choice([-1, 1])
    mapped = miller_index_from_numpy(hkl)
    miller.map_to_asu(symmetry.space_group().build_derived_laue_group().type(), False, mapped)
    intensity = np.array([value[key] for key in mapped])
    sigma = noise * true.mean()
    lp, qe = rng.uniform(0.3, 1, len(hkl)), np.full(len(hkl), 0.8)
    table = flex.reflection_table()
    to_setting = sgtbx.change_of_basis_op(operator)
    table["miller_index"] = to_setting.apply(miller_index_from_numpy(hkl))
    for name in ("sum", "prf"):
        observed = (intensity + rng.normal(0, sigma, len(hkl))) * qe / lp
        table[f"intensity.{name}.value"] = flumpy.from_numpy(observed)
        table[f"intensity.{name}.variance"] = flumpy.from_numpy((sigma * qe / lp) ** 2)
    for name, values in {"lp": lp, "qe": qe, "partiality": np.ones(len(hkl))}.items():
        table[name] = flumpy.from_numpy(values)
    table["partial_id"] = flex.size_t_range(len(hkl))
    table["id"] = flex.int(len(hkl), 0)
    table["flags"] = flex.size_t(len(hkl), 0)
    integrated = flumpy.from_numpy(rng.random(len(hkl)) > 0.1)
    table.set_flags(integrated, table.flags.integrated_sum)
    table.set_flags(integrated, table.flags.integrated_prf)
    orthogonal = matrix.sqr(symmetry.unit_cell().orthogonalization_matrix()).transpose().elems
    model = Crystal(orthogonal[:3], orthogonal[3:6], orthogonal[6:], symmetry.space_group())
    rotated = matrix.col((1, 2, 3)).axis_and_angle_as_r3_rotation_matrix(seed)
    model.set_U((rotated * matrix.sqr(model.get_U())).elems)
    model.update(model.change_basis(to_setting))
    return ExperimentList([Experiment(crystal=model)]), table


def is_solved(symbol: str, operator: str, found: str) -> bool:
    """Whether two changes of basis together are an operation of the Laue group."""
    both = sgtbx.change_of_basis_op(found) * sgtbx.change_of_basis_op(operator)
    laue_group = sgtbx.space_group_info(symbol).group().build_derived_point_group()
    rotations = {operation.r().as_hkl() for operation in laue_group}
    return both.as_hkl() in rotations


@pytest.mark.parametrize("symbol", CASES)
def test_setting_is_found(symbol):
    cell, operator, settings = CASES[symbol]
    sweeps = [bragg_sweep(symbol, cell, 1, 0.5), bragg_sweep(symbol, cell, 2, 0.1, operator=operator)]
    sweeps.append(bragg_sweep(symbol, cell, 3, 0.1))
    first, second, third = consistent_indexing(*zip(*sweeps))
    assert (first.operator, third.operator) == ("h,k,l", "h,k,l")
    assert is_solved(symbol, operator, second.operator) and not is_solved(symbol, operator, "h,k,l")
    for result in (first, second, third):
        assert result.ambiguous and result.confident and len(result.alternatives) == settings
        (best, common), *others = result.alternatives.values()
        assert best == result.correlation > 0.5 and common > 30
        assert max(cc for cc, _ in others) < 0.3
    assert second.operator in second.reason


def test_setting_is_found_from_five_percent_in_common():
    first, second = tetragonal_parts([0.525, 0.475], shared=0.05)
    sweeps = [bragg_sweep("P4", TETRAGONAL, 1, first), bragg_sweep("P4", TETRAGONAL, 2, second, operator="k,h,-l")]
    result = consistent_indexing(*zip(*sweeps))[1]
    assert result.operator == "k,h,-l" and result.confident
    assert result.correlation > 0.6 and abs(result.alternatives["h,k,l"][0]) < 0.2
    assert result.alternatives["k,h,-l"][1] < 0.06 * 2 * len(second)


def test_narrow_wedges_are_placed_by_way_of_others():
    """The third sweep has no reflection in common with the first in any setting, but with the second."""
    first, third = tetragonal_parts([0.5, 0.5])
    second = np.concatenate([first[::4], third[::4]])
    sweeps = [
        bragg_sweep("P4", TETRAGONAL, seed, hkl, operator=operator)
        for seed, (hkl, operator) in enumerate([(first, "h,k,l"), (third, "k,h,-l"), (second, "k,h,-l")])
    ]
    results = consistent_indexing(*zip(*sweeps))
    assert [result.operator for result in results] == ["h,k,l", "k,h,-l", "k,h,-l"]
    assert all(result.confident for result in results)
    without = consistent_indexing(*zip(*sweeps[:2]))[1]
    assert (without.operator, without.confident) == ("h,k,l", False) and np.isnan(without.correlation)
    assert "its setting is not known" in without.reason


def tetragonal_parts(shares: list[float], shared: float = 0.0) -> list[np.ndarray]:
    """Reflections of P4 in parts, the same ones in both settings; ``shared`` of all belong to two adjacent parts."""
    index = miller_index_to_numpy(miller.build_set(crystal.symmetry(TETRAGONAL, "P4"), False, d_min=3.0).indices())
    both = miller_index_from_numpy(index)
    miller.map_to_asu(sgtbx.space_group_info("P4/mmm").group().type(), False, both)
    _, number = np.unique(miller_index_to_numpy(both), axis=0, return_inverse=True)
    place = np.random.default_rng(7).random(number.max() + 1)[number]
    edges = np.cumsum([0, *shares])
    return [index[(place >= start - shared * (start > 0)) & (place < stop)] for start, stop in zip(edges, edges[1:])]


def test_noise_alone_does_not_decide():
    sweeps = [bragg_sweep("P4", TETRAGONAL, seed, 0.02, noise=5.0, operator="k,h,-l") for seed in (1, 2)]
    result = consistent_indexing(*zip(*sweeps))[1]
    assert (result.operator, result.confident, result.ambiguous) == ("h,k,l", False, True)


def test_one_setting_only():
    sweeps = [bragg_sweep("P43212", TETRAGONAL, seed, 0.3) for seed in (1, 2)]
    result = consistent_indexing(*zip(*sweeps))[1]
    assert (result.operator, result.confident, result.ambiguous) == ("h,k,l", True, False)
    assert result.correlation > 0.6 and list(result.alternatives) == ["h,k,l"]


def test_sweep_indexed_in_another_cell_and_symmetry():
    """A primitive triclinic setting of a C-centred crystal, and a permuted cell with the wrong unique axis."""
    cell = CASES["C2"][0]
    to_primitive = crystal.symmetry(cell, "C2").change_of_basis_op_to_primitive_setting()
    sweeps = [bragg_sweep("C2", cell, 1, 0.5), bragg_sweep("C2", cell, 2, 0.2, operator=to_primitive.as_hkl())]
    sweeps[1][0][0].crystal.set_space_group(sgtbx.space_group("P 1"))
    result = consistent_indexing(*zip(*sweeps))[1]
    assert result.confident and result.correlation > 0.6
    assert is_solved("C2", to_primitive.as_hkl(), result.operator)

    cell = (50, 50.5, 51, 90, 90, 90)
    sweeps = [bragg_sweep("P2", cell, 1, 0.5), bragg_sweep("P2", cell, 2, 0.2, operator="k,l,h")]
    sweeps[1][0][0].crystal.set_space_group(sgtbx.space_group_info("P2").group())
    result = consistent_indexing(*zip(*sweeps))[1]
    assert result.confident and is_solved("P2", "k,l,h", result.operator)


def test_cell_that_does_not_fit():
    other = (48, 55, 63, 90, 90, 90)
    sweeps = [bragg_sweep("P222", (48, 52, 60, 90, 90, 90), 1, 0.1), bragg_sweep("P222", other, 2, 0.1)]
    result = consistent_indexing(*zip(*sweeps))[1]
    assert result.operator is None and not result.confident
    assert result.reason.startswith("its cell (48.00, 55.00, 63.00, 90.00, 90.00, 90.00) fits the first sweep's (48.00")


def test_nothing_integrated():
    sweeps = [bragg_sweep("P4", TETRAGONAL, seed, 0.1) for seed in (1, 2)]
    sweeps[1][1]["flags"] = flex.size_t(len(sweeps[1][1]), 0)
    result = consistent_indexing(*zip(*sweeps))[1]
    assert (result.operator, result.confident) == ("h,k,l", False) and result.alternatives["h,k,l"][1] == 0


@pytest.mark.parametrize("symbol", CASES)
def test_reindexed_cell_is_the_first_ones(symbol):
    cell, operator, _ = CASES[symbol]
    reference = crystal.symmetry(cell, symbol)
    other = reference.change_basis(sgtbx.change_of_basis_op("l,h,k"))
    settings = possible_settings(reference, other)
    assert settings
    for found in settings:
        assert sgtbx.change_of_basis_op(found).apply(other.unit_cell()).is_similar_to(reference.unit_cell(), 0.02, 1)
