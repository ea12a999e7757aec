"""Operations on maps."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
operations = None
  .type = strings
  .help = "What is done to the map, in this order, e.g. operations=punch,fill,variational,symmetrise. punch: take out "
          "the voxels around Bragg points. fill: give values to holes, from what surrounds them. isotropic: what "
          "depends on |q| alone. variational: the rest. symmetrise: average over a Laue group. difference: subtract "
          "the second map, scaled. total: put Bragg intensities back."
punch
  .help = "How far around each Bragg point voxels are taken out, by their centres; with neither radius, the Bragg "
          "points' own voxels alone."
{
  hkl = None
    .type = floats(size=3, value_min=0.001, value_max=0.499)
    .help = "Semi-axes of an ellipsoid, in fractional Miller indices."
  q = None
    .type = float(value_min=0)
    .help = "Radius of a sphere, in 1/A."
}
fill
{
  neighbours = 80
    .type = int(value_min=20)
    .help = "Measured voxels, the nearest, that a polynomial of the second degree is fitted to."
  reach = 4
    .type = float(value_min=2, value_max=20)
    .help = "Farthest of them, in voxels. A hole that is not surrounded by measured voxels so near stays empty."
}
isotropic
  .help = "The isotropic part, for isotropic and variational; shells of the profile."
{
  kind = *mean minimum
    .type = choice
    .help = "Mean over all directions, each voxel counting the same, or a low percentile, corrected for what errors "
            "add to its distance from the mean."
  percentile = 1
    .type = float(value_min=0, value_max=100)
    .help = "Which, with kind=minimum."
  shells = 100
    .type = int(value_min=1)
    .help = "Shells of equal width in |q|, interpolated smoothly; those with fewer than 10 voxels are joined."
}
symmetrise
{
  group = None
    .type = space_group
    .help = "Point group or space group to average over, besides the map's own Laue group. That alone, with Friedel's "
            "law, if not given."
}
difference
{
  scale = None
    .type = float(value_min=0)
    .help = "Factor of the second map. By least squares, with the errors of both maps, if not given."
  offset = False
    .type = bool
    .help = "Let the maps differ by a function of |q|, too, which is fitted."
  shells = 30
    .type = int(value_min=1)
    .help = "Of the offset: shells of equal width in |q|, interpolated linearly."
}
total
{
  bragg = None
    .type = path
    .help = "Bragg intensities |F|^2 in electrons^2 (per unit cell): a table (.refl) with intensity.scale.value, as "
            "dials.diffuse_absolute writes it, or a file that iotbx reads (MTZ, CIF), of intensities or amplitudes."
  label = None
    .type = str
    .help = "Part of the label of the column, in MTZ and other files."
  scale = 1
    .type = float(value_min=0)
    .help = "Factor that puts them on the scale of the map."
}
sections
{
  plane = None
    .type = str
    .multiple = True
    .help = "A plane of voxels that is written: hk0, h1l, h,k,0.5, hhl, h,-h,l. May be given several times."
  format = csv npz *png
    .type = choice(multi=True)
    .help = "As tables of voxels, as arrays, as pictures."
}
correlation
{
  shells = 10
    .type = int(value_min=1)
    .help = "Of equal volume of reciprocal space."
}
delta_pdf
{
  apodisation = none *gaussian hann
    .type = choice
    .help = "Let the map end softly, so that its end makes no ripples: exp(-4 x^2) or cos^2(pi x / 2), with x = |q| / "
            "q_max."
  d_min = None
    .type = float(value_min=0.1)
    .help = "1 / q_max. The map's resolution if not given."
  missing = *shell_mean zero
    .type = choice
    .help = "What is taken for voxels without an intensity: the mean at their |q|, or 0."
  shells = 100
    .type = int(value_min=1)
    .help = "Of that mean: shells of equal width in |q|."
  spacing = None
    .type = float(value_min=0.01)
    .help = "Distance of the points in Angstrom, along the cell's edges, at most. About d_min / 2 if not given."
  centred = True
    .type = bool
    .help = "The function from -1/2 to 1/2 of the supercell, the origin in its middle. From 0 to 1 if False."
}
"""
)
