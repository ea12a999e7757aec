"""Operations on a map, one after the other, and what is made of the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import libtbx.phil
import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.maps.correlation import correlation
from dials_diffuse.algorithms.maps.delta_pdf import delta_pdf
from dials_diffuse.algorithms.maps.difference import difference
from dials_diffuse.algorithms.maps.fill import fill
from dials_diffuse.algorithms.maps.isotropic import isotropic, variational
from dials_diffuse.algorithms.maps.punch import punch
from dials_diffuse.algorithms.maps.radial import radial_profile
from dials_diffuse.algorithms.maps.sections import directions, section
from dials_diffuse.algorithms.maps.symmetrise import symmetrise
from dials_diffuse.algorithms.maps.total import total
from dials_diffuse.map_file import DiffuseMap, read_map
from dials_diffuse.output import whole_files
from dials_diffuse.program import Session

logger = logging.getLogger("dials.diffuse.maps")

#: Operations of one map, with the scope of their parameters. (``difference`` is of two.)
OPERATIONS = {
    "punch": (punch, "punch"),
    "fill": (fill, "fill"),
    "isotropic": (isotropic, "isotropic"),
    "variational": (variational, "isotropic"),
    "symmetrise": (symmetrise, "symmetrise"),
    "total": (total, "total"),
}
NAMES = (*OPERATIONS, "difference")
#: Fields that operations need; the others are read only if there will be a map to write them to.
NEEDED = ("intensity", "intensity_errors", "pixels", "filled")


@dataclass
class NamedMap:
    """A map and the name of its file, for messages."""

    name: str
    map: DiffuseMap


def operate(diffuse_map: DiffuseMap, second: NamedMap | None, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """Do the operations of ``params.operations`` on a map, whose arrays are changed, in their order.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    second : NamedMap or None
        For ``difference``.
    params : libtbx.phil.scope_extract
        The program's.

    Returns
    -------
    DiffuseMap

    Raises
    ------
    Sorry
        If it cannot be done, or nothing is left.
    """
    for name in operation_names(params):
        logger.info("\n%s", name.capitalize())
        if name == "difference":
            diffuse_map = difference(diffuse_map, second.map, second.name, params.difference)
        else:
            operation, scope = OPERATIONS[name]
            diffuse_map = operation(diffuse_map, getattr(params, scope))
        measured = np.isfinite(diffuse_map.intensity)
        if not measured.any():
            raise Sorry(f"Nothing is left of the map after {name}.")
        logger.info("%d voxels with an intensity, mean %.5g", measured.sum(), diffuse_map.intensity[measured].mean())
    return diffuse_map


def operation_names(params: libtbx.phil.scope_extract) -> list[str]:
    """The operations asked for, in their order.

    Raises
    ------
    Sorry
        If there is no such operation.
    """
    names = [name for text in params.operations or [] for name in text.split(",") if name]
    for name in names:
        if name not in NAMES:
            raise Sorry(f"operations={','.join(names)}: there is no operation {name}, but {', '.join(NAMES)}.")
    return names


def run_operations(session: Session) -> list[str]:
    """Read the maps, do the operations, write what is wanted of the result.

    Returns
    -------
    list of str
        Names of the files.

    Raises
    ------
    Sorry
        If something cannot be read, done or written.
    """
    params = session.params
    check(session.map_files, params)
    diffuse_map, *others = (
        _read(name, params.output.map is not None and i == 0) for i, name in enumerate(session.map_files)
    )
    for plane in filter(None, params.sections.plane):
        directions(plane, diffuse_map.grid.ndiv)  # before the work
    second = NamedMap(session.map_files[1], others[0]) if others else None
    diffuse_map = operate(diffuse_map, second, params)
    diffuse_map.history.append(session.record)
    writers = products(diffuse_map, second, params)
    with whole_files(*writers) as parts:
        for part, write in zip(parts, writers.values()):
            write(part)
    return list(writers)


def check(map_files: Sequence[str], params: libtbx.phil.scope_extract) -> None:
    """See, before maps are read, that operations and outputs are possible with so many maps.

    Raises
    ------
    Sorry
        If not.
    """
    names = operation_names(params)
    two = "difference" in names or params.output.correlation is not None
    if two and len(map_files) < 2:
        raise Sorry("difference and output.correlation need two maps: name another one after the first.")
    if len(map_files) > 2:
        raise Sorry(f"{len(map_files)} maps were given: one is worked on, and a second one compared with it.")
    if len(map_files) == 2 and not two:
        raise Sorry(f"{map_files[1]} is of no use: ask for operations=difference or output.correlation.")


def products(
    diffuse_map: DiffuseMap, second: NamedMap | None, params: libtbx.phil.scope_extract
) -> dict[str, Callable[[Path], None]]:
    """What is to be written, by file name: functions that write it to a path."""
    output = params.output
    writers = {}
    if output.map is not None:
        writers[output.map] = diffuse_map.write
    if output.profile is not None:
        writers[output.profile] = radial_profile(diffuse_map, params.isotropic.shells).write
    if output.correlation is not None:
        table = correlation(diffuse_map, second.map, second.name, params.correlation.shells)
        logger.info("\nCorrelation with %s\n%s", second.name, table)
        writers[output.correlation] = table.write
    for plane in filter(None, params.sections.plane):
        values = section(diffuse_map, plane)
        for kind in params.sections.format:
            name = f"{output.sections}_{plane.replace(' ', '').replace(',', '_')}.{kind}"
            writers[name] = partial(values.write, format=kind)
    if output.delta_pdf is not None:
        function = delta_pdf(diffuse_map, params.delta_pdf)
        logger.info("\n3D-delta-PDF: %s points, %s", " x ".join(map(str, function.values.shape)), function.units)
        writers[output.delta_pdf] = partial(function.write, centred=params.delta_pdf.centred)
    return writers


def _read(name: str, whole: bool) -> DiffuseMap:
    """A map with all its fields, or with those that operations need."""
    diffuse_map = read_map(name, None if whole else NEEDED)
    if not np.isfinite(diffuse_map.intensity).any():
        raise Sorry(f"{name} holds no intensity: give a map that was measured.")
    return diffuse_map
