"""Static pixel masks, and masks of the Bragg peaks as they move through the sweep."""

from __future__ import annotations

from dials_diffuse.program import finish, handled_errors, start

help_message = """
Make the pixel mask of each sweep: from the detector model, the format's own mask, shapes and resolution ranges (as in
dials.generate_mask), the seams between readout chips, optionally the shadow of the beam stop, and pixels that are hot,
dead or untrusted over a sample of frames. The masks of the Bragg peaks are measured too and described in the log;
bragg_frame=N writes the mask of one image, to look at.

Examples::

  dials.diffuse_mask refined.expt refined.refl

  dials.diffuse_mask refined.expt refined.refl untrusted.circle=531,494,30

  dials.diffuse_mask refined.expt beam_stop.find=True bragg_mask.mode=none

  dials.image_viewer refined.expt mask=pixels.mask
"""

phil = """
include scope dials_diffuse.phil_scope.mask.phil_scope
include scope dials_diffuse.phil_scope.mp.local_scope
bragg_frame = None
  .type = int(value_min=1)
  .help = "Number of an image (of stills: of the experiment, from 1): its mask with the Bragg peaks is written as well,"
          "to look at in dials.image_viewer."
output {
  mask = pixels.mask
    .type = path
    .help = "The pixel mask. Several sweeps: their numbers are put before the ending."
  bragg_mask = bragg.mask
    .type = path
    .help = "The mask of the image bragg_frame, with the Bragg peaks."
  log = dials.diffuse_mask.log
    .type = path
    .help = "The log."
}
"""


def __getattr__(name: str):
    if name != "phil_scope":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from iotbx.phil import parse

    return parse(phil, process_includes=True)  # when asked for, because a broken plug-in raises Sorry


def run(args: list[str] | None = None) -> None:
    """Run the program."""
    with handled_errors():
        from iotbx.phil import parse

        scope = parse(phil, process_includes=True)  # here because a broken plug-in raises Sorry
        session = start("dials.diffuse_mask", help_message, scope, args)
        if session is None:
            return
        from dials_diffuse.algorithms.masking.masks import bragg_frame_masks, make_masks, name_masks, write_masks
        from dials_diffuse.dataset import models_and_reflections

        params = session.params
        experiments, reflections = models_and_reflections(session)
        masks = make_masks(experiments, reflections, params)
        named = name_masks([mask.pixels for mask in masks], params.output.mask)
        if params.bragg_frame is not None:
            named |= name_masks(bragg_frame_masks(masks, params.bragg_frame), params.output.bragg_mask)
        write_masks(named)
        finish(*named)


if __name__ == "__main__":
    run()
