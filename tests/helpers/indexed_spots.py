"""Spots that DIALS finds on images, indexed by models that are known."""

from __future__ import annotations

import numpy as np
from dials.array_family import flex
from dials.command_line.find_spots import phil_scope
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.geometry import IndexMapping
from dials_diffuse.grid import miller_index_from_numpy


def indexed_spots(experiments: ExperimentList, tolerance: float = 0.25) -> flex.reflection_table:
    """What dials.find_spots and dials.index make, shoeboxes included, for stills and for several lattices.

    Experiments of the same images follow one another. A spot belongs to the lattice that it is nearest to.
    """
    params = phil_scope.fetch().extract()  # extract alone takes multiple parameters wrongly
    params.spotfinder.mp.nproc = 1
    table = flex.reflection_table()
    for imageset in experiments.imagesets():
        numbers = [i for i, experiment in enumerate(experiments) if experiment.imageset == imageset]
        first = experiments[numbers[0] : numbers[0] + 1]
        spots = flex.reflection_table.from_observations(first, params, is_stills=first[0].scan is None)
        xyz = flumpy.to_numpy(spots["xyzobs.px.value"])
        panel = np.array(spots["panel"])
        hkl = np.empty((len(numbers), len(spots), 3))
        for n, number in enumerate(numbers):
            mapping = IndexMapping(experiments[number])
            for p in np.unique(panel):
                hkl[n, panel == p] = mapping.hkl(int(p), *xyz[panel == p].T)
        off = np.abs(hkl - np.rint(hkl)).max(axis=2)
        nearest = off.argmin(axis=0)
        spots["id"] = flex.int(np.array(numbers, dtype=np.int32)[nearest])
        chosen = hkl[nearest, np.arange(len(spots))]
        spots["miller_index"] = miller_index_from_numpy(np.rint(chosen).astype(int))
        table.extend(spots.select(flex.bool(off.min(axis=0) < tolerance)))
    for number, experiment in enumerate(experiments):
        table.experiment_identifiers()[number] = experiment.identifier
    return table
