"""All strategies for masking Bragg peaks: the built-in ones and those of other packages."""

from __future__ import annotations

import libtbx.phil
import numpy as np
from dials.array_family import flex
from dials.util import Sorry
from dxtbx.model.experiment_list import ExperimentList
from iotbx.phil import parse

from dials_diffuse.algorithms.masking.bragg import BraggMask, NoBraggMask
from dials_diffuse.algorithms.masking.ellipsoid_mask import EllipsoidBraggMask
from dials_diffuse.algorithms.masking.file_mask import FileBraggMask
from dials_diffuse.algorithms.masking.shoebox_mask import ShoeboxBraggMask
from dials_diffuse.plugins import plugin_classes, what_it_is

BUILT_IN = (NoBraggMask, EllipsoidBraggMask, ShoeboxBraggMask, FileBraggMask)

#: Entry points of this group add strategies: see docs/extending.md.
PLUGIN_GROUP = "dials_diffuse.bragg_mask"


def bragg_mask_strategies() -> dict[str, type[BraggMask]]:
    """Classes of all strategies by name: the built-in ones, then plug-ins in alphabetical order.

    Raises
    ------
    Sorry
        If a plug-in cannot be loaded, is not a BraggMask with a name of its own, or takes another's name.
    """
    return plugin_classes(PLUGIN_GROUP, BraggMask, BUILT_IN, "Bragg mask", _check)


def _check(which: str, strategy: type[BraggMask]) -> None:
    name = getattr(strategy, "name", None)
    if not (isinstance(name, str) and name.isidentifier() and name != "mode"):
        raise Sorry(f"{which} has no `name` of letters, digits and underscores.")
    if not isinstance(strategy.phil_scope, libtbx.phil.scope):
        raise Sorry(f"{which}: its `phil_scope` is not a PHIL scope.")


def bragg_mask_scope() -> libtbx.phil.scope:
    """The PHIL scope ``bragg_mask``: ``mode``, and one scope for every strategy that has parameters."""
    strategies = bragg_mask_strategies()
    words = " ".join(("*" if name == EllipsoidBraggMask.name else "") + name for name in strategies)
    meanings = " ".join(f"{name}: {what_it_is(strategy)}" for name, strategy in strategies.items())
    scope = parse(f"bragg_mask {{\n  mode = {words}\n    .type = choice\n}}")
    (bragg_mask,) = scope.objects
    bragg_mask.objects[0].help = f"How Bragg peaks are masked. {meanings}"
    for name, strategy in strategies.items():
        if strategy.phil_scope.objects:
            bragg_mask.adopt(strategy.phil_scope.customized_copy(name=name))
    return scope


def bragg_masks(
    experiments: ExperimentList, reflections: flex.reflection_table | None, params: libtbx.phil.scope_extract
) -> list[BraggMask]:
    """The Bragg masks of all experiments by the strategy asked for.

    Parameters
    ----------
    experiments : ExperimentList
    reflections : flex.reflection_table or None
        Of all experiments, told apart by ``id``; not needed by all strategies.
    params : libtbx.phil.scope_extract
        Values of the scope ``bragg_mask`` of :func:`bragg_mask_scope`.

    Raises
    ------
    Sorry
        If the strategy lacks something, or makes a mask that does not fit.
    """
    name = params.mode or NoBraggMask.name  # PHIL reads the word none as None
    masks = bragg_mask_strategies()[name].for_experiments(experiments, reflections, getattr(params, name, None))
    if len(masks) != len(experiments):
        raise Sorry(f"The Bragg mask {name} makes {len(masks)} masks for {len(experiments)} experiments.")
    for mask, experiment in zip(masks, experiments):
        shapes = [tuple(reversed(panel.get_image_size())) for panel in experiment.detector]
        if mask.static is not None and [(m.shape, m.dtype) for m in mask.static] != [(s, np.bool_) for s in shapes]:
            raise Sorry(f"The static part of the Bragg mask {name} is not one bool a pixel of each panel.")
    return masks
