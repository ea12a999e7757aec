"""Classes that other packages add by Python entry points."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from dials.util import Sorry

Base = TypeVar("Base")


@dataclass(frozen=True)
class Plugin:
    """What one entry point offers.

    Attributes
    ----------
    name, value : str
        Of the entry point: what it is called, and ``module:object``.
    package, version : str
        Of the installed package that brings it.
    loaded : object
        What it refers to; None if it cannot be loaded.
    error : Exception or None
        Why it cannot.
    """

    name: str
    value: str
    package: str
    version: str
    loaded: object = None
    error: Exception | None = None


def what_it_is(plugin: object) -> str:
    """The first line of its documentation."""
    return (inspect.getdoc(plugin) or "").split("\n")[0]


def find_plugins(group: str) -> list[Plugin]:
    """Everything that installed packages offer in a group of entry points, loaded where it can be, in order of names.

    Parameters
    ----------
    group : str
        Name of the group, e.g. ``dials_diffuse.correction``.
    """
    found = {}
    for entry in entry_points(group=group):
        found.setdefault((entry.name, entry.value), entry)  # one package may be found twice on sys.path
    return [_load(entry) for _, entry in sorted(found.items())]


def load_plugins(group: str) -> dict[str, object]:
    """As :func:`find_plugins`, but all must be well.

    Returns
    -------
    dict of str to object
        What each entry point refers to, by its name, in alphabetical order.

    Raises
    ------
    Sorry
        If one cannot be loaded, or two packages use one name: leaving it out silently would change results.
    """
    plugins: dict[str, Plugin] = {}
    for plugin in find_plugins(group):
        other = plugins.setdefault(plugin.name, plugin)
        if other is not plugin:
            raise Sorry(
                f"Two plug-ins of the group {group} have the name {plugin.name}: {other.value} and {plugin.value}. "
                "Uninstall one of them."
            )
        if plugin.error is not None:
            raise Sorry(
                f"The plug-in {plugin.name} = {plugin.value} of the group {group} cannot be loaded "
                f"({type(plugin.error).__name__}: {plugin.error}). Mend or uninstall the package that brings it."
            ) from plugin.error
    return {name: plugin.loaded for name, plugin in plugins.items()}


def plugin_classes(
    group: str, base: type[Base], built_in: Sequence[type[Base]], kind: str, check: Callable[[str, type[Base]], None]
) -> dict[str, type[Base]]:
    """Classes by their attribute ``name``: the built-in ones, then plug-ins in alphabetical order.

    Parameters
    ----------
    group : str
        Of entry points.
    base : type
        What all are derived from.
    built_in : sequence of type
    kind : str
        What such a class is called in messages.
    check : callable
        Raises Sorry if a plug-in, described by its first argument, lacks something.

    Raises
    ------
    Sorry
        Besides, if one cannot be loaded, is not derived from ``base``, or takes another's name.
    """
    classes = {known.name: known for known in built_in}
    for entry, plugin in load_plugins(group).items():
        which = f"The plug-in {entry} of the group {group}"
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise Sorry(f"{which} is not a {base.__name__}.")
        check(which, plugin)
        if classes.setdefault(plugin.name, plugin) is not plugin:
            raise Sorry(f"{which}: there is a {kind} {plugin.name} already.")
    return classes


def _load(entry: EntryPoint) -> Plugin:
    package = ("unknown", "") if entry.dist is None else (entry.dist.metadata["Name"], entry.dist.version)
    try:
        return Plugin(entry.name, entry.value, *package, loaded=entry.load())
    except Exception as error:  # a plug-in may fail in any way
        return Plugin(entry.name, entry.value, *package, error=error)
