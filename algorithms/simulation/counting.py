"""From photons to what a file stores: gain, pedestal, integer type, the largest count."""

from __future__ import annotations

import libtbx.phil
import numpy as np
from dials.util import Sorry

#: Largest count a Pilatus is trusted to report.
COUNT_CUTOFF = 1048500
#: Integer types that a format can store, the usual one first.
DATA_TYPES = {"cbf": ("int32",), "smv": ("uint16",), "nxmx": ("int32", "uint32", "int16", "uint16")}


def data_type(params: libtbx.phil.scope_extract) -> np.dtype:
    """Type of the images' integers.

    Raises
    ------
    Sorry
        If the format cannot store the type asked for.
    """
    possible, name = DATA_TYPES[params.format.split(".")[0]], params.detector.data_type
    if name != "auto" and name not in possible:
        raise Sorry(f"format={params.format} stores {' or '.join(possible)}, not detector.data_type={name}.")
    return np.dtype(possible[0] if name == "auto" else name)


def gap_value(params: libtbx.phil.scope_extract) -> int:
    """What pixels without sensor read in dxtbx: -1, which unsigned types store as their largest value; 0 of a CCD."""
    return 0 if params.format == "smv" else -1


def largest_value(params: libtbx.phil.scope_extract) -> int:
    """Where counts are cut off. The two largest values of unsigned types are marks (FormatNXmx.get_raw_data)."""
    if params.format == "smv":
        return 65535
    return min(COUNT_CUTOFF, np.iinfo(data_type(params)).max - 2)


def to_adu(photons: np.ndarray, params: libtbx.phil.scope_extract) -> np.ndarray:
    """ADU = photons gain + pedestal, rounded and cut off; int32, whatever a file makes of it.

    Parameters
    ----------
    photons : ndarray of int
    params : libtbx.phil.scope_extract
        Of the simulation.
    """
    adu = photons * params.detector.gain + params.detector.pedestal
    return np.minimum(np.rint(adu), largest_value(params)).astype(np.int32)
