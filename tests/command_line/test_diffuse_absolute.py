"""A simulated crystal of known contents, from scaled observations to the map in electrons squared."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from absolute_session import COMPOSITION, D_MIN, ORDERED, absolute_session  # noqa: F401  a fixture
from chromium import open_page
from dials.array_family import flex
from small_session import program

from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_absolute, diffuse_merge
from dials_diffuse.dataset import Dataset
from dials_diffuse.map_file import ABSOLUTE_UNITS, read_map

SCALED, INTEGRATED = ("scaled.expt", "scaled.refl"), ("integrated.expt", "integrated.refl")


@pytest.fixture
def folder(absolute_session, tmp_path, monkeypatch):  # noqa: F811
    for name in ("truth.json", "calculated.mtz", "extracted.mask", "images", *SCALED, *INTEGRATED):
        os.symlink(absolute_session / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(make_once, absolute_session):  # noqa: F811
    """A folder with all that the program writes."""

    def make(folder: Path) -> None:
        for name in ("truth.json", "calculated.mtz", *SCALED, *INTEGRATED):
            os.symlink(absolute_session / name, folder / name)
        before = os.getcwd()
        os.chdir(folder)
        try:
            diffuse_absolute.run([*SCALED, *INTEGRATED, *COMPOSITION, "check.reflections=calculated.mtz"])
        finally:
            os.chdir(before)

    return make_once("absolute-output", make)


@pytest.fixture(scope="module")
def truth(absolute_session):  # noqa: F811
    return Truth.from_file(absolute_session / "truth.json")


@pytest.fixture(scope="module")
def report(made):
    return json.loads((made / "dials.diffuse_absolute.json").read_text())


def test_scale(report, truth):
    """Within 3 % by the sum rule, and by the comparison of Bragg intensities."""
    assert report["method"] == "krogh_moe"
    for name in ("krogh_moe", "bragg"):
        found = report["factors"][name]
        assert found["factor"] * truth.scales["diffuse"] == pytest.approx(1, abs=0.03)
        assert found["error"] < 0.03 * found["factor"]
    assert report["krogh_moe"]["is_level"]
    assert report["comparison"]["correlation"] > 0.95
    assert report["wilson"]["b_factor"] == pytest.approx(12, abs=3)


def test_map_is_the_truth_in_every_shell(made, truth):
    """Between 5 A and 1.5 A, after the incoherent scattering is subtracted."""
    found = read_map(made / "absolute.nxs")
    assert found.units == ABSOLUTE_UNITS
    place = np.argwhere(np.isfinite(found.intensity))
    place = place[np.random.RandomState(0).permutation(len(place))[:20000]]
    index = place + np.array(found.lowest)
    q = found.grid.q(index)
    true = truth.voxel_mean(index, found.grid.ndiv, samples=3) / truth.scales["diffuse"] - truth.atoms.incoherent(q)
    measured = found.intensity[tuple(place.T)]
    edges = np.linspace(1 / 5, 1 / 1.5, 9)
    for low, high in zip(edges, edges[1:]):
        shell = (q > low) & (q <= high)
        assert shell.sum() > 200
        assert measured[shell].mean() / true[shell].mean() == pytest.approx(1, abs=0.03)
    residual = (measured - true) / found.intensity_errors[tuple(place.T)]
    assert np.median(np.abs(residual)) == pytest.approx(0.67, abs=0.25)


def test_bragg_table(made, truth):
    table = flex.reflection_table.from_file(str(made / "absolute_bragg.refl"))
    model = truth._bragg
    squares = model.intensity / truth.scales["diffuse"] * truth.cell.volume()
    true = dict(zip(map(tuple, model.hkl.tolist()), squares))
    strong = np.array(table["d"]) > 2
    wanted = np.array([true[h] for h in table["miller_index"]])[strong]
    assert np.array(table["intensity.scale.value"])[strong].sum() == pytest.approx(wanted.sum(), rel=0.03)


def test_merging_gives_the_same_map(made, tmp_path, monkeypatch):
    """absolute.expt and absolute.refl are scaled files as any."""
    monkeypatch.chdir(tmp_path)
    files = [str(made / name) for name in ("absolute.expt", "absolute.refl")]
    assert Dataset.from_files(*files).units == ABSOLUTE_UNITS
    diffuse_merge.run([*files, "merging.test_symmetry=False"])
    merged, expected = read_map("merged.nxs"), read_map(made / "absolute.nxs")
    assert merged.units == ABSOLUTE_UNITS
    np.testing.assert_array_equal(merged.intensity, expected.intensity)
    assert [record.program for record in merged.history][-2:] == ["dials.diffuse_absolute", "dials.diffuse_merge"]
    with pytest.raises(SystemExit, match="in electrons squared already"):
        diffuse_absolute.run([*files, *COMPOSITION, "absolute.b_factor=12"])


def test_finer_grid_and_other_sweeps(made, truth, tmp_path, monkeypatch):
    """The scaling model makes an absolute map of another grid from the images."""
    monkeypatch.chdir(tmp_path)
    diffuse_merge.run(
        [str(made / "absolute.expt"), "grid.ndiv=1,1,1", "d_min=2.5", "merging.test_symmetry=False", "nproc=1"]
    )
    merged = read_map("merged.nxs")
    assert merged.units == ABSOLUTE_UNITS and merged.grid.ndiv == (1, 1, 1)
    place = np.argwhere(merged.fields["pixels"] > 20)
    index = place + np.array(merged.lowest)
    q = merged.grid.q(index)
    index, place, q = index[q > 0.2], place[q > 0.2], q[q > 0.2]
    true = truth.voxel_mean(index, (1, 1, 1), samples=3) / truth.scales["diffuse"] - truth.atoms.incoherent(q)
    assert merged.intensity[tuple(place.T)].mean() / true.mean() == pytest.approx(1, abs=0.03)


def test_report_to_look_at(made, tmp_path):
    page = open_page(made / "dials.diffuse_absolute.html", tmp_path)
    assert page.plots == {
        "Factor and cutoff": 3,  # Wilson's is far off: water counts as ordered
        "Measured and expected": 6,
        "Wilson's plot": 2,
        "Calculated and measured Bragg intensities": 2,
    }
    assert not page.console
    log = (made / "dials.diffuse_absolute.log").read_text()
    assert "Taken: Krogh-Moe" in log and "C190 H300 N50 O60 S2" in log


def test_without_integrated_reflections(folder, truth):
    """Bragg intensities by composition and B."""
    with pytest.raises(SystemExit, match="give integrated.expt and integrated.refl, too, or absolute.b_factor"):
        diffuse_absolute.run([*SCALED, *COMPOSITION])
    assert not list(folder.glob("absolute.*"))
    composition = list(COMPOSITION)
    diffuse_absolute.run([*SCALED, *composition, "absolute.b_factor=12", "absolute.per=asymmetric_unit"])
    report = json.loads(Path("dials.diffuse_absolute.json").read_text())
    # what is given as formulae is taken as ordered, the water, too
    q, atoms = np.linspace(1 / 4, 1 / D_MIN, 200), truth.atoms
    total = atoms.bragg(q) + atoms.diffuse(q) + atoms.incoherent(q)
    all_ordered = atoms._sum_of_squares(atoms.all, q) * np.exp(-12 * q**2 / 2)
    expected = np.sum(q**2 * (total - all_ordered)) / np.sum(q**2 * (total - atoms.bragg(q)))
    assert expected < 0.93
    assert report["factors"]["krogh_moe"]["factor"] * truth.scales["diffuse"] == pytest.approx(expected, abs=0.03)
    assert report["factor"] * 4 == pytest.approx(report["factors"]["krogh_moe"]["factor"])
    assert not Path("absolute_bragg.refl").exists()
    assert np.isfinite(read_map("absolute.nxs").intensity).any()


def test_observations_in_partitions(folder, made):
    """The same factor."""
    scaled = Dataset.from_files(*SCALED)
    scaled.write("again.expt", "again.parts")
    diffuse_absolute.run(["again.expt", "again.parts", *INTEGRATED, *COMPOSITION])
    factors = [json.loads((where / "dials.diffuse_absolute.json").read_text())["factor"] for where in (folder, made)]
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)


def test_peaks_in_the_voxels(absolute_session, truth, tmp_path, monkeypatch):  # noqa: F811
    """Extracted without a mask of the Bragg peaks, the map holds the total scattering itself."""
    monkeypatch.chdir(tmp_path)
    refined = [str(absolute_session / name) for name in ("refined.expt", "refined.refl")]
    program("extract")([*refined, "grid.ndiv=2,2,2", f"d_min={D_MIN}", "nproc=1", "bragg_mask.mode=none"])
    program("correct")(["extracted.expt", "extracted.refl", f"background={absolute_session / 'background.expt'}"])
    program("scale")(["corrected.expt", "corrected.refl", "scaling.terms=scale", "outlier.reject=False"])
    diffuse_absolute.run([*SCALED, *COMPOSITION])
    report = json.loads(Path("dials.diffuse_absolute.json").read_text())
    assert report["factor"] * truth.scales["diffuse"] == pytest.approx(1, abs=0.03)
    assert "The Bragg peaks are in the voxels" in report["remarks"][0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((*SCALED, *INTEGRATED), "What is in the unit cell is not known"),
        (INTEGRATED, "needs scaled.expt and scaled.refl"),
        ((*SCALED, "integrated.expt", *COMPOSITION), "integrated.expt comes alone"),
        ((*SCALED, *INTEGRATED, *COMPOSITION, "absolute.method=bragg"), "absolute.method=bragg: give integrated"),
        ((*SCALED, *INTEGRATED, *COMPOSITION, "absolute.interference=True"), "needs distances of atoms"),
        ((*SCALED, *INTEGRATED, *COMPOSITION, "absolute.per=formula"), "needs absolute.formula_units"),
        ((*SCALED, *INTEGRATED, *COMPOSITION, "check.model=none.pdb"), "none.pdb"),
        ((*SCALED, *INTEGRATED, *COMPOSITION, f"absolute.d_max={D_MIN}"), "absolute.method=krogh_moe"),
    ],
)
def test_what_is_missing(folder, arguments, message):
    with pytest.raises(SystemExit, match=message):
        diffuse_absolute.run(list(arguments))
    assert not list(folder.glob("absolute*"))


def test_disagreement_is_told(folder):
    """Three times as many atoms as there are: the sum rule and the Bragg intensities do not agree."""
    diffuse_absolute.run(
        [*SCALED, *INTEGRATED, *COMPOSITION, f"composition.formula=2*{ORDERED}", "check.reflections=calculated.mtz"]
    )
    log = Path("dials.diffuse_absolute.log").read_text()
    assert "The factor by Bragg, calculated" in log and "differs from that taken" in log
