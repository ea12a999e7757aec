from __future__ import annotations

from pathlib import Path

import iotbx
import numpy as np
import pytest
from cctbx import sgtbx, uctbx
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy

from dials_diffuse.algorithms.absolute.bragg_comparison import compare, from_model, from_reflection_file
from dials_diffuse.algorithms.absolute.bragg_intensities import BraggIntensities
from dials_diffuse.grid import GlobalGrid, miller_index_to_numpy

MODEL = Path(iotbx.__file__).parent / "regression" / "data" / "2ERL.pdb"
EDGES = np.linspace(0, 0.5, 21)


@pytest.fixture(scope="module")
def grid():
    cell = uctbx.unit_cell((53.91, 23.1, 23.1, 90, 110.4, 90))
    return GlobalGrid(cell, sgtbx.space_group_info("C2").group(), (2, 2, 2), 2.0)


@pytest.fixture(scope="module")
def calculated(grid):
    return from_model(MODEL, grid, 2.0)


def measured(grid, calculated, factor, b_factor, wrong=0.0):
    """Intensities of a crystal that is warmer than the model, and differs from it."""
    index = miller_index_to_numpy(calculated.indices())
    q2 = flumpy.to_numpy(calculated.d_star_sq().data())
    random = np.random.RandomState(1)
    squares = (
        flumpy.to_numpy(calculated.data()) * np.exp(-b_factor * q2 / 2) * np.exp(wrong * random.normal(size=len(q2)))
    )
    integral = squares / grid.unit_cell.volume() / factor
    mapped = np.array(grid.map_to_asu(index))
    return BraggIntensities(mapped, integral, (0.05 * integral) ** 2 + 1e-12, np.ones(len(index)))


def test_structure_factors_of_a_model(calculated):
    """At low resolution solvent counts, at high it does not: |F_calc|^2 alone, by direct summation."""
    import iotbx.pdb

    structure = iotbx.pdb.input(str(MODEL)).xray_structure_simple()
    high = calculated.select(calculated.d_spacings().data() < 2.2)
    direct = high.structure_factors_from_scatterers(structure, algorithm="direct").f_calc()
    ratio = np.sum(flumpy.to_numpy(high.data())) / np.sum(np.abs(flumpy.to_numpy(direct.data())) ** 2)
    assert ratio == pytest.approx(1, abs=0.05)
    low = calculated.select(calculated.d_spacings().data() > 10)
    direct = low.structure_factors_from_scatterers(structure, algorithm="direct").f_calc()
    assert np.sum(flumpy.to_numpy(low.data())) < 0.7 * np.sum(np.abs(flumpy.to_numpy(direct.data())) ** 2)


def test_factor_and_b(grid, calculated):
    found = compare(grid, measured(grid, calculated, 0.03, 4.0), calculated, EDGES)
    assert found.fit.factor == pytest.approx(0.03, rel=1e-3)
    assert found.fit.b_factor == pytest.approx(4, abs=0.1)
    assert found.correlation > 0.999
    noisy = compare(grid, measured(grid, calculated, 0.03, 4.0, wrong=0.3), calculated, EDGES)
    assert abs(noisy.fit.factor / 0.03 - np.exp(-0.045)) < 3 * noisy.fit.error / 0.03
    assert 0.8 < noisy.correlation < 0.98


@pytest.mark.parametrize("kind", ["amplitudes", "phased", "intensities"])
def test_reflection_file(grid, calculated, tmp_path, kind):
    amplitudes = calculated.array(data=flex.sqrt(calculated.data())).set_observation_type_xray_amplitude()
    written = {
        "amplitudes": amplitudes,
        "phased": amplitudes.phase_transfer(flex.double(amplitudes.size(), 0.3)),
        "intensities": calculated.array(data=calculated.data()).set_observation_type_xray_intensity(),
    }[kind]
    name = tmp_path / "f.mtz"
    dataset = amplitudes.array(data=amplitudes.data() * 3).as_mtz_dataset(column_root_label="FOBS")
    dataset.add_miller_array(written, column_root_label="FC" if kind != "intensities" else "Icalc")
    dataset.mtz_object().write(str(name))
    read = from_reflection_file(name, None, grid)
    found = compare(grid, measured(grid, calculated, 0.03, 0.0), read, EDGES)
    assert found.fit.factor == pytest.approx(0.03, rel=1e-3)
    other = compare(grid, measured(grid, calculated, 0.03, 0.0), from_reflection_file(name, "FOBS", grid), EDGES)
    assert other.fit.factor == pytest.approx(0.27, rel=1e-3)


def test_another_crystal(grid, tmp_path):
    other = GlobalGrid(uctbx.unit_cell((50, 23.1, 23.1, 90, 110.4, 90)), grid.space_group, (2, 2, 2), 2.0)
    with pytest.raises(Sorry, match="one setting"):
        from_model(MODEL, other, 2.0)
    (tmp_path / "no.pdb").write_text("nothing\n")
    with pytest.raises(Sorry, match="no.pdb cannot be read as a model"):
        from_model(tmp_path / "no.pdb", grid, 2.0)
    with pytest.raises(Sorry, match="no reflection file"):
        from_reflection_file(tmp_path / "no.pdb", None, grid)
