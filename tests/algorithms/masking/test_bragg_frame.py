from __future__ import annotations

import numpy as np
from dials.array_family import flex
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.masking.mask_file import read_mask
from dials_diffuse.command_line.diffuse_mask import run


def test_mask_of_one_image_follows_its_peaks(snase):
    """The strong spots of image 5 are masked on it, and not one of them on all images."""
    run(["refined.expt", "refined.refl", "untrusted.circle=531,494,30", "bragg_frame=5", "nproc=1"])
    detector = ExperimentList.from_file("refined.expt", check_format=False)[0].detector
    (pixels,), (bragg,) = read_mask("pixels.mask", detector), read_mask("bragg.mask", detector)
    assert not (bragg & ~pixels).any()
    assert 0.05 < 1 - bragg.sum() / pixels.sum() < 0.2
    spots = flex.reflection_table.from_file("refined.refl")
    spots = spots.select(spots.get_flags(spots.flags.used_in_refinement))
    x, y, z = (flumpy.to_numpy(part) for part in spots["xyzobs.px.value"].parts())
    strong = np.abs(z - 4.5) < 0.1
    strong &= flumpy.to_numpy(spots["intensity.sum.value"]) > np.median(spots["intensity.sum.value"])
    x, y = x[strong].astype(int), y[strong].astype(int)
    assert len(x) > 20
    assert (~bragg[y, x]).mean() > 0.95
    assert pixels[y, x].mean() > 0.95
