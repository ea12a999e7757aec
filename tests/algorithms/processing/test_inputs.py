"""What dials.diffuse_process makes of its command line and of DIALS's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from processed import files_of_sweep, make_processed

from dials_diffuse.algorithms.processing.command_line import sort_arguments
from dials_diffuse.algorithms.processing.parameters import sets_rotation, without_rotation
from dials_diffuse.algorithms.processing.record import Record
from dials_diffuse.algorithms.processing.sweeps import group_images, read_models, split_by_images, state_of
from dials_diffuse.provenance import ProcessRecord

pytestmark = pytest.mark.xdist_group("process")


@pytest.fixture(scope="module")
def made(make_once):
    return make_once("processed", make_processed)


def read(files):
    return ExperimentList.from_file(files[0], check_format=False), flex.reflection_table.from_file(files[1])


# The command line


def test_arguments_are_sorted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a_01.cbf", "a_02.cbf", "x.expt", "x.refl", "gain.pickled"):
        Path(name).touch()
    Path("my.phil").write_text(
        """
        dials.index { indexing.method = fft1d }
        dials.find_spots.spotfinder.mp.nproc = 1
        lookup.gain = gain.pickled
        d_min = 2
        mask { untrusted { panel = 0
                           circle = 1,2,3 } }
        """
    )
    args = ["a_01.cbf", "my.phil", "x.refl", "dials.index.unit_cell=1,2,3,90,90,90", "a_02.cbf", "-v", "x.expt", "typo"]
    line = sort_arguments(args)
    assert line.images == [Path("a_01.cbf"), Path("a_02.cbf")]
    assert (line.models, line.reflections) == ([Path("x.expt")], [Path("x.refl")])
    assert line.dials["index"] == ["indexing.method = fft1d\n", "unit_cell=1,2,3,90,90,90"]
    assert line.dials["find_spots"] == ["spotfinder.mp.nproc = 1\n"]
    assert str(tmp_path / "gain.pickled") in line.dials["import"][0]  # it works in another folder
    with line.own_arguments() as own:
        assert own[1:] == ["-v", "typo"]  # the parser says what is wrong with it
        text = Path(own[0]).read_text()
    assert "d_min = 2" in text and text.count("untrusted") == 1 and "dials" not in text


@pytest.mark.parametrize("arg", ["dials.scale.d_min=2", "dials.scale { d_min = 2 }"])
def test_a_program_that_is_not_run(arg):
    with pytest.raises(
        Sorry, match="dials.scale is not run: parameters can be given to dials.import, dials.find_spots"
    ):
        sort_arguments([arg])


def test_a_broken_file_and_a_folder(tmp_path):
    (tmp_path / "my.phil").write_text("d_min = {")
    with pytest.raises(Sorry, match="my.phil is not PHIL"):
        sort_arguments([str(tmp_path / "my.phil")])
    with pytest.raises(Sorry, match="is a folder: name the images in it"):
        sort_arguments([str(tmp_path)])


def test_rotation_in_the_parameters_of_dials_import():
    geometry = "geometry {\n  beam.wavelength = 1\n  scan.oscillation = 0,1\n}\n"
    assert sets_rotation([geometry]) and sets_rotation(["scan.oscillation=0,1"])
    assert not sets_rotation(["geometry.beam.wavelength=1", "input.tolerance.scan.oscillation=1"])
    (left,) = without_rotation([geometry])
    assert "wavelength" in left and "scan" not in left


# Images


def test_images_are_grouped_in_the_order_given():
    names = ["b/x_2_0001.cbf", "b/x_2_0003.cbf", "x_1_01.cbf.gz", "b/x_2_0002.cbf", "y_1.h5", "y_2.h5", "x_1_02.cbf.gz"]
    groups = group_images([Path(name) for name in names], ["z_###.img"])
    assert [str(group) for group in groups] == ["b/x_2_####.cbf", "x_1_##.cbf.gz", "y_1.h5", "y_2.h5", "z_###.img"]
    assert groups[0].numbers == [1, 2, 3]


# DIALS's files


@pytest.mark.parametrize("state", ["indexed", "refined", "integrated"])
def test_state(made, state):
    assert state_of(*read(files_of_sweep(made, "sweep_1", state)), "") == state


def test_state_of_static_models_and_of_what_has_no_crystal(made):
    experiments, reflections = read(files_of_sweep(made, "sweep_1", "refined"))
    assert experiments[0].crystal.num_scan_points
    experiments[0].crystal.reset_scan_points()
    assert state_of(experiments, reflections, "") == "refined"
    with pytest.raises(Sorry, match="a.expt has a crystal but comes without reflections"):
        state_of(experiments, None, "a.expt")
    imported = ExperimentList.from_file(made / "sweep_1" / "imported.expt", check_format=False)
    assert state_of(imported, None, "") == "imported"
    assert state_of(imported, flex.reflection_table.from_file(str(made / "sweep_1" / "strong.refl")), "") == "found"


def test_jointly_indexed_sweeps_come_apart_and_lattices_stay_together(made):
    """Spots that are not indexed, and belong to an image set only, go with it."""
    experiments, reflections = ExperimentList(), flex.reflection_table()
    sizes = []
    for number, sweep in enumerate(("sweep_1", "sweep_2")):
        part, table = read(files_of_sweep(made, sweep, "indexed"))
        indexed = table["id"] >= 0
        sizes.append((len(table), indexed.count(True)))
        for key in list(table.experiment_identifiers().keys()):
            del table.experiment_identifiers()[key]
        table["id"].set_selected(indexed, number)
        table["imageset_id"] = flex.int(len(table), number)
        table.experiment_identifiers()[number] = part[0].identifier
        experiments.extend(part)
        reflections.extend(table)
    assert sum(n - indexed for n, indexed in sizes) > 0
    for number, (part, table) in enumerate(split_by_images(experiments, reflections)):
        assert list(part.identifiers()) == [experiments[number].identifier]
        assert dict(table.experiment_identifiers()) == {0: experiments[number].identifier}
        assert (len(table), (table["id"] == 0).count(True)) == sizes[number]
        assert set(table["imageset_id"]) == {0}
    experiments[1].imageset = experiments[
        0
    ].imageset  # as if the second crystal were another lattice in the same images
    assert len(split_by_images(experiments, reflections)) == 1


def test_pairs_of_files(made):
    first, second = (files_of_sweep(made, sweep, "refined") for sweep in ("sweep_1", "sweep_2"))
    models, tables = zip(first, second)
    pairs = read_models([Path(name) for name in models], [Path(name) for name in reversed(tables)])
    for experiments, table in pairs:
        assert list(table.experiment_identifiers().values()) == list(experiments.identifiers())
    with pytest.raises(Sorry, match="hold the same experiment"):
        read_models([Path(first[0]), made / "sweep_1" / "indexed.expt"], [])
    with pytest.raises(Sorry, match="sweep_2/refined.refl belongs to none of the .expt files given"):
        read_models([Path(first[0])], [Path(second[1])])


# The record


def test_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = ProcessRecord.now("dials.diffuse_process")
    output = Path("out.txt")
    output.write_text("1")
    record = Record("process.json", process)
    record.add("a/step", {"key": "k"}, [output])
    assert record.done("a/step", "k") and not record.done("a/step", "other") and not record.done("b/step", "k")
    again = Record("process.json", process)
    assert again.done("a/step", "k")
    shutil.copy(output, "copy.txt")
    shutil.move("copy.txt", output)  # another time, the same content
    assert again.done("a/step", "k")
    output.write_text("2")
    assert not again.done("a/step", "k")
    output.unlink()
    assert not again.done("a/step", "k")
    Path("process.json").write_text("{}")
    with pytest.raises(Sorry, match="process.json is not what dials.diffuse_process writes"):
        Record("process.json", process)
