from __future__ import annotations

import numpy as np
import pytest
from cctbx import miller
from dials.array_family import flex
from dials.util import Sorry
from smooth_maps import all_voxels, grid_of, map_of

from dials_diffuse.algorithms.maps.punch import punch
from dials_diffuse.algorithms.maps.total import read_bragg, total
from dials_diffuse.parameters import parameters

GRID = grid_of("P 41", (3, 3, 2), 4.0)


def intensities(anomalous=False):
    unique = miller.build_set(GRID.crystal_symmetry(), anomalous_flag=anomalous, d_min=4.2)
    random = np.random.default_rng(0)
    values, sigmas = random.exponential(1e4, unique.size()), random.uniform(10, 20, unique.size())
    return unique.array(flex.double(values), flex.double(sigmas)).set_observation_type_xray_intensity()


def write_refl(array, name):
    table = flex.reflection_table()
    table["miller_index"] = array.indices()
    table["intensity.scale.value"] = array.data()
    table["intensity.scale.variance"] = flex.pow2(array.sigmas())
    table.as_file(name)


def params(name, *more):
    return parameters("map", f"total.bragg={name}", *more).total


def test_intensity_density():
    """Of a crystal of 40 cells: its intensity, averaged over a voxel about the Bragg point.

    sin^2(pi M h) / (M sin^2(pi h)) per cell along each axis; what lies outside the voxel is 1 % at 40 cells.
    """
    m, ndiv = 40, 3
    h = (np.arange(200_000) + 0.5) / 200_000 / ndiv - 0.5 / ndiv
    mean = np.mean(np.sin(np.pi * m * h) ** 2 / np.sin(np.pi * h) ** 2) / m
    assert mean == pytest.approx(ndiv, rel=0.02)


@pytest.mark.parametrize("ending", ["refl", "mtz"])
@pytest.mark.parametrize("anomalous", [False, True])
def test_put_back(tmp_path, ending, anomalous):
    """|F|^2 n_a n_b n_c is added at every equivalent Bragg point, and nowhere else."""
    array = intensities(anomalous)
    name = str(tmp_path / f"bragg.{ending}")
    if ending == "refl":
        write_refl(array, name)
    else:
        array.as_mtz_dataset("I").mtz_object().write(name)
    diffuse_map = punch(map_of(GRID, half_1=np.zeros(len(asu()))), parameters("map").punch)
    place = tuple(np.array([3, 3, 2]) * [1, 2, 1] - diffuse_map.lowest)
    diffuse_map.intensity[place], diffuse_map.intensity_errors[place] = 50.0, 3.0
    before = diffuse_map.intensity.copy()
    found = total(diffuse_map, params(name, "total.scale=0.5"))
    values = dict(zip(array.indices(), zip(array.data(), array.sigmas())))
    for hkl in list(values)[::7]:
        own = [values[n] for n in {hkl, tuple(-i for i in hkl)} if n in values]
        value, sigma = np.mean(own, axis=0)
        mates = np.array([mate.h() for mate in miller.sym_equiv_indices(GRID.laue_group, hkl).indices()])
        index = mates * [3, 3, 2]
        index = index[~(index == [3, 6, 2]).all(axis=1)]
        assert found.at(index) == pytest.approx(np.full(len(index), 0.5 * value * 18), rel=1e-5)
        if not anomalous:
            assert found.at(index, "intensity_errors") == pytest.approx(np.full(len(index), 0.5 * sigma * 18), rel=1e-5)
    added = found.intensity[place] - 50
    assert added == pytest.approx(found.at(np.array([[-3, -6, -2]]))[0], rel=1e-4)
    changed = np.argwhere(~((found.intensity == before) | np.isnan(found.intensity))) + found.lowest
    assert (changed % [3, 3, 2] == 0).all()
    assert "half_1" not in found.fields and not found.fields["filled"].any()


def asu():
    return np.unique(GRID.map_to_asu(all_voxels(GRID)), axis=0)


def test_amplitudes_and_labels(tmp_path):
    array = intensities()
    data = array.f_sq_as_f().as_mtz_dataset("FOBS")
    data.add_miller_array(array.customized_copy(data=array.data() * 2), "IOBS")
    data.mtz_object().write(str(tmp_path / "b.mtz"))
    for label, factor in ((None, 2), ("FOBS", 1)):
        index, squared, variance = read_bragg(tmp_path / "b.mtz", label, GRID)
        expected = dict(zip(array.indices(), array.data()))
        assert squared == pytest.approx([factor * expected[tuple(n)] for n in index.tolist()], rel=1e-4)
        assert (variance > 0).all()


def test_bad_files(tmp_path):
    (tmp_path / "no.refl").write_text("nothing")
    (tmp_path / "no.mtz").write_text("nothing")
    flex.reflection_table().as_file(tmp_path / "empty.refl")
    for name in ("no.refl", "empty.refl"):
        with pytest.raises(Sorry, match="no table of reflections with intensity.scale.value"):
            total(map_of(GRID), params(tmp_path / name))
    with pytest.raises(Sorry, match="no reflection file"):
        total(map_of(GRID), params(tmp_path / "no.mtz"))
    with pytest.raises(Sorry, match="give total.bragg"):
        total(map_of(GRID), parameters("map").total)
    array = intensities()
    array.as_mtz_dataset("I").mtz_object().write(str(tmp_path / "b.mtz"))
    with pytest.raises(Sorry, match="no such intensities or amplitudes: name one of I,SIGI in total.label"):
        total(map_of(GRID), params(tmp_path / "b.mtz", "total.label=X"))
    far = array.select(flex.bool([max(map(abs, h)) == 1 for h in array.indices()]))
    write_refl(far, str(tmp_path / "far.refl"))
    corner = map_of(GRID, index=asu()[asu()[:, 2] >= 6], expand=False)
    with pytest.raises(Sorry, match="no reflection within the map"):
        total(corner, params(tmp_path / "far.refl"))
