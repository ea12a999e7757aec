"""3D-delta-PDF of crystals whose correlations are known: its vectors, signs and values."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest
from cctbx import miller, sgtbx, uctbx
from dials.array_family import flex
from dials.util import Sorry
from smooth_maps import all_voxels, grid_of, map_of

from dials_diffuse.algorithms.maps.delta_pdf import apodisation, delta_pdf
from dials_diffuse.algorithms.maps.total import total
from dials_diffuse.grid import GlobalGrid
from dials_diffuse.map_file import ABSOLUTE_UNITS, DiffuseMap
from dials_diffuse.parameters import parameters

CELL = uctbx.unit_cell((7.0, 8.0, 9.0, 80.0, 95.0, 105.0))
NDIV = (4, 4, 4)
#: Electrons, and sites in the cell, of two atoms with Gaussian clouds exp(-B q^2 / 4).
ELECTRONS, SITES, B = (20.0, 10.0), np.array([[0.1, 0.2, 0.15], [0.45, 0.3, 0.5]]), 10.0
NO_SYMMETRY = sgtbx.space_group_info("P1").group()


def grid_to(d_min):
    return GlobalGrid(CELL, NO_SYMMETRY, NDIV, d_min)


def cartesian(fractional):
    return np.asarray(fractional) @ np.array(CELL.orthogonalization_matrix()).reshape(3, 3).T


def absolute_map(grid, index, intensity):
    columns = {"intensity": intensity, "intensity_errors": np.zeros(len(index)), "filled": np.zeros(len(index))}
    return DiffuseMap.from_voxels(grid, index, columns, wavelengths=1.0, units=ABSOLUTE_UNITS)


def form_factors(q):
    return [electrons * np.exp(-B * q**2 / 4) for electrons in ELECTRONS]


def peak(r, variance):
    """A normalised Gaussian of a covariance matrix (or one variance), at vectors r, shape (n, 3)."""
    matrix = np.eye(3) * variance if np.isscalar(variance) else variance
    exponent = np.einsum("ni,ij,nj->n", r, np.linalg.inv(matrix), r)
    return np.exp(-exponent / 2) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(matrix))


def clouds(width_of_window):
    """Variance of the peak of two atoms at rest: exp(-B q^2 / 2) and the window, as functions of r."""
    return (B / 2 + width_of_window) / (2 * np.pi**2)


def test_substitution_by_random_supercells():
    """Scattering powers that go together in one cell, and alternate along a: brute-force structure factors.

    The intensity is that of 200 random supercells less that of their mean. Peaks must stand at the vectors between the
    correlated sites, with the sign and the height of the covariance.
    """
    grid = grid_to(1.2)
    index = all_voxels(grid)
    random = np.random.default_rng(1)
    scatter = [
        f * np.exp(2j * np.pi * grid.index2hkl(index) @ site) for f, site in zip(form_factors(grid.q(index)), SITES)
    ]
    residue = tuple((index % NDIV).T)
    amplitudes = []
    for _ in range(200):
        z, w = random.normal(size=(2, *NDIV))
        deviations = (0.3 * (z - 0.5 * np.roll(z, 1, axis=0)), 0.3 * (0.8 * z + 0.6 * w))
        waves = [np.fft.ifftn(deviation) * np.prod(NDIV) for deviation in deviations]
        amplitudes.append(sum(wave[residue] * s for wave, s in zip(waves, scatter)))
    amplitudes = np.array(amplitudes)
    intensity = (np.abs(amplitudes) ** 2).mean(axis=0) / np.prod(NDIV)
    found = delta_pdf(absolute_map(grid, index, intensity), parameters("map", "delta_pdf.spacing=0.3").delta_pdf)
    assert found.units == "electrons^2/A^3"

    between = SITES[1] - SITES[0]
    height = peak(np.zeros((1, 3)), clouds(4 * 1.2**2))[0]  # the window is exp(-4 d_min^2 q^2)
    unit = 0.3**2 * height
    expected = {
        (0, 0, 0): (20**2 * 1.25 + 10**2 * 1.0) * unit,
        tuple(between): 20 * 10 * 0.8 * unit,
        tuple(between - [1, 0, 0]): -20 * 10 * 0.4 * unit,
        (1, 0, 0): -(20**2) * 0.5 * unit,
        (0, 1, 0): 0.0,
        tuple(between + [0, 0, 1]): 0.0,
    }
    # sum over vectors: at the grid point nearest to each, with all peaks' tails
    vectors = cartesian(list(expected))
    centres = np.concatenate([vectors, -vectors[1:]])
    heights = np.array([*expected.values(), *list(expected.values())[1:]])
    steps = cartesian(np.eye(3) * np.array(NDIV)[:, None] / np.array(found.values.shape)[:, None])
    for vector in vectors:
        place = np.rint(np.linalg.solve(steps.T, vector)) @ steps
        tails = peak(place - centres, clouds(4 * 1.2**2)) @ heights / height
        assert found.at(vector[None])[0] == pytest.approx(tails, abs=0.015 * expected[0, 0, 0])
        assert found.at(-vector[None])[0] == pytest.approx(found.at(vector[None])[0], abs=1e-4)


def test_correlated_displacements():
    """Two atoms that move together: their vector is sharper than in the average structure.

    The intensity of Gaussian displacements is that of James (1948) The Optical Principles of the Diffraction of X-rays,
    chapter V. The function is then known everywhere near the vector, up to what the window leaves at its end.
    """
    d_min, sigma2, covariance = 1.0, 0.06, 0.05
    grid = grid_to(d_min)
    index = all_voxels(grid)
    axis = cartesian(np.eye(3))[0] / 7.0  # displacements along a
    orthogonal = np.array(CELL.fractionalization_matrix()).reshape(3, 3)
    along = (2 * np.pi * (grid.index2hkl(index) @ orthogonal) @ axis) ** 2
    f, between = form_factors(grid.q(index)), SITES[1] - SITES[0]
    debye_waller = np.exp(-along * sigma2)
    intensity = sum(fi**2 for fi in f) * debye_waller * (np.exp(along * sigma2) - 1)
    phase = np.cos(2 * np.pi * grid.index2hkl(index) @ between)
    intensity += 2 * f[0] * f[1] * phase * debye_waller * (np.exp(along * covariance) - 1)
    found = delta_pdf(absolute_map(grid, index, intensity), parameters("map", "delta_pdf.spacing=0.2").delta_pdf)

    step = np.linspace(-1.2, 1.2, 25)
    near = np.stack(np.meshgrid(step, step, step), axis=-1).reshape(-1, 3)
    vector = cartesian(between)
    cloud, spread = np.eye(3) * clouds(4 * d_min**2), np.outer(axis, axis)
    # the values are at grid points: their own places, not those asked for
    steps = cartesian(np.eye(3) * np.array(NDIV)[:, None] / np.array(found.values.shape)[:, None])
    place = np.rint(np.linalg.solve(steps.T, (vector + near).T).T) @ steps
    pair = peak(place - vector, cloud + 2 * (sigma2 - covariance) * spread) - peak(
        place - vector, cloud + 2 * sigma2 * spread
    )
    own = peak(place, cloud) - peak(place, cloud + 2 * sigma2 * spread)
    expected = 20 * 10 * pair + (20**2 + 10**2) * own
    values = found.at(vector + near)
    assert np.abs(values - expected).max() < 0.05 * expected.max()
    assert found.at(vector[None])[0] == pytest.approx(expected.max(), rel=0.05)
    flanks = found.at(vector + np.array([[-1], [1]]) * axis)
    assert (flanks < -0.1 * expected.max()).all()
    apart = found.at(vector + 1.0 * np.cross(axis, [0, 0, 1])[None])
    assert apart[0] > -0.03 * expected.max()  # not across the displacements


def test_total_map_is_the_patterson(tmp_path):
    """Bragg intensities alone: sum |F|^2 cos(2 pi h.x) / V, in electrons^2 / A^3, in every cell of the supercell."""
    grid = grid_of("P 21 21 21", (2, 2, 2), 3.0)
    crystal = grid.crystal_symmetry()
    bragg = miller.build_set(crystal, anomalous_flag=False, d_min=3.1)
    squared = bragg.array(flex.double(np.random.default_rng(0).exponential(1e4, bragg.size())))
    table = flex.reflection_table()
    table["miller_index"] = squared.indices()
    table["intensity.scale.value"] = squared.data()
    table["intensity.scale.variance"] = flex.double(bragg.size(), 1.0)
    table.as_file(tmp_path / "bragg.refl")
    index = np.unique(grid.map_to_asu(all_voxels(grid)), axis=0)
    params = parameters(
        "map",
        f"total.bragg={tmp_path}/bragg.refl",
        "delta_pdf.apodisation=none",
        "delta_pdf.missing=zero",
        "delta_pdf.spacing=1.0",
    )
    found = delta_pdf(total(map_of(grid, np.zeros(len(index)), index=index), params.total), params.delta_pdf)
    everywhere = squared.expand_to_p1().generate_bijvoet_mates()
    indices = np.array(list(everywhere.indices()))
    for fractional in ([0, 0, 0], [0.5, 0, 0], [0.25, 0.25, 0.5], [1.25, 0.25, 0.5], [1.5, 1.75, 1]):
        place = np.rint(np.array(fractional) / 2 * found.values.shape)
        x = place / found.values.shape * 2
        exact = np.sum(everywhere.data().as_numpy_array() * np.cos(2 * np.pi * indices @ x)) / grid.unit_cell.volume()
        assert found.values[tuple(place.astype(int))] == pytest.approx(exact, abs=1e-5 * found.values.max())


def test_ccp4_file(tmp_path):
    """Read by gemmi: cell, axes and values at named places, with the origin in the middle or at the corner."""
    grid = grid_of("P 1", (2, 3, 4), 5.0)
    index = all_voxels(grid)
    x = np.array([0.7, 0.4, 0.2])  # a wave: peaks at +-x of the unit cell
    diffuse_map = map_of(grid, np.cos(2 * np.pi * grid.index2hkl(index) @ x), index=index)
    params = parameters("map", "delta_pdf.missing=zero", "delta_pdf.spacing=1").delta_pdf
    found = delta_pdf(diffuse_map, params)
    assert found.units == "photons/(s*sr)/A^3"
    for centred in (True, False):
        found.write(tmp_path / "pdf.ccp4", centred)
        read = gemmi.read_ccp4_map(str(tmp_path / "pdf.ccp4"))
        read.setup(0.0)
        cell = read.grid.unit_cell
        a, b, c, *angles = grid.unit_cell.parameters()
        assert (cell.a, cell.b, cell.c) == pytest.approx((2 * a, 3 * b, 4 * c), rel=1e-5)
        assert (cell.alpha, cell.beta, cell.gamma) == pytest.approx(angles, rel=1e-5)
        assert read.grid.spacegroup.hm == "P 1"
        values = np.array(read.grid, copy=False)
        assert values == pytest.approx(found.values)
        highest = np.array(np.unravel_index(values.argmax(), values.shape)) / values.shape * [2, 3, 4]
        distance = [np.abs((highest - sign * x + [1, 1.5, 2]) % [2, 3, 4] - [1, 1.5, 2]) for sign in (1, -1)]
        assert min(d.max() for d in distance) < 0.04
        at = read.grid.interpolate_value(gemmi.Position(*cartesian_of(grid, x)))
        assert at == pytest.approx(values.max(), rel=0.1)


def cartesian_of(grid, fractional):
    return np.array(grid.unit_cell.orthogonalize(tuple(fractional)))


def test_asymmetric_unit_friedel_mates_and_gaps():
    """Half a map, or all of it; the mean of n and -n; a gap takes the mean of its shell."""
    grid = grid_of("P 41 21 2", d_min=4.0)
    params = parameters("map").delta_pdf
    whole = delta_pdf(map_of(grid), params)
    part = delta_pdf(map_of(grid, expand=False), params)
    np.testing.assert_allclose(whole.values, part.values, atol=1e-5 * whole.values.max())

    apart = GlobalGrid(grid.unit_cell, NO_SYMMETRY, (2, 2, 2), 5.0, friedel_apart=True)
    index = all_voxels(apart)
    odd = np.sin(index @ [0.5, 0.7, 0.3])
    even = np.cos(index @ [0.2, 0.3, 0.9]) + 2
    both = delta_pdf(map_of(apart, even + odd, index=index), params)
    alone = delta_pdf(map_of(apart, even, index=index), params)
    np.testing.assert_allclose(both.values, alone.values, atol=1e-5 * alone.values.max())

    index = all_voxels(grid_of("P 1", d_min=4.0))
    level = map_of(grid_of("P 1", d_min=4.0), np.full(len(index), 3.0), index=index)
    holed = map_of(grid_of("P 1", d_min=4.0), np.full(len(index), 3.0), index=index)
    for voxel in ([2, 3, 4], [-2, -3, -4], [0, 0, 0]):
        holed.intensity[tuple(np.array(voxel) - holed.lowest)] = np.nan
    np.testing.assert_allclose(delta_pdf(holed, params).values, delta_pdf(level, params).values, atol=1e-4)
    level.intensity[:] = np.nan
    with pytest.raises(Sorry, match="no intensity"):
        delta_pdf(level, params)


def test_apodisation():
    x = np.array([0, 0.5, 1, 1.1], dtype=np.float32)
    assert apodisation(x, "none").tolist() == [1, 1, 1, 0]
    assert apodisation(x, "gaussian") == pytest.approx([1, np.exp(-1), np.exp(-4), 0])
    assert apodisation(x, "hann") == pytest.approx([1, 0.5, 0, 0], abs=1e-6)


def test_resolution_and_spacing():
    grid = grid_of("P 1", (2, 2, 2), 3.0)
    coarse = delta_pdf(map_of(grid), parameters("map", "delta_pdf.d_min=5").delta_pdf)
    cut = delta_pdf(map_of(grid_of("P 1", (2, 2, 2), 5.0)), parameters("map", "delta_pdf.d_min=5").delta_pdf)
    assert coarse.values[0, 0, 0] == pytest.approx(cut.values[0, 0, 0], rel=1e-3)
    fine = delta_pdf(map_of(grid), parameters("map", "delta_pdf.spacing=0.4").delta_pdf)
    assert all(edge / n <= 0.4 for edge, n in zip(grid.supercell.parameters()[:3], fine.values.shape))
    usual = delta_pdf(map_of(grid), parameters("map").delta_pdf)
    assert fine.values[0, 0, 0] == pytest.approx(usual.values[0, 0, 0], rel=1e-4)
