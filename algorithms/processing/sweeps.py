"""Sweeps: what belongs together among the files given, and how far DIALS has come with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dials.array_family import flex
from dials.util import Sorry
from dxtbx.imageset import ImageSetFactory
from dxtbx.model import Experiment
from dxtbx.model.experiment_list import ExperimentList
from dxtbx.sequence_filenames import template_regex, template_string_number_index

from dials_diffuse.dataset import forget_identifiers
from dials_diffuse.images import first_line
from dials_diffuse.stills import own_images

#: What DIALS can have made of images, in order, and the names of the files that hold it.
STATES = {
    "imported": ("imported.expt",),
    "found": ("imported.expt", "strong.refl"),
    "indexed": ("indexed.expt", "indexed.refl"),
    "refined": ("refined.expt", "refined.refl"),
    "integrated": ("integrated.expt", "integrated.refl"),
}

#: What is made of all sweeps, beside the scaled observations, in the folder where the user stands.
TOGETHER = ("scaled.expt", "merged.refl", "merged.nxs")

#: Endings of files that hold many images each.
MULTI_IMAGE_ENDINGS = (".h5", ".hdf5", ".nxs")


@dataclass
class Images:
    """Images that are imported together: one sweep, if DIALS finds no more in them.

    Attributes
    ----------
    files : list of Path
        Empty if only the template is given.
    template : str or None
        With # in place of the digits.
    """

    files: list[Path]
    template: str | None = None

    @property
    def numbers(self) -> list[int]:
        """The images' numbers in the template."""
        start, stop = template_string_number_index(self.template)
        return sorted(int(str(file)[start:stop]) for file in self.files)

    def __str__(self) -> str:
        return self.template if self.template and len(self.files) != 1 else str(self.files[0])


@dataclass
class Sweep:
    """One sweep, or one set of stills, on its way to observations.

    Attributes
    ----------
    folder : Path
        Where its files are.
    models : ExperimentList
        As imported or given.
    state : str
        One of :data:`STATES`.
    files : list of Path
        The .expt and .refl files from which the diffuse intensity is extracted, in pairs.
    left_out : str or None
        Why it is not in the map.
    numbers : dict
        What the steps found: spots, indexed share, RMSDs, cells, ...
    images : dict of str to list
        Size in bytes and time of change (ns) of each image file by its name: what tells whether it is the same.
    """

    folder: Path
    models: ExperimentList
    state: str = "imported"
    files: list[Path] = field(default_factory=list)
    left_out: str | None = None
    numbers: dict = field(default_factory=dict)
    images: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.images = stat_images(self.models)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_stills(self) -> bool:
        """Whether the images were taken without rotation."""
        return self.models.all_stills()

    def files_of(self, state: str) -> list[Path]:
        """The files that hold a state."""
        return [self.folder / name for name in STATES[state]]


def group_images(files: list[Path], templates: list[str]) -> list[Images]:
    """Sort images by what they are called, in the order in which they were given.

    Parameters
    ----------
    files : list of Path
        Images, or master files with many images each.
    templates : list of str
        Templates with #, each a group of its own.
    """
    groups: dict[str, Images] = {}
    for file in files:
        template = None if file.name.endswith(MULTI_IMAGE_ENDINGS) else template_regex(str(file))[0]
        groups.setdefault(template or str(file), Images([], template)).files.append(file)
    return [*groups.values(), *(Images([], template) for template in templates)]


def read_models(
    models: list[Path], reflections: list[Path]
) -> list[tuple[ExperimentList, flex.reflection_table | None]]:
    """Read DIALS's files and find the reflections that belong to each, by the experiments' identifiers.

    Raises
    ------
    Sorry
        If a file cannot be read, reflections belong to no experiments, or an experiment comes twice.
    """
    tables = {name: _read_reflections(name) for name in reflections}
    pairs = []
    seen: dict[str, Path] = {}
    for name in models:
        experiments = _read_experiments(name)
        for identifier in experiments.identifiers():
            if identifier and identifier in seen:
                raise Sorry(
                    f"{seen[identifier]} and {name} hold the same experiment: give one of them, the one that is "
                    "processed furthest."
                )
            seen[identifier] = name
        pairs.append((experiments, _take_table(experiments, tables, len(models))))
    if tables:
        raise Sorry(f"{next(iter(tables))} belongs to none of the .expt files given: give the one written with it.")
    return pairs


def _read_experiments(name: Path) -> ExperimentList:
    try:
        experiments = ExperimentList.from_file(name, check_format=False)
    except Exception as error:  # whatever is in it
        raise Sorry(
            f"{name} is not a list of experiments ({first_line(error)}): give an .expt file that DIALS wrote."
        ) from error
    if any(experiment.imageset is None for experiment in experiments):
        raise Sorry(f"{name} names no images: give an .expt file that does.")
    return experiments


