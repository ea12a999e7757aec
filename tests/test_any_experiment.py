"""Experiments of every kind, each simulated, brought from its images to a map by one command with real DIALS, and held
against the known answer. What DIALS cannot know from the headers (the true beam centre and distance) it must find."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from against_truth import against_truth
from dials_session import dials, working_directory

from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.command_line import diffuse_process, diffuse_simulate

SIMULATION = "sweeps=1 frames=30 background.images=20 nproc=1"
#: Faster ways through DIALS than its defaults, good enough for these crystals.
DIALS = (
    "dials.find_spots.d_min=2.5 dials.index.indexing.method=fft1d dials.index.n_macro_cycles=2"
    " dials.index.basis_vector_combinations.max_refine=3"
)
#: With b alone and errors by counting, so that a misfit of the geometry is not taken for anything else.
SCALING = "scaling.terms=scale error_model.a=1 error_model.b=0 merging.test_symmetry=False"
PROCESSING = f"d_min=2.2 virtual_pixels=False beam_stop.find=True nproc=1 {SCALING} {DIALS}"
CRYSTAL = "unit_cell=39.5,45.2,51.3,90,90,90 space_group=P212121 integration=False"
NXMX = "images/sweep_1.nxs background=images/background.nxs"


def cbf(ending: str) -> str:
    return f"template=images/sweep_1_####.{ending} background=images/background_####.{ending}"


#: What is simulated; images, background and whatever else DIALS has to be told.
EXPERIMENTS = {
    "barrel, kappa": (
        "format=nxmx detector.model=barrel detector.panel_size=360,48 detector.distance=80 detector.data_type=uint32"
        " goniometer.model=kappa goniometer.invert=True",
        NXMX,
    ),
    "two modules, phi of a kappa": (
        "format=nxmx detector.model=two_modules detector.data_type=uint16"
        " goniometer.model=kappa goniometer.scan_axis=phi",
        NXMX,
    ),
    "inverted, bzip2": (
        "format=cbf.bz2 goniometer.invert=True",
        cbf("cbf.bz2") + " dials.import.invert_rotation_axis=True",
    ),
    "panels, gzip": ("format=cbf.gz", cbf("cbf.gz") + " dials.import.format.multi_panel=True"),
    "CCD": (
        "format=smv detector.model=custom detector.thickness=0 detector.gain=2 detector.pedestal=40",
        cbf("img"),
    ),
}


def simulate_and_process(folder: Path, simulation: str, processing: str) -> Truth:
    """Make the images in a folder and process them there."""
    with working_directory(folder):
        diffuse_simulate.run(f"{SIMULATION} {simulation}".split())
        diffuse_process.run(f"{processing} {PROCESSING}".split())
    return Truth.from_file(folder / "truth.json")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_map_is_true(name, tmp_path):
    simulation, images = EXPERIMENTS[name]
    truth = simulate_and_process(tmp_path, simulation, f"{images} {CRYSTAL}")
    found = against_truth(tmp_path, truth)
    print(f"\n{name}: {found}")
    assert found.voxels > 20000
    assert 0.95 < found.chi_squared < 1.1
    assert found.mean == pytest.approx(1, abs=0.015)


def test_two_lattices(tmp_path):
    """Only the first crystal has diffuse scattering; DIALS finds the two in any order."""
    simulation = "lattices.number=2 lattices.bragg=0.7 lattices.diffuse=0 bragg.photons=6000"
    images = f"{cbf('cbf')} {CRYSTAL} dials.index.max_lattices=2"
    truth = simulate_and_process(tmp_path, simulation, f"{images} extract.experiments=0")
    found = [against_truth(tmp_path, truth)]
    with working_directory(tmp_path):
        diffuse_process.run(f"{images} {PROCESSING} extract.experiments=1".split())
    found.append(against_truth(tmp_path, truth))
    found.sort(key=lambda comparison: comparison.chi_squared)
    print(f"\nfirst lattice: {found[0]}\nsecond: {found[1]}")
    assert 0.95 < found[0].chi_squared < 1.1
    assert abs(found[1].correlation) < 0.3


STILLS = (
    "stills=True frames=6 bragg.photons=20000 bragg.sigma=0.0007 background.photons=0"
    " header.perturb=False beam.tilt=0 detector.tilt=0,0"
)
#: One of these has what DIALS's programs for stills need.
MONO_SIMULATION = ("serialtbx", "xfel_mono_sim_ext")
SYMMETRY = "unit_cell=39.5,45.2,51.3,90,90,90 space_group=P212121"


def check_stills(folder: Path) -> None:
    """Six stills have gone into a map, and it is true."""
    found = against_truth(folder, Truth.from_file(folder / "truth.json"))
    print(f"\nstills: {found}")
    (sweep,) = json.loads((folder / "process.json").read_text())["sweeps"].values()
    assert sweep["stills"] == sweep["indexed stills"] == 6
    assert found.voxels > 20000
    assert 0.95 < found.chi_squared < 1.1


def test_stills_from_images(tmp_path):
    """By dials.stills_process, which lacks the module xfel_mono_sim_ext in Debian's DIALS 3.12."""
    with working_directory(tmp_path):
        diffuse_simulate.run(f"{SIMULATION} {STILLS}".split())
        images = [str(path) for path in sorted(Path("images").glob("*.cbf"))]
        try:
            diffuse_process.run([*images, *f"{SYMMETRY} {PROCESSING}".split()])
        except SystemExit:
            (sweep,) = json.loads(Path("process.json").read_text())["sweeps"].values()
            if "xfel_mono_sim_ext" in sweep["left_out"]:
                pytest.skip(sweep["left_out"])
            raise
    check_stills(tmp_path)


