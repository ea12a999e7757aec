"""Colours of intensities: linear, logarithmic or by rank, between limits.

``dials_diffuse/templates/view.html`` does the same in JavaScript, with the same tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dials.util import Sorry

#: Matplotlib's colour maps of even steps to the eye, and those with a middle.
SEQUENTIAL = ("viridis", "inferno", "magma", "cividis", "Greys")
DIVERGING = ("RdBu_r", "coolwarm", "PuOr_r")
COLOURS = 256
#: Stripes where nothing was measured, and the ground between them: red, green, blue.
NOT_MEASURED = ((194, 211, 196), (221, 232, 222))


@dataclass
class ColourScale:
    """From intensities to colours.

    Attributes
    ----------
    name : str
        ``linear``, ``log`` or ``percentile``.
    colour_map : str
        Of :data:`SEQUENTIAL` or :data:`DIVERGING`; the middle of the latter is at zero, if that is within the limits.
    low, high : float
        Intensities that get the first and the last colour.
    values, ranks : ndarray, shape (n,)
        Intensities, increasing, and which share of the map's voxels is below each, 0 to 1.
    """

    name: str
    colour_map: str
    low: float
    high: float
    values: np.ndarray
    ranks: np.ndarray

    @classmethod
    def make(
        cls,
        name: str,
        colour_map: str | None,
        limits: tuple[float, float] | None,
        values: np.ndarray,
        codes: np.ndarray,
    ) -> ColourScale:
        """With a colour map and limits that fit the map where they are None.

        Parameters
        ----------
        values : ndarray, shape (n,)
            Intensity of each code, NaN for code 0, which is no value.
        codes : ndarray, uint16
            Of the voxels.

        Raises
        ------
        Sorry
            If the limits do not fit the scale.
        """
        count = np.bincount(codes.ravel(), minlength=len(values))[1:]
        values = values[1:]
        ranks = (np.cumsum(count) - count / 2) / count.sum()
        low, high = np.interp([0.05, 0.95], ranks, values)
        if colour_map is None:
            colour_map = DIVERGING[0] if low < -0.25 * abs(high) else SEQUENTIAL[0]
        scale = cls(name, colour_map, *(limits or (0.0, 1.0)), values, ranks)
        if limits is None:
            scale.low, scale.high = scale.fitting_limits()
        if not scale.low < scale.high or (name == "log" and scale.low <= 0):
            raise Sorry(
                f"colour.limits={scale.low:g},{scale.high:g} do not fit colour.scale={name}: the second must be larger "
                "than the first" + ", which must be above 0." * (name == "log") + "." * (name != "log")
            )
        return scale

    def fitting_limits(self) -> tuple[float, float]:
        """Limits that show most of the map: 1 % of the voxels are below, 1 % above them."""
        low, high = np.interp([0.01, 0.99], self.ranks, self.values)
        if self.name == "percentile":
            low, high = self.values[0], self.values[-1]
        elif self.name == "log":
            high = high if high > 0 else 1.0
            low = low if low > high / 1e4 else high / 1e3
        elif self.colour_map in DIVERGING:
            high = max(abs(low), abs(high))
            low = -high
        return float(low), float(high if high > low else low + (abs(low) or 1.0))

    def fraction(self, intensity: np.ndarray) -> np.ndarray:
        """Places in the colour map, 0 to 1; NaN stays."""
        low, high, place = (self._plain(np.asarray(x, dtype=float)) for x in (self.low, self.high, intensity))
        with np.errstate(divide="ignore", invalid="ignore"):
            place = (place - low) / (high - low)
            if self.colour_map in DIVERGING and self.low < 0 < self.high:
                zero = (self._plain(np.zeros(())) - low) / (high - low)
                place = np.where(place < zero, 0.5 * place / zero, 0.5 + 0.5 * (place - zero) / (1 - zero))
        return np.clip(place, 0, 1)

    def _plain(self, intensity: np.ndarray) -> np.ndarray:
        """On the scale, without limits."""
        if self.name == "log":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(intensity > 0, np.log(intensity), np.where(np.isnan(intensity), np.nan, -np.inf))
        if self.name == "percentile":
            return np.where(np.isnan(intensity), np.nan, np.interp(intensity, self.values, self.ranks))
        return intensity

    def colours(self, intensity: np.ndarray) -> np.ndarray:
        """Red, green, blue, shape (..., 3), uint8; of the first colour where there is no intensity."""
        place = np.nan_to_num(self.fraction(intensity))
        return colour_table(self.colour_map)[np.minimum((place * COLOURS).astype(int), COLOURS - 1)]

    def ticks(self) -> np.ndarray:
        """Intensities to write at the colour bar."""
        if self.name == "percentile":
            places = self.fraction(self.values)
            inside = (self.values >= self.low) & (self.values <= self.high)
            return np.interp(np.linspace(0, 1, 6), places[inside], self.values[inside])
        if self.name == "log":
            decades = 10.0 ** np.arange(np.floor(np.log10(self.low)), np.log10(self.high) + 1)
            within = self.high / self.low
            ticks = np.outer(decades, (1, 2, 5) if within < 1e3 else (1,)).ravel()
            return ticks[(ticks >= self.low * 0.999) & (ticks <= self.high * 1.001)]
        return nice_numbers(self.low, self.high, 6)


def colour_table(name: str) -> np.ndarray:
    """Red, green, blue of one of matplotlib's colour maps, shape (256, 3), uint8."""
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(COLOURS), bytes=True)[:, :3]).astype(np.uint8)


def nice_numbers(low: float, high: float, count: int) -> np.ndarray:
    """About so many multiples of 1, 2 or 5 times a power of ten between two numbers."""
    rough = (high - low) / count
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= 0.7 * rough)
    return np.arange(np.ceil(low / step - 1e-6), np.floor(high / step + 1e-6) + 1) * step
