"""What can be plugged in, and what is: of this package and of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dials.util import Sorry, tabulate

from dials_diffuse import __version__
from dials_diffuse.algorithms.correction import combined
from dials_diffuse.algorithms.masking import strategies
from dials_diffuse.algorithms.scaling import terms
from dials_diffuse.plugins import Plugin, find_plugins, what_it_is

logger = logging.getLogger("dials.diffuse.plugins")

#: Our distribution's name.
PACKAGE = "dials-diffuse"

#: Groups of entry points, with the built-in classes and what the programs call, which stops at a broken plug-in.
GROUPS: dict[str, tuple[Sequence[type], Callable[[], object] | None]] = {
    combined.PLUGIN_GROUP: (combined.BUILT_IN, combined.correction_models),
    strategies.PLUGIN_GROUP: (strategies.BUILT_IN, strategies.bragg_mask_strategies),
    terms.PLUGIN_GROUP: (terms.BUILT_IN, terms.scaling_terms),
    "dxtbx.scaling_model_ext": ((), None),
}


def list_plugins() -> dict[str, list[Plugin]]:
    """Everything in the groups that this package defines, built-in classes first; of DIALS's groups, what is ours."""
    found = {}
    for group, (built_in, check) in GROUPS.items():
        plugins = find_plugins(group)
        if check is None:
            plugins = [plugin for plugin in plugins if plugin.package == PACKAGE]
        own = [
            Plugin(model.name, f"{model.__module__}:{model.__name__}", PACKAGE, __version__, model)
            for model in built_in
        ]
        found[group] = [*own, *plugins]
    return found


def log_plugins() -> None:
    """Write the list to the log, broken ones with what is wrong with them."""
    for group, plugins in list_plugins().items():
        rows = [(plugin.name, plugin.value, f"{plugin.package} {plugin.version}", _says(plugin)) for plugin in plugins]
        logger.info("\n%s\n%s", group, tabulate(rows, ["Name", "Class", "Package", "What it is"]))
        check = GROUPS[group][1]
        if check is not None:
            try:
                check()
            except Sorry as error:
                logger.warning("Programs that need this group stop: %s", error)


def _says(plugin: Plugin) -> str:
    if plugin.error is not None:
        return f"BROKEN: {type(plugin.error).__name__}: {plugin.error}".split("\n")[0]
    return what_it_is(plugin.loaded)