def test_stills_that_dials_has_indexed(tmp_path):
    """By dials.ssx_index, or, where the same module is missing, by dials.index one by one.

    (In DIALS 3.30 dials.index gives all spots of the stills to one of them.)
    """
    fixed = ("detector.fix=all", "beam.fix=all", "crystal.fix=cell")
    with working_directory(tmp_path):
        diffuse_simulate.run(f"{SIMULATION} {STILLS}".split())
        dials(tmp_path, "import", *(str(path) for path in sorted(Path("images").glob("*.cbf"))))
        dials(tmp_path, "find_spots", "imported.expt", "d_min=2.2", "nproc=1")
        spots = ("imported.expt", "strong.refl", *SYMMETRY.split())
        if any(importlib.util.find_spec(name) for name in MONO_SIMULATION):
            dials(tmp_path, "ssx_index", *spots, "nproc=1")
        else:
            indexing = "stills.indexer=sequences joint_indexing=False indexing.method=real_space_grid_search nproc=1"
            dials(tmp_path, "index", *spots, *indexing.split(), *fixed)
        refinement = " ".join(f"dials.refine.{option}" for option in (*fixed, "outlier.algorithm=null"))
        diffuse_process.run(f"indexed.expt indexed.refl {refinement} {PROCESSING}".split())
    check_stills(tmp_path)


def test_scan_varying_model_is_better_where_the_crystal_drifts(tmp_path):
    drift = "frames=45 photons=3 drift.orientation=0.9 drift.cell=0.0135"
    images = f"{cbf('cbf')} {CRYSTAL}"
    truth = simulate_and_process(tmp_path, drift, images)
    varying = against_truth(tmp_path, truth)
    with working_directory(tmp_path):
        diffuse_process.run(f"{images} {PROCESSING} dials.refine.scan_varying=False".split())
    static = against_truth(tmp_path, truth)
    print(f"\nscan-varying: {varying}\nstatic: {static}")
    assert 0.95 < varying.chi_squared < 1.1
    assert static.chi_squared > varying.chi_squared + 0.05


def test_ambiguous_lattice(tmp_path):
    """P4: two ways to index, of which DIALS takes either; all sweeps must have the same."""
    crystal = "crystal.space_group=P4 crystal.unit_cell=43,43,52,90,90,90"
    images = f"{cbf('cbf')} template=images/sweep_2_####.cbf unit_cell=43,43,52,90,90,90 space_group=P4"
    truth = simulate_and_process(tmp_path, f"sweeps=2 frames=22 {crystal}", images)
    operators = ("h,k,l", "k,h,-l")
    found = [against_truth(tmp_path, truth, operator) for operator in operators]
    found.sort(key=lambda comparison: comparison.chi_squared)
    print(f"\nthe better setting: {found[0]}\nthe other: {found[1]}")
    assert 0.95 < found[0].chi_squared < 1.1
    assert found[1].chi_squared > 2
    assert found[1].correlation < 0.5 * found[0].correlation
    # the choice is reported, and the wrong one is seen in the correlation of the Bragg intensities
    (setting,) = json.loads((tmp_path / "process.json").read_text())["sweeps"]["sweep_2"]["settings"]
    assert setting["ambiguous"] and setting["confident"]
    (best, other) = (setting["alternatives"][name][0] for name in sorted(operators, key=setting["operator"].__ne__))
    assert best > 0.8 and other < 0.5


def test_example_of_dials(tmp_path):
    """Cubic insulin of DIALS's own example data, where dials_data is installed and can fetch it."""
    download = pytest.importorskip("dials_data.download")
    try:
        images = sorted(Path(str(download.DataFetcher()("insulin"))).glob("insulin_1_*.img"))
    except Exception as error:  # whatever a missing network raises
        pytest.skip(f"the data cannot be fetched: {error}")
    with working_directory(tmp_path):
        diffuse_process.run([*map(str, images), "space_group=I213", "grid.ndiv=2,2,2", "d_min=2.5", "nproc=1"])
    (sweep,) = json.loads((tmp_path / "process.json").read_text())["sweeps"].values()
    assert sweep["left_out"] is None and sweep["indexed"] > 0.5 * sweep["spots"]
    assert (tmp_path / "merged.nxs").is_file()
