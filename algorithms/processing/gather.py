"""From the command line to sweeps, each with its files in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.processing.command_line import CommandLine
from dials_diffuse.algorithms.processing.dials_steps import import_images
from dials_diffuse.algorithms.processing.record import key_of
from dials_diffuse.algorithms.processing.steps import LeftOut
from dials_diffuse.algorithms.processing.sweeps import (
    STATES,
    TOGETHER,
    Images,
    Sweep,
    group_images,
    read_models,
    split_by_images,
    state_of,
)
from dials_diffuse.algorithms.processing.work import Work, leave_out

#: Files that must not be another's in a folder in which DIALS is to work.
MODELS = ("*.expt", "*.refl")


def gather(line: CommandLine, work: Work) -> list[Sweep]:
    """Import the images, read DIALS's files, and divide both into sweeps.

    Raises
    ------
    Sorry
        If nothing is given, files given cannot be used, or a folder holds files of another origin.
    """
    values = work.parameters.values
    given = read_models(line.models, line.reflections)
    groups = group_images(line.images, values.template)
    if not given and not groups:
        raise Sorry("There is nothing to process: name images, a template= of images, or .expt and .refl files.")
    folders = [Path(f"{values.output.prefix}_{number + 1}") for number in range(len(groups) + len(given))]
    _check_inputs_stay([*line.models, *line.reflections], folders)
    for folder in folders:
        work.runner.record.enter(folder, MODELS)
    sweeps: list[Sweep] = []
    for imported in work.side_by_side(lambda task, nproc: _import(*task, work), list(zip(groups, folders))):
        sweeps += imported
    for folder, name, (experiments, reflections) in zip(folders[len(groups) :], line.models, given):
        state = values.state if values.state != "auto" else state_of(experiments, reflections, str(name))
        key = [work.runner.record.hash(path) for path in (name, *line.reflections)]
        sweeps += _divide(folder, experiments, reflections, state, key, work)
    return sweeps


def import_background(names: Sequence[str], work: Work) -> list[Path]:
    """Experiment files of the background; images are imported.

    Raises
    ------
    Sorry
        If that fails.
    """
    files = []
    for number, name in enumerate(names, 1):
        if name.endswith((".expt", ".json")):
            files.append(Path(name))
            continue
        images = Images([], name) if "#" in name else Images([Path(name)])
        folder = Path("background" if number == 1 else f"background_{number}")
        work.runner.record.enter(folder, MODELS)
        try:
            files += work.runner.run(import_images(images, folder, work.parameters, background=True))
        except LeftOut as error:
            raise Sorry(f"The background {name} cannot be imported: {error}.") from None
    return files


def _check_inputs_stay(inputs: list[Path], folders: list[Path]) -> None:
    """See that no file given is one that will be written."""
    written = {(folder / name).resolve() for folder in folders for names in STATES.values() for name in names}
    written |= {Path(name).resolve() for name in (*TOGETHER, "scaled.refl")}
    if taken := [path for path in inputs if path.resolve() in written]:
        raise Sorry(f"{taken[0]} would be overwritten: choose another output.prefix, or work in another folder.")


def _import(images: Images, folder: Path, work: Work) -> list[Sweep]:
    """The sweeps in images that were given together."""
    try:
        (file,) = work.runner.run(import_images(images, folder, work.parameters))
    except LeftOut as error:
        sweep = Sweep(folder, ExperimentList())
        leave_out(sweep, f"{images}: {error}")
        return [sweep]
    experiments = ExperimentList.from_file(file, check_format=False)
    if len(split_by_images(experiments, None)) == 1:
        return [Sweep(folder, experiments)]
    return _divide(folder, experiments, None, "imported", [work.runner.record.hash(file)], work)


def _divide(
    folder: Path,
    experiments: ExperimentList,
    reflections: flex.reflection_table | None,
    state: str,
    key: list[str],
    work: Work,
) -> list[Sweep]:
    """Make sweeps of experiments and write the files of each."""
    parts = split_by_images(experiments, reflections)
    sweeps = []
    for number, (part, table) in enumerate(parts, 1):
        own = folder if len(parts) == 1 else folder.with_name(f"{folder.name}_{number}")
        sweep = Sweep(own, part, state)
        work.runner.record.enter(own, MODELS)
        files = sweep.files_of(state)

        def write(part=part, table=table, files=files) -> None:
            for data, file in zip((part, table), files):
                data.as_file(str(file))

        work.runner.compute(f"{own}/given", key_of(key, state, number), write, files)
        sweeps.append(sweep)
    return sweeps
