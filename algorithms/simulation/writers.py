"""Images in the format asked for, with headers that are a little wrong, as at a beamline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from dials.util import Sorry

from dials_diffuse.algorithms.simulation import instrument
from dials_diffuse.algorithms.simulation.cbf import Header
from dials_diffuse.algorithms.simulation.cbf import write_image as write_cbf
from dials_diffuse.algorithms.simulation.counting import data_type
from dials_diffuse.algorithms.simulation.models import make_scan
from dials_diffuse.algorithms.simulation.terms import Sweep
from dials_diffuse.algorithms.simulation.truth import Truth

#: What stands for the background images where images are numbered by sweep.
BACKGROUND = -1
#: Of the formats with a file an image.
ENDINGS = {"cbf": ".cbf", "cbf.gz": ".cbf.gz", "cbf.bz2": ".cbf.bz2", "smv": ".img"}


def check_format(truth: Truth) -> None:
    """
    Raises
    ------
    Sorry
        If the format cannot hold such images.
    """
    params = truth.params
    data_type(params)
    if params.format != "nxmx" and len(truth.detector) > 1:
        model = params.detector.model
        raise Sorry(f"format={params.format} knows one flat panel only: detector.model={model} needs format=nxmx.")
    if params.format == "smv" and params.stills:
        raise Sorry("format=smv holds images of a rotation only: use another format for stills.")


def series(truth: Truth, sweep: int) -> Sweep:
    """The images of a sweep, or of the background."""
    return truth.background_sweep if sweep == BACKGROUND else truth.sweeps[sweep]


def make_header(truth: Truth, sweep: int) -> Header:
    """What the headers of a sweep say: the truth, but for the errors asked for."""
    params, this = truth.params, series(truth, sweep)
    distance, centre = _distance_and_centre(truth)
    return Header(
        model=params.detector.model,
        wavelength=params.beam.wavelength,
        distance=distance,
        beam_centre=centre,
        thickness=params.detector.thickness,
        exposure=this.exposure,
        start=this.start,
        width=this.width,
        polarisation_fraction=params.beam.polarisation_fraction,
    )


def _distance_and_centre(truth: Truth) -> tuple[float, tuple[float, float]]:
    """Distance in mm and beam centre in pixels of a flat detector, with errors."""
    params, header = truth.params, truth.params.header
    x, y = instrument.beam_centre(params.detector)
    dx, dy = header.beam_centre_error
    distance = params.detector.distance + header.perturb * header.distance_error
    return distance, (x + header.perturb * dx, y + header.perturb * dy)


def write_image(truth: Truth, sweep: int, number: int, panels: tuple[np.ndarray, ...], filename: Path) -> None:
    """Write one image of a flat detector.

    Parameters
    ----------
    truth : Truth
        The experiment.
    sweep : int
        From 0, or :data:`BACKGROUND`.
    number : int
        Of the image in it, from 0.
    panels : tuple of ndarray, shape (slow, fast)
        Stored values; one panel.
    filename : Path
        Where to.
    """
    (counts,) = panels
    if truth.params.format != "smv":
        write_cbf(counts, make_header(truth, sweep), number, filename)
        return
    from dials_diffuse.algorithms.simulation.smv import write_smv

    this, detector = series(truth, sweep), truth.params.detector
    distance, centre = _distance_and_centre(truth)
    write_smv(
        filename,
        counts,
        beam=truth.beam,
        panel=truth.detector[0],
        distance=distance,
        beam_centre_px=centre,
        exposure=this.exposure,
        start=this.start + number * this.width,
        width=this.width,
        gain=detector.gain,
        pedestal=detector.pedestal,
        image_number=number + 1,
    )


def write_stack(truth: Truth, sweep: int, images: Iterable[tuple[np.ndarray, ...]], filename: Path) -> None:
    """Write all images of a sweep, or of the background, to one HDF5 file; arguments as of :func:`write_image`."""
    from dials_diffuse.algorithms.simulation.nxmx import NXmxWriter

    beam, detector = instrument.header_models(truth.params)
    this = series(truth, sweep)
    with NXmxWriter(
        filename,
        beam=beam,
        detector=detector,
        goniometer=truth.goniometer,
        scan=make_scan(this) if this.width else None,
        exposure=this.exposure,
        dtype=data_type(truth.params).name,
    ) as writer:
        for number, panels in enumerate(images):
            writer.write(number, panels)
