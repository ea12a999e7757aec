"""The command line as DIALS reads it, but what is wrong with it is said in one sentence instead of a traceback."""

from __future__ import annotations

import json
from pathlib import Path

from dials.array_family import flex
from dials.util import Sorry
from dials.util.options import ArgumentParser
from dxtbx.model.experiment_list import ExperimentListFactory

from dials_diffuse.images import first_line
from dials_diffuse.partitioned_table import is_partitioned


class Arguments(ArgumentParser):
    """DIALS's parser of options, parameters and files; user errors come out as Sorry.

    Parameters
    ----------
    check_format : bool
        Whether the images that experiments name will be read.
    **kwargs
        Of :class:`dials.util.options.ArgumentParser`.
    """

    def __init__(self, *, check_format: bool, **kwargs) -> None:
        self._images_are_read = check_format
        super().__init__(check_format=check_format, **kwargs)

    def parse_args(self, *args, **kwargs):
        try:
            return super().parse_args(*args, **kwargs)
        except (RuntimeError, ValueError) as error:  # a value out of range, a broken .phil file
            raise Sorry(f"{error}. {self.prog} -c -e2 -a1 shows all parameters.") from error
        except OSError as error:  # of --phil
            raise Sorry(f"Cannot read {error.filename}: {error.strerror}.") from error
        except Sorry as error:
            if str(error).startswith("Unknown command line parameter"):
                raise Sorry(f"{error}. {self.prog} -c -e2 -a1 shows all parameters.") from error
            raise

    def error(self, message: str) -> None:
        raise Sorry(f"{message}. {self.prog} -h shows how it is used.")

    def _warn_about_unhandled_args(self, unhandled: list[str], verbosity: int = 0) -> str:
        """In place of DIALS's list of tracebacks: why the first argument that is no parameter cannot be used."""
        name = unhandled[0]
        if name.startswith("-"):
            return f"There is no option {name}. {self.prog} -h shows how it is used."
        if not Path(name).exists():
            return f"{name} does not exist: check its name. (Parameters are given as name=value.)"
        if name.endswith((".expt", ".json")):
            return self._trouble_with_experiments(name)
        if is_partitioned(name) and not Path(name).is_dir():
            return f"{name} is not a folder of partitions: give what a program wrote under such a name."
        if name.endswith((".refl", ".pickle")):
            return _trouble_with_reflections(name)
        return (
            f"{name} is of no use to {self.prog}: it takes .expt and .refl files as DIALS writes them. (Import images.)"
        )

    def _trouble_with_experiments(self, name: str) -> str:
        if _has_sequence_without_scan(name):
            return (
                f"{name} has several images but no scan, so that their rotation is unknown: import them as a sweep "
                "(dials.import, with geometry.scan.* where the headers do not tell)."
            )
        try:
            experiments = ExperimentListFactory.from_json_file(name, check_format=False)
        except Sorry as error:  # a plug-in says what is missing
            return f"{name} cannot be used here. {error}"
        except Exception as error:  # whatever is in it
            return f"{name} is not a list of experiments ({first_line(error)}): give an .expt file that DIALS wrote."
        try:
            ExperimentListFactory.from_json_file(name, check_format=self._images_are_read)
        except FileNotFoundError as error:
            return (
                f"Image {error.filename} of {name} is missing: put it back, or import the images from where they are "
                "now."
            )
        except Exception as error:  # whatever a format class raises
            first = ", ".join(dict.fromkeys(imageset.get_path(0) for imageset in experiments.imagesets()))
            return f"The images of {name} cannot be read ({first_line(error)}): see whether {first} is whole."
        return f"{name} is of no use to {self.prog}."


def _trouble_with_reflections(name: str) -> str:
    try:
        flex.reflection_table.from_file(name)
    except Exception as error:  # whatever is in it
        return f"{name} is not a table of reflections ({first_line(error)}): give a .refl file that DIALS wrote."
    return f"{name} is of no use: no reflections are needed."


def _has_sequence_without_scan(name: str) -> bool:
    try:
        content = json.loads(Path(name).read_text())
        sequences = [imageset["__id__"] in ("ImageSequence", "ImageSweep") for imageset in content["imageset"]]
        return any(
            experiment.get("scan") is None
            and experiment.get("imageset") is not None
            and sequences[experiment["imageset"]]
            for experiment in content["experiment"]
        )
    except (ValueError, KeyError, TypeError, IndexError):  # not an experiment list
        return False
