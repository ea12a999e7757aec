"""A plane of a map as a picture, by matplotlib: what the page shows, in the same colours and places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dials_diffuse.algorithms.view.colours import NOT_MEASURED, colour_table, nice_numbers
from dials_diffuse.algorithms.view.view import View

#: Sizes in points, on a picture 1020 points wide: the page's, in its pixels.
SIDE, LEFT, RIGHT, TOP, BOTTOM = 800, 70, 150, 56, 54
#: Of the drawing beyond the map.
MARGIN = 1.05
POINTS_PER_INCH = 72


def write_picture(view: View, filename: Path, width: int) -> None:
    """Write a PNG file, ``width`` pixels wide."""
    from matplotlib.figure import Figure

    size = LEFT + SIDE + RIGHT, BOTTOM + SIDE + TOP
    scale = width / size[0]
    figure = Figure(figsize=[n / POINTS_PER_INCH for n in size], dpi=POINTS_PER_INCH * scale)
    figure.text(LEFT / size[0], 1 - 18 / size[1], view.plane.labels()[2], fontsize=17, va="center")
    figure.text(LEFT / size[0], 1 - 40 / size[1], view.title, fontsize=13, va="center", color="#777777")
    axes = figure.add_axes([LEFT / size[0], BOTTOM / size[1], SIDE / size[0], SIDE / size[1]])
    half = MARGIN * view.packed.reach
    pixels = plane_colours(view, round(SIDE * scale))
    axes.imshow(pixels, extent=(-half, half, -half, half), interpolation="nearest")
    axes.autoscale(False)
    _draw_axes(axes, view)
    _draw_rings(axes, view)
    if view.lattice:
        _draw_bragg_points(axes, view)
    bar = figure.add_axes([(LEFT + SIDE + 20) / size[0], (BOTTOM + 44) / size[1], 18 / size[0], (SIDE - 44) / size[1]])
    _draw_colour_bar(bar, view)
    key = figure.add_axes([(LEFT + SIDE + 20) / size[0], BOTTOM / size[1], 16 / size[0], 16 / size[1]])
    key.imshow(stripes(round(16 * scale)), interpolation="nearest", extent=(0, 1, 0, 1))
    key.set(xticks=[], yticks=[])
    key.text(1.4, 0.45, "not measured", fontsize=13, va="center")
    figure.savefig(filename, format="png")


def plane_colours(view: View, side: int) -> np.ndarray:
    """Red, green, blue of the pixels of the square of the plane, from the top, shape (side, side, 3), uint8."""
    packed, plane = view.packed, view.plane
    origin, right, up = plane.frame(packed.orthogonal)
    place = MARGIN * packed.reach * (2 * (np.arange(side) + 0.5) / side - 1)
    x, y = place[None, :, None], -place[:, None, None]
    codes = packed.at(origin + x * right + y * up)
    colours = view.scale.colours(packed.values)[codes]
    colours[codes == 0] = stripes(side)[codes == 0]
    squared = place[:, None] ** 2 + place**2 + ((origin @ packed.orthogonal) ** 2).sum()
    colours[squared > packed.reach**2] = 255
    return colours


def stripes(side: int) -> np.ndarray:
    """What is shown where nothing was measured, shape (side, side, 3), uint8."""
    number = np.arange(side)
    return np.where(((number[:, None] + number) % 8 < 3)[..., None], *np.array(NOT_MEASURED, np.uint8))


def _draw_axes(axes: Any, view: View) -> None:
    """The lines on which one of the coordinates is 0, ticks in r.l.u. along the lines of constant coordinate, names."""
    plane, orthogonal = view.plane, view.packed.orthogonal
    half = MARGIN * view.packed.reach
    (zero_x, zero_y), *ends = plane.draw(plane.label_origin + np.array([(0, 0, 0), *plane.vectors]), orthogonal)
    (a, _), (b, c) = (end - (zero_x, zero_y) for end in ends)
    for x, y in ((a, 0), (b, c)):
        for colour, offset in (("white", 0), ("black", 5)):
            far = 4 * half / np.hypot(x, y)
            axes.plot(
                [zero_x - far * x, zero_x + far * x],
                [zero_y - far * y, zero_y + far * y],
                color=colour,
                alpha=0.5,
                linewidth=1,
                linestyle=(offset, (6, 4)),
            )
    offset = zero_x + (-half - zero_y) / c * b  # where the first coordinate is 0 at the bottom
    numbers = nice_numbers((-half - offset) / a, (half - offset) / a, 8)
    tick = 7 * 2 * half / SIDE / np.hypot(b, c)
    for x in offset + numbers * a:
        axes.plot([x, x - tick * b], [-half, -half - tick * c], color="#333333", linewidth=1, clip_on=False)
    axes.set_xticks(offset + numbers * a - tick * b, [_short(n) for n in numbers])
    axes.tick_params(axis="x", length=0, pad=9, labelsize=13)
    numbers = nice_numbers((-half - zero_y) / c, (half - zero_y) / c, 8)
    axes.set_yticks(zero_y + numbers * c, [_short(n) for n in numbers])
    axes.tick_params(axis="y", length=7, labelsize=13)
    right, up, _ = plane.labels()
    axes.set_xlabel(f"{right} (r.l.u.)", fontsize=13)
    axes.set_ylabel(f"{up} (r.l.u.)", fontsize=13)
    axes.set(xlim=(-half, half), ylim=(-half, half))


def _draw_rings(axes: Any, view: View) -> None:
    from matplotlib.patches import Circle

    effects = _outline(3)
    origin = view.plane.frame(view.packed.orthogonal)[0] @ view.packed.orthogonal
    for d in view.rings:
        squared = 1 / d**2 - origin @ origin
        if squared <= 0:
            continue
        radius = np.sqrt(squared)
        axes.add_patch(Circle((0, 0), radius, fill=False, color="#222222", linewidth=1, path_effects=effects))
        place = radius / np.sqrt(2)
        axes.text(
            place, place, f"{d:g} Å", fontsize=12, ha="center", va="center", clip_on=True, path_effects=_outline(3)
        )


def _draw_bragg_points(axes: Any, view: View) -> None:
    points = view.bragg_points()
    if not len(points):
        return
    x, y = view.plane.draw(points, view.packed.orthogonal).T
    apart = min(np.linalg.norm(np.array(view.plane.vectors) @ view.packed.orthogonal, axis=1))
    radius = np.clip(SIDE / (2 * MARGIN * view.packed.reach) * apart / 10, 1, 4)
    axes.scatter(x, y, s=(2 * radius) ** 2, color="#e0218a", edgecolors="white", linewidths=0.5)


def _draw_colour_bar(bar: Any, view: View) -> None:
    scale = view.scale
    table = colour_table(scale.colour_map)
    bar.imshow(table[::-1, None], aspect="auto", extent=(0, 1, 0, 1), interpolation="nearest")
    ticks = scale.ticks()
    factor, power = common_factor(max(abs(scale.low), abs(scale.high)))
    bar.set_xticks([])
    bar.set_yticks(scale.fraction(ticks), [_short(tick / factor) for tick in ticks])
    bar.yaxis.tick_right()
    bar.tick_params(length=5, labelsize=13)
    units = " ".join(filter(None, (power, view.units)))
    label = f"{view.quantity} ({units})" if units else view.quantity
    bar.text(1 + 76 / 18, 0.5, label, rotation=90, fontsize=13, ha="center", va="center")


def common_factor(largest: float) -> tuple[float, str]:
    """A power of ten, a multiple of 3, in which to write numbers; and in words."""
    power = 3 * int(np.floor(np.log10(largest or 1) / 3))
    if -3 <= power <= 3:
        return 1.0, ""
    return 10.0**power, "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _short(number: float) -> str:
    return np.format_float_positional(number + 0.0, precision=4, fractional=False, trim="-")


def _outline(width: float) -> list:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground=(1, 1, 1, 0.6))]