def _read_reflections(name: Path) -> flex.reflection_table:
    try:
        return flex.reflection_table.from_file(str(name))
    except Exception as error:  # whatever is in it
        raise Sorry(
            f"{name} is not a table of reflections ({first_line(error)}): give a .refl file that DIALS wrote."
        ) from error


def _take_table(
    experiments: ExperimentList, tables: dict[Path, flex.reflection_table], n_models: int
) -> flex.reflection_table | None:
    identifiers = set(experiments.identifiers())
    for name, table in tables.items():
        theirs = set(table.experiment_identifiers().values())
        if (theirs and theirs <= identifiers) or (not theirs and n_models == 1):
            return tables.pop(name)
    return None


def split_by_images(
    experiments: ExperimentList, reflections: flex.reflection_table | None
) -> list[tuple[ExperimentList, flex.reflection_table | None]]:
    """Divide experiments by their images: lattices in the same images stay together, and so do all stills.

    ``dials.split_experiments`` divides lattices in the same images, too, and drops what is not indexed.

    Returns
    -------
    list of (ExperimentList, reflection_table or None)
        ``id`` and ``imageset_id`` count from 0 in each.
    """
    imagesets = experiments.imagesets()
    if len(imagesets) == 1 or experiments.all_stills():
        return [(experiments, reflections)]
    parts = []
    for number, imageset in enumerate(imagesets):
        ids = [i for i, experiment in enumerate(experiments) if experiment.imageset is imageset]
        part = ExperimentList([experiments[i] for i in ids])
        parts.append((part, _reflections_of(part, ids, number, reflections)))
    return parts


def _reflections_of(
    part: ExperimentList, ids: list[int], imageset: int, reflections: flex.reflection_table | None
) -> flex.reflection_table | None:
    if reflections is None:
        return None
    chosen = flex.bool(len(reflections), False)
    if "imageset_id" in reflections:  # spots that are not indexed have no other sign of whose they are
        chosen |= (reflections["imageset_id"] == imageset) & (reflections["id"] < 0)
    for i in ids:
        chosen |= reflections["id"] == i
    own = reflections.select(chosen)
    forget_identifiers(own)
    numbers = flex.int(len(own), -1)
    for new, old in enumerate(ids):
        numbers.set_selected(own["id"] == old, new)
        own.experiment_identifiers()[new] = part[new].identifier
    own["id"] = numbers
    own["imageset_id"] = flex.int(len(own), 0)
    return own


def one_image_each(experiments: ExperimentList) -> ExperimentList:
    """Stills with an image set of one image each.

    dials.import makes a sequence of stills, one experiment an image, of images whose headers call the rotation 0.
    dials.stills_process (``do_import`` in 3.12 and 3.30) takes every image of the sequence for each of them.
    """
    stills = ExperimentList()
    for experiment in experiments:
        image = ImageSetFactory.imageset_from_anyset(own_images(experiment))
        still = Experiment(imageset=image, beam=experiment.beam, detector=experiment.detector)
        still.identifier = experiment.identifier
        image.set_beam(experiment.beam, 0)
        image.set_detector(experiment.detector, 0)
        stills.append(still)
    return stills


def state_of(experiments: ExperimentList, reflections: flex.reflection_table | None, name: str) -> str:
    """How far DIALS has come, as one of :data:`STATES`.

    Indexed and refined files have the same columns. What tells them apart: dials.refine marks reflections as predicted,
    dials.index does not (run_macrocycle in dials/command_line/refine.py).

    Raises
    ------
    Sorry
        If there is a crystal but no reflections.
    """
    if all(experiment.crystal is None for experiment in experiments):
        return "imported" if reflections is None else "found"
    if reflections is None:
        raise Sorry(f"{name} has a crystal but comes without reflections: give its .refl file, too.")
    flags = reflections.flags
    if reflections.get_flags(flags.integrated, all=False).count(True):
        return "integrated"
    varies = any(experiment.crystal is not None and experiment.crystal.num_scan_points for experiment in experiments)
    if varies or reflections.get_flags(flags.predicted).count(True):
        return "refined"
    return "indexed"


def stat_images(experiments: ExperimentList) -> dict[str, list[int]]:
    """Size and time of change of every image file there is, by name."""
    found = {}
    for imageset in experiments.imagesets():
        for path in imageset.paths():
            if os.path.exists(path):
                status = os.stat(path)
                found[str(path)] = [status.st_size, status.st_mtime_ns]
    return found
