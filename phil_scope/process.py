"""From images to a map: what goes to DIALS's programs, which steps are done, and what is checked on the way."""

from __future__ import annotations

from iotbx.phil import parse

#: DIALS's programs that take a PHIL file, or parameters as dials.<program>.<name>=<value>.
DIALS_PROGRAMS = ("import", "find_spots", "index", "refine", "integrate", "reindex", "stills_process")

phil_scope = parse(
    """
template = None
  .type = path
  .multiple = True
  .help = "Images by a template, such as ../images/sweep_1_####.cbf: a sweep by itself, whatever the headers say."
unit_cell = None
  .type = unit_cell
  .help = "For dials.index. Found if not given."
space_group = None
  .type = space_group
  .help = "For dials.index, and so for the map. P1 if not given."
integration = True
  .type = bool
  .help = "Integrate the Bragg reflections: tells the mosaicity, and serves to bring all sweeps into one setting. A"
          "single sweep can do without."
state = *auto imported indexed refined integrated
  .type = choice
  .help = "How far the .expt and .refl files given are processed. auto: seen from what they hold."
check {
  indexed = 0.5
    .type = float(value_min=0, value_max=1)
    .help = "Warn where a smaller share of the spots is indexed."
  rmsd = 3
    .type = float(value_min=0)
    .help = "Leave a sweep out if the RMSD of its refined spots is larger than this many pixels, in x or in y."
  cell_length = 0.02
    .type = float(value_min=0)
    .help = "Leave a sweep out if a cell edge differs by a larger share from the median of all sweeps (of two: from the"
            "first)."
  cell_angle = 2
    .type = float(value_min=0)
    .help = "... or a cell angle by more degrees."
}
"""
    + "".join(
        f"""
{program} {{
  phil = None
    .type = path
    .multiple = True
    .help = "File of parameters for dials.{program}."
}}
"""
        for program in DIALS_PROGRAMS
    )
)
