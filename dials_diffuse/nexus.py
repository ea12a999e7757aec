"""Groups and fields of NeXus files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


def new_group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """Make a group of a NeXus class, with further attributes."""
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group


def write_quantity(group: h5py.Group, name: str, value: Any, units: str) -> None:
    """Write a field that has units."""
    group[name] = value
    group[name].attrs["units"] = units
