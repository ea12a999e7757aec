"""What every program does before and after its work: arguments, log, errors, provenance.

A program file in ``command_line`` holds its help, its PHIL scope and a ``run`` that calls :func:`start`, one function
of ``algorithms`` and :func:`finish`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libtbx.phil
from dials.array_family import flex
from dials.util import Sorry, log, make_sys_exit_red
from dials.util.version import dials_version
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse import __version__, parallel
from dials_diffuse.arguments import Arguments
from dials_diffuse.freed_memory import keep_freed_memory
from dials_diffuse.output import INTERRUPTIONS
from dials_diffuse.partitioned_table import MANIFEST, PartitionedTable, is_partitioned
from dials_diffuse.provenance import ProcessRecord, hash_file

logger = logging.getLogger("dials.diffuse")

#: Endings of maps.
MAP_ENDINGS = (".nxs", ".h5", ".hdf5")


@dataclass
class Session:
    """What a program was started with.

    Attributes
    ----------
    params : libtbx.phil.scope_extract
        The program's parameters.
    experiment_files : list of str
        Names of the experiment files, in the order given.
    experiments : list of ExperimentList
        Their contents, one list a file.
    reflection_files : list of str
        Names of the reflection files, in the order given, then of the folders of partitions.
    reflections : list of flex.reflection_table or PartitionedTable
        Their contents; whoever takes them empties the list, for they are large.
    map_files : list of str
        Names of the maps, in the order given.
    record : ProcessRecord
        Program, version, date, parameters and the SHA-256 of every input file: what the outputs carry along.
    """

    params: libtbx.phil.scope_extract
    record: ProcessRecord
    experiment_files: list[str] = field(default_factory=list)
    experiments: list[ExperimentList] = field(default_factory=list)
    reflection_files: list[str] = field(default_factory=list)
    reflections: list[flex.reflection_table | PartitionedTable] = field(default_factory=list)
    map_files: list[str] = field(default_factory=list)


def start(
    name: str,
    help_message: str,
    phil: libtbx.phil.scope,
    args: list[str] | None = None,
    *,
    needs_experiments: bool = True,
    read_reflections: bool = True,
    check_format: bool = True,
    has_files: bool = False,
    needs_maps: bool = False,
) -> Session | None:
    """Read the command line, set up the log and write its head.

    Parameters
    ----------
    name : str
        The program's name, e.g. ``dials.diffuse_mask``.
    help_message : str
        The text under the usage line.
    phil : libtbx.phil.scope
        The program's parameters; must have ``output.log``.
    args : list of str, optional
        Arguments; ``sys.argv[1:]`` if None.
    needs_experiments : bool
        Whether the program can do nothing without an experiment file.
    read_reflections : bool
        Whether reflection files are recognised on the command line.
    check_format : bool
        Whether the images themselves will be read.
    has_files : bool
        Whether the program took files from the command line before, so that there is work even without arguments.
    needs_maps : bool
        Whether the program takes maps (HDF5), one at least; they are named, not read.

    Returns
    -------
    Session or None
        None if there was nothing to do: the help has been printed.
    """
    if args is None:
        args = sys.argv[1:]
    if "--version" in args:
        print(f"dials_diffuse {__version__}, {dials_version()}")
        return None
    map_files = [arg for arg in args if needs_maps and arg.endswith(MAP_ENDINGS) and Path(arg).is_file()]
    read_reflections &= needs_experiments
    partitioned = [arg.rstrip("/") for arg in args if read_reflections and _is_folder_of_observations(arg)]
    files = ["merged.nxs"] * needs_maps + ["models.expt"] * needs_experiments + ["observations.refl"] * read_reflections
    parser = Arguments(
        usage=" ".join([name, "[options]", "[param.phil]", *files]),
        prog=name,
        phil=phil,
        epilog=help_message,
        read_experiments=needs_experiments,
        read_reflections=read_reflections,
        check_format=check_format,
    )
    if not args and not has_files:
        parser.print_help()
        return None
    if check_format:
        keep_freed_memory()
    params, options = parser.parse_args(args=[arg for arg in args if arg.rstrip("/") not in (*map_files, *partitioned)])
    check_output_folders(params.output)
    all_parameters = parser.phil.format(params)
    session = Session(params, ProcessRecord.now(name, all_parameters.as_str()), map_files=map_files)
    if needs_maps and not map_files:
        raise Sorry(f"{name} needs a map: name the .nxs file that dials.diffuse_merge wrote on the command line.")
    if needs_experiments:
        session.experiment_files = [entry.filename for entry in params.input.experiments]
        session.experiments = [entry.data for entry in params.input.experiments]
        session.record.experiments = [name for part in session.experiments for name in part.identifiers()]
        if not session.experiment_files:
            raise Sorry(f"{name} needs an experiment file (.expt): name one on the command line.")
        if read_reflections:
            session.reflection_files = [entry.filename for entry in params.input.reflections]
            session.reflections = [entry.data for entry in params.input.reflections]
            session.reflection_files += partitioned
            session.reflections += [PartitionedTable(name) for name in partitioned]
        del params.input  # or the tables would be held for as long as the parameters
    inputs = [*map_files, *session.experiment_files, *session.reflection_files, *named_files(all_parameters)]
    check_inputs_stay(inputs, params.output)  # before the log is opened
    log.config(verbosity=options.verbose, logfile=params.output.log)
    log_versions(name)
    if changed := changed_parameters(phil, all_parameters, session):
        logger.info("The following parameters have been modified:\n\n%s", changed)
    session.record.inputs.update({filename: hash_file(filename) for filename in inputs})
    del parser
    gc.collect()  # DIALS's parser has read .refl files as text, too, which its tracebacks hold on to
    return session


def _is_folder_of_observations(arg: str) -> bool:
    """Whether an argument names a folder of partitions, finished or not."""
    path = Path(arg)
    return path.is_dir() and (is_partitioned(arg) or (path / MANIFEST).exists())


def changed_parameters(phil: libtbx.phil.scope, all_parameters: libtbx.phil.scope, session: Session) -> str:
    """Parameters that differ from their defaults, and the input files, as PHIL text.

    DIALS's own parser compares the contents of the input files, too, and reads them twice more for it.
    """
    own = phil.customized_copy(objects=[child for child in phil.objects if child.name != "input"])
    inputs = [f"  map = {name}\n" for name in session.map_files]
    inputs += [f"  experiments = {name}\n" for name in session.experiment_files]
    inputs += [f"  reflections = {name}\n" for name in session.reflection_files]
    return own.fetch_diff(source=all_parameters).as_str() + ("input {\n" + "".join(inputs) + "}\n" if inputs else "")


def named_files(phil: libtbx.phil.scope) -> list[str]:
    """Files that parameters name as inputs (masks, backgrounds): of type path, not in the scope ``output``."""
    paths = [
        definition.object.extract()
        for definition in phil.all_definitions()
        if definition.object.type.phil_type == "path" and not definition.path.startswith("output.")
    ]
    return [path for path in paths if path is not None and Path(path).is_file()]


def check_inputs_stay(inputs: Iterable[str], output: libtbx.phil.scope_extract) -> None:
    """See that no input would be overwritten.

    Parameters
    ----------
    inputs : iterable of str
        Names of the files that are read.
    output : libtbx.phil.scope_extract
        The scope ``output``.

    Raises
    ------
    Sorry
        If an output is one of them.
    """
    read = {Path(name).resolve(): name for name in inputs}
    for parameter, name in vars(output).items():
        if isinstance(name, str) and parameter[0] != "_" and Path(name).resolve() in read:
            raise Sorry(f"output.{parameter}={name} is an input, too, and would be overwritten: choose another name.")


def check_output_folders(output: libtbx.phil.scope_extract) -> None:
    """See that all outputs can be written before any work is done.

    Parameters
    ----------
    output : libtbx.phil.scope_extract
        The scope ``output``: whatever is text in it is the name of a file.

    Raises
    ------
    Sorry
        If a folder does not exist or cannot be written to, or two outputs have one name.
    """
    names = {
        parameter: name for parameter, name in vars(output).items() if isinstance(name, str) and parameter[0] != "_"
    }
    for parameter, name in names.items():
        if list(names.values()).count(name) > 1:
            raise Sorry(f"output.{parameter}={name} is the name of another output, too: give each its own.")
        _check_kind(parameter, Path(name))
        folder = Path(name).resolve().parent
        if not folder.is_dir():
            raise Sorry(f"The folder of output.{parameter}={name} does not exist: make it first, or choose another.")
        if not os.access(folder, os.W_OK):
            raise Sorry(f"No permission to write output.{parameter}={name}: choose another folder.")


def _check_kind(parameter: str, path: Path) -> None:
    """See that an output would not replace something that no program writes under such a name.

    Raises
    ------
    Sorry
        If it would.
    """
    if is_partitioned(path) and path.exists() and not (path / MANIFEST).exists():
        if not path.is_dir() or any(path.iterdir()):
            raise Sorry(f"output.{parameter}={path} exists and is no table of observations: choose another name.")


def log_versions(name: str) -> None:
    """Write the versions of everything that has a part in the numbers to the log."""
    import numba
    import numpy

    logger.info(
        "%s: dials_diffuse %s, %s, Python %s, numpy %s, numba %s",
        name,
        __version__,
        dials_version(),
        platform.python_version(),
        numpy.__version__,
        numba.__version__,
    )


def finish(*written: str) -> None:
    """End the log with what the workers did, and the names of the files that were written."""
    if work := parallel.summary():
        logger.info("\nWork by step and worker\n%s", work)
    logger.info("\nWritten: %s", ", ".join(str(name) for name in written if name))


@contextlib.contextmanager
def handled_errors() -> Iterator[None]:
    """Turn user errors and interruptions into one sentence on stderr and a non-zero exit status.

    SIGTERM and SIGHUP clean up as Ctrl-C does. Logging ends with the program, so that one Python process can run
    several, each with a log of its own.
    """
    with make_sys_exit_red(), _interruptions() as received, _own_log_handlers(), parallel.until_end_of_program():
        try:
            yield
        except Sorry as error:
            sys.exit(f"Sorry: {error}")
        except BaseException:
            # not always KeyboardInterrupt: what is raised amid compiled code comes out of it as another error
            if received:
                sys.exit(f"Stopped by {received[0].name}: the outputs are as they were before.")
            raise


@contextlib.contextmanager
def _interruptions() -> Iterator[list[signal.Signals]]:
    """Raise KeyboardInterrupt on SIGINT, SIGTERM and SIGHUP unless they are ignored; the signals received so far."""
    received: list[signal.Signals] = []

    def interrupt(signum, frame):
        received.append(signal.Signals(signum))
        raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    in_main_thread = threading.current_thread() is threading.main_thread()  # others may not set handlers
    replaced = [number for number in INTERRUPTIONS if in_main_thread and previous[number] in usual]
    for number in replaced:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number in replaced:
            signal.signal(number, previous[number])


@contextlib.contextmanager
def _own_log_handlers() -> Iterator[None]:
    """Take away, and close, the log handlers that were added: DIALS adds its own at every call."""
    loggers = [logging.getLogger(name) for name in ("dials", "dxtbx", "xfel", "py.warnings")]
    before = [list(logger.handlers) for logger in loggers]
    try:
        yield
    finally:
        for logger, old in zip(loggers, before):
            for handler in set(logger.handlers) - set(old):
                logger.removeHandler(handler)
                handler.close()
