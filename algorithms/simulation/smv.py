"""Images as a CCD of ADSC writes them: SMV, unsigned 16 bits."""

from __future__ import annotations

import calendar
import os
import time

import numpy as np
from dxtbx.model import Beam, Panel

from dials_diffuse.output import whole_files

HEADER_BYTES = 1024
#: When the first image was taken, in seconds since 1970.
FIRST = calendar.timegm((2026, 1, 1, 0, 0, 0))


def write_smv(
    filename: str | os.PathLike,
    counts: np.ndarray,
    *,
    beam: Beam,
    panel: Panel,
    distance: float,
    beam_centre_px: tuple[float, float],
    exposure: float,
    start: float,
    width: float,
    gain: float,
    pedestal: float,
    image_number: int,
) -> None:
    """Write one image, whole or not at all.

    dxtbx reads it with FormatSMVADSC: gain and pedestal come from the header; a detector that faces the beam, a spindle
    along +x and a beam along -z are taken for granted. The trusted range is from 1 to 65534 in newer versions, up to
    65534 - pedestal in 3.12: with a pedestal of some ADU no measurement is lost.

    Parameters
    ----------
    filename : path
        Where to.
    counts : ndarray, shape (slow, fast)
        Raw values in ADU, gain and pedestal in them already; cut to 0 .. 65535, as a converter of 16 bits does.
    beam, panel : dxtbx.model.Beam, dxtbx.model.Panel
        Of which the header tells the wavelength and the pixel size.
    distance : float
        In mm.
    beam_centre_px : tuple of 2 float
        Along fast and slow, in pixels.
    exposure : float
        In seconds.
    start, width : float
        First angle and rotation of this image, in degrees; width > 0.
    gain : float
        ADU a photon.
    pedestal : float
        ADU of a pixel without photons.
    image_number : int
        From 1; decides the date.
    """
    pixel = panel.get_pixel_size()[0]
    slow, fast = counts.shape
    entries = {
        "HEADER_BYTES": f"{HEADER_BYTES:5d}",
        "DIM": "2",
        "BYTE_ORDER": "little_endian",
        "TYPE": "unsigned_short",
        "SIZE1": fast,
        "SIZE2": slow,
        "PIXEL_SIZE": f"{pixel:.6f}",
        "BIN": "none",
        "BEAMLINE": "simulated",
        "DATE": time.asctime(time.gmtime(FIRST + int((image_number - 1) * exposure))),
        "TIME": f"{exposure:.6f}",
        "DISTANCE": f"{distance:.6f}",
        "WAVELENGTH": f"{beam.get_wavelength():.8f}",
        "PHI": f"{start:.6f}",
        "OSC_START": f"{start:.6f}",
        "OSC_RANGE": f"{width:.6f}",
        "BEAM_CENTER_X": f"{beam_centre_px[1] * pixel:.6f}",  # along slow (dxtbx/format/FormatSMVADSC.py, _detector)
        "BEAM_CENTER_Y": f"{beam_centre_px[0] * pixel:.6f}",
        "IMAGE_PEDESTAL": f"{pedestal:g}",
        "GAIN": f"{gain:g}",
    }
    text = "{\n" + "".join(f"{name}={value};\n" for name, value in entries.items()) + "}\n\f"
    with whole_files(filename) as (part,), open(part, "wb") as handle:
        handle.write(text.encode("ascii").ljust(HEADER_BYTES))
        handle.write(np.clip(counts, 0, 65535).astype("<u2").tobytes())
