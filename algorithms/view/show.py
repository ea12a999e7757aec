"""Map in, page and picture out."""

from __future__ import annotations

import logging
import os
import sys
import webbrowser
from pathlib import Path

import libtbx
import libtbx.phil
from dials.util import Sorry

from dials_diffuse.algorithms.view.packed_map import PackedMap, pack
from dials_diffuse.algorithms.view.page import pack_arrays, page
from dials_diffuse.algorithms.view.picture import write_picture
from dials_diffuse.algorithms.view.view import View
from dials_diffuse.map_file import DiffuseMap, read_map
from dials_diffuse.output import whole_files

logger = logging.getLogger("dials.diffuse.view")

#: Of the page, apart from the map.
PAGE_SIZE = 150_000


def show_map(filename: str, params: libtbx.phil.scope_extract) -> list[str]:
    """Write the page and the picture of a map.

    Parameters
    ----------
    filename : str
        Of the map.
    params : libtbx.phil.scope_extract
        Of ``dials.diffuse_view``.

    Returns
    -------
    list of str
        Names of what was written.

    Raises
    ------
    Sorry
        If there is nothing to show, or the parameters do not fit the map.
    """
    name = Path(filename)
    html, png = params.output.html, params.output.png
    if html is libtbx.Auto:
        html = f"{name.stem}.html"
    if html is None and png is None:
        raise Sorry("Nothing is to be written: give output.html, output.png or both.")
    diffuse_map = read_map(filename, (params.field, f"{params.field}_errors", "filled"))
    packed = pack(diffuse_map, params.field)
    logger.info("The map: %s\n%d of its operations are used.", diffuse_map.grid, len(packed.rotations))
    view = View.from_params(packed, diffuse_map.units, params, name.name)
    texts = {} if html is None else {html: _small_page(view, diffuse_map, params)}
    names = [output for output in (html, png) if output is not None]
    with whole_files(*names) as parts:
        for output, part in zip(names, parts):
            if output in texts:
                part.write_text(texts[output], encoding="utf-8")
            else:
                write_picture(view, part, params.width)
    if html is not None and params.browser and has_display():
        webbrowser.open(Path(html).resolve().as_uri())
    return names


def _small_page(view: View, diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> str:
    """The page; with fewer voxels if it would be too large with all."""
    packed: PackedMap = view.packed
    note = ""
    for coarse in range(1, 10):
        arrays = pack_arrays(packed)
        size = sum(map(len, arrays.values())) + PAGE_SIZE
        logger.info("Page: %.1f MB, %d x %d x %d voxels", size / 1e6, *packed.codes.shape)
        if size <= params.max_size * 1e6 or min(packed.codes.shape) < 8:
            break
        packed = pack(diffuse_map, params.field, coarse)
        note = f"Of the map's voxels every {2**coarse}th along each axis is shown, averaged over its neighbours."
        logger.info("That is above max_size=%g MB. %s", params.max_size, note)
    if note:
        view = View.from_params(packed, diffuse_map.units, params, view.title)
    return page(view, arrays, Path(view.title).stem, note)


def has_display() -> bool:
    """Whether a browser could show something; a browser of the terminal does not count."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
