"""A merged map held against what the images were simulated from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy

from dials_diffuse.algorithms.simulation.compare import Comparison, compare
from dials_diffuse.algorithms.simulation.truth import Truth
from dials_diffuse.dataset import read_diffuse_header
from dials_diffuse.grid import miller_index_from_numpy, miller_index_to_numpy


def against_truth(
    folder: Path,
    truth: Truth,
    operator: str = "h,k,l",
    *,
    touching: bool = False,
    response: Callable[[np.ndarray], np.ndarray] | None = None,
    lost: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Comparison:
    """Merged voxels (merged.refl, with the grid of scaled.expt) that neither hold nor touch a Bragg point.

    Parameters
    ----------
    operator : str
        Change of basis from the setting of the map to that of the truth.
    touching : bool
        Those that share a face with a voxel of a Bragg point instead.
    response : callable, optional
        What the map holds besides the intensity, as a function of |q|: see :func:`true_terms.static_response`.
    lost : callable, optional
        What c holds of the intensity, as a function of |q|: see :func:`true_terms.offset_gauge`.
    """
    table = flex.reflection_table.from_file(str(folder / "merged.refl"))
    grid, _ = read_diffuse_header(folder / "scaled.expt", "dials.diffuse_scale")
    index = miller_index_to_numpy(table["miller_index"])
    ndiv = np.array(grid.ndiv)
    steps = np.abs((index + ndiv // 2) % ndiv - ndiv // 2).sum(axis=1)  # to the nearest Bragg point, through faces
    chosen = steps == 1 if touching else steps > 1
    values, variances = (flumpy.to_numpy(table[f"intensity.scale.{name}"])[chosen] for name in ("value", "variance"))
    q = grid.q(index[chosen])
    if lost is not None:
        values = values + lost(q)
    if response is not None:
        factor = response(q)
        values, variances = values / factor, variances / factor**2
    return compare(truth, in_setting(index[chosen], operator), grid.ndiv, values, variances)


def in_setting(index: np.ndarray, operator: str) -> np.ndarray:
    """Indices, shape (n, 3), after a change of basis."""
    from cctbx import sgtbx

    return miller_index_to_numpy(sgtbx.change_of_basis_op(operator).apply(miller_index_from_numpy(index)))
