"""Classes that other packages add by Python entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

from dials.util import Sorry


def load_plugins(group: str) -> dict[str, object]:
    """Everything that installed packages offer in a group of entry points.

    Parameters
    ----------
    group : str
        Name of the group, e.g. ``dials_diffuse.correction``.

    Returns
    -------
    dict of str to object
        What each entry point refers to, by its name, in alphabetical order.

    Raises
    ------
    Sorry
        If one cannot be loaded, or two packages use one name: leaving it out silently would change results.
    """
    loaded: dict[str, object] = {}
    origins: dict[str, str] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        if origins.get(entry.name) == entry.value:
            continue  # one package found twice on sys.path
        if entry.name in origins:
            raise Sorry(
                f"Two plug-ins of the group {group} have the name {entry.name}: {origins[entry.name]} and "
                f"{entry.value}. Uninstall one of them."
            )
        origins[entry.name] = entry.value
        try:
            loaded[entry.name] = entry.load()
        except Exception as error:  # a plug-in may fail in any way
            raise Sorry(
                f"The plug-in {entry.name} = {entry.value} of the group {group} cannot be loaded "
                f"({type(error).__name__}: {error}). Mend or uninstall the package that brings it."
            ) from error
    return loaded
