"""Images as a Pilatus writes them: miniCBF, byte-offset compression."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cctbx import factor_ev_angstrom
from dxtbx import flumpy
from dxtbx.ext import compress

from dials_diffuse.algorithms.simulation.counting import COUNT_CUTOFF
from dials_diffuse.algorithms.simulation.instrument import PIXEL_SIZE
from dials_diffuse.output import whole_files

#: Marks the start of the binary data (CBFlib manual, section 3.2.2).
BINARY_MARK = b"\x0c\x1a\x04\xd5"


@dataclass(frozen=True)
class Header:
    """What the headers of a series of images say.

    Attributes
    ----------
    model : str
        Of the Pilatus, ``custom`` for a detector that is none.
    wavelength : float
        In Angstrom.
    distance : float
        Along the detector's normal, in mm.
    beam_centre : tuple of 2 float
        In pixels.
    thickness : float
        Of the silicon sensor in mm, 0 for none.
    exposure : float
        In seconds.
    start, width : float
        First angle of the series and rotation of an image, in degrees.
    polarisation_fraction : float
        For the record; dxtbx does not read it.
    """

    model: str
    wavelength: float
    distance: float
    beam_centre: tuple[float, float]
    thickness: float
    exposure: float
    start: float
    width: float
    polarisation_fraction: float

    def text(self, image: int) -> str:
        """The header of an image, counted from 0."""
        pilatus = self.model != "custom"
        angle = self.start + image * self.width
        lines = [
            f"Detector: {f'PILATUS {self.model}, S/N 60-9999' if pilatus else 'GENERIC, S/N 0'}, simulated",
            "2026-01-01T00:00:00.000",
            f"Pixel_size {PIXEL_SIZE:g}e-3 m x {PIXEL_SIZE:g}e-3 m",
            f"Silicon sensor, thickness {self.thickness / 1000:.6f} m" if self.thickness else "",
            f"Exposure_time {self.exposure:.7f} s",
            f"Exposure_period {self.exposure:.7f} s",
            "Tau = 0 s",
            f"Count_cutoff {COUNT_CUTOFF} counts",
            f"Threshold_setting: {factor_ev_angstrom / self.wavelength / 2:.0f} eV",
            f"Wavelength {self.wavelength:.6f} A",
            f"Detector_distance {self.distance / 1000:.7f} m",
            "Beam_xy ({:.4f}, {:.4f}) pixels".format(*self.beam_centre),
            "Filter_transmission 1.0000",
            f"Start_angle {angle:.6f} deg.",
            f"Angle_increment {self.width:.6f} deg.",
            f"Polarization {self.polarisation_fraction:.4f}",
            "Detector_2theta 0.0000 deg.",
            f"Phi {angle:.6f} deg.",
            f"Phi_increment {self.width:.6f} deg.",
        ]
        return "\r\n".join(f"# {line}" for line in lines if line)

    @property
    def convention(self) -> str:
        """By which dxtbx chooses the format: GENERIC_MINI is any pixel array without modules."""
        return "PILATUS_1.2" if self.model != "custom" else "GENERIC_MINI"


def write_image(counts: np.ndarray, header: Header, image: int, filename: Path) -> None:
    """Write one image, whole or not at all.

    Parameters
    ----------
    counts : ndarray of int32, shape (slow, fast)
        Photons.
    header : Header
        Of the series.
    image : int
        Number of the image in the series, from 0.
    filename : Path
        Where to; ending in ``.gz`` or ``.bz2``, it is compressed.
    """
    packed = compress(flumpy.from_numpy(counts))
    slow, fast = counts.shape
    text = "\r\n".join(
        [
            "###CBF: VERSION 1.5, CBFlib v0.7.8 - PILATUS detectors",
            "",
            f"data_{os.path.basename(filename).split('.')[0]}",
            "",
            f'_array_data.header_convention "{header.convention}"',
            "_array_data.header_contents",
            ";",
            header.text(image),
            ";",
            "",
            "_array_data.data",
            ";",
            "--CIF-BINARY-FORMAT-SECTION--",
            "Content-Type: application/octet-stream;",
            '     conversions="x-CBF_BYTE_OFFSET"',
            "Content-Transfer-Encoding: BINARY",
            f"X-Binary-Size: {len(packed)}",
            "X-Binary-ID: 1",
            'X-Binary-Element-Type: "signed 32-bit integer"',
            "X-Binary-Element-Byte-Order: LITTLE_ENDIAN",
            f"Content-MD5: {base64.b64encode(hashlib.md5(packed).digest()).decode()}",
            f"X-Binary-Number-of-Elements: {counts.size}",
            f"X-Binary-Size-Fastest-Dimension: {fast}",
            f"X-Binary-Size-Second-Dimension: {slow}",
            "X-Binary-Size-Padding: 4095",
            "",
            "",
        ]
    )
    content = text.encode("ascii") + BINARY_MARK + packed + b"\0" * 4095
    content += b"\r\n--CIF-BINARY-FORMAT-SECTION----\r\n;\r\n\r\n"
    if filename.suffix == ".gz":
        content = gzip.compress(content, compresslevel=4, mtime=0)
    elif filename.suffix == ".bz2":
        content = bz2.compress(content)
    with whole_files(filename) as (part,):
        part.write_bytes(content)
