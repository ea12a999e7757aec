"""The files that the program writes."""

from __future__ import annotations

import libtbx.phil

from dials_diffuse.algorithms.absolute.absolute import AbsoluteScale
from dials_diffuse.algorithms.merging.merge import MergedMap
from dials_diffuse.dataset import Dataset, write_experiments
from dials_diffuse.map_file import write_map
from dials_diffuse.output import whole_files
from dials_diffuse.table_file import write_table


def write_absolute(
    dataset: Dataset, merged: MergedMap, found: AbsoluteScale, output: libtbx.phil.scope_extract, texts: dict[str, str]
) -> list[str]:
    """Write all, or nothing.

    Parameters
    ----------
    dataset : Dataset
        On the absolute scale.
    merged : MergedMap
        Its map.
    found : AbsoluteScale
    output : libtbx.phil.scope_extract
        The scope ``output`` of the program.
    texts : dict of str to str
        Further files and what to write there.

    Returns
    -------
    list of str
        Names of the files.
    """
    names = [output.experiments, output.reflections, output.map, *texts]
    if found.bragg is not None:
        names.append(output.bragg)
    with whole_files(*names) as parts:
        write_experiments(dataset.experiments, dataset.grid, dataset.history, parts[0])
        write_table(dataset.observations, parts[1])
        write_map(
            parts[2],
            merged.grid,
            merged.index,
            merged.map_columns(),
            wavelengths=merged.wavelengths,
            history=dataset.history,
            units=dataset.units,
        )
        for part, text in zip(parts[3:], texts.values()):
            part.write_text(text, encoding="utf-8")
        if found.bragg is not None:
            write_table(found.bragg.as_reflections(dataset.grid, found.factor), parts[-1])
    return names
