"""The simulated experiment: crystal, instrument, and every term of the forward model."""

from __future__ import annotations

from iotbx.phil import parse

phil_scope = parse(
    """
photons = 1.0
  .type = float(value_min=0)
  .help = "Photons of the (first) crystal's diffuse scattering that a pixel counts in a frame, on average over the"
          "active pixels and the frames of the first sweep. Sets the scale of the intensities, the same for all sweeps."
noise = True
  .type = bool
  .help = "Counts with Poisson noise; rounded expectations otherwise."
seed = 1
  .type = int(value_min=0)
  .help = "Seed of everything random: orientations, Bragg intensities, clouds, bad pixels, noise."
include scope dials_diffuse.phil_scope.mp.local_scope
format = *cbf cbf.gz cbf.bz2 smv nxmx
  .type = choice
  .help = "Of the images: miniCBF as of a Pilatus, the same compressed by gzip or bzip2, SMV as of an ADSC CCD, or HDF5"
          "with all images of a sweep in one file (the only one for more than one panel)."

sweeps = 2
  .type = int(value_min=1)
  .help = "Number of sweeps."
frames = 120
  .type = ints(value_min=1)
  .help = "Frames of a sweep: one number for all sweeps or one for each."
stills = False
  .type = bool
  .help = "Every frame is a still of a crystal of its own in a random orientation, with a factor b of its own. A sweep"
          "is then a series of stills."
exposure = 0.1
  .type = floats(value_min=1e-6)
  .help = "Exposure time of a frame in seconds: one for all sweeps or one for each."
oscillation {
  start = 0
    .type = floats
    .help = "First angle in degrees: one for all sweeps or one for each."
  width = 0.5
    .type = floats(value_min=0)
    .help = "Rotation of a frame in degrees: one for all sweeps or one for each."
  samples = 2
    .type = int(value_min=1)
    .help = "Gauss-Legendre points over a frame's rotation at which the diffuse intensity is taken. (Bragg peaks are"
            "integrated over the rotation analytically.)"
}

crystal {
  unit_cell = 39.5,45.2,51.3,90,90,90
    .type = unit_cell
    .help = "Unit cell in Angstrom and degrees."
  space_group = P212121
    .type = space_group
    .help = "Space group: absences of the Bragg peaks, Laue symmetry of everything."
  orientation = None
    .type = floats
    .help = "Euler angles (z, y, z) in degrees of the crystal's U matrix, three for every sweep. Random if not given."
}

lattices {
  number = 1
    .type = int(value_min=1)
    .help = "Crystals in the same images, all but the first in random orientations."
  bragg = 1
    .type = float(value_min=0)
    .help = "Strength of the Bragg peaks of each further crystal against those of the first."
  diffuse = 1
    .type = float(value_min=0)
    .help = "The same of the diffuse scattering."
}

goniometer {
  model = *single kappa
    .type = choice
    .help = "A spindle along x, or one that carries a kappa arm (alpha 50 degrees) with a phi axis."
  invert = False
    .type = bool
    .help = "All axes turn the other way."
  scan_axis = *omega phi
    .type = choice
    .help = "Which axis of a kappa goniometer turns during a sweep."
  angles = 20,35,-25
    .type = floats(size=3)
    .help = "omega, kappa and phi in degrees where they stay fixed."
}

drift {
  orientation = 0
    .type = float
    .help = "Degrees by which the crystal turns on its mount during a sweep, about an oblique axis. Drifts are smooth,"
            "but not along a straight line."
  cell = 0
    .type = float(value_min=-0.1, value_max=0.1)
    .help = "Relative change of the longest-drifting cell edge during a sweep; the crystal system is kept."
  beam = 0
    .type = float
    .help = "Degrees by which the direction of the beam changes during a sweep."
}

beam {
  wavelength = 0.9763
    .type = float(value_min=0.01)
    .help = "In Angstrom."
  tilt = 0.05
    .type = float
    .help = "Angle in degrees between the beam and the z axis, towards the rotation axis. Image headers know nothing"
            "of it."
  polarisation_fraction = 0.999
    .type = float(value_min=0, value_max=1)
    .help = "Fraction of the beam that is polarised in the plane of the rotation axis. dxtbx takes 0.999 for such"
            "images, whatever the header says."
}

detector {
  model = 100K *300K 1M 2M 6M custom barrel two_modules
    .type = choice
    .help = "A Pilatus, modules and gaps included; one panel without gaps of any size; 24 panels on a cylinder round"
            "the rotation axis; two modules tilted against each other."
  image_size = 487,619
    .type = ints(size=2, value_min=1)
    .help = "Pixels along fast and slow, for model=custom."
  panel_size = None
    .type = ints(size=2, value_min=1)
    .help = "Pixels along fast and slow of each panel, for model=barrel (487,60 if not given) and two_modules"
            "(487,195)."
  distance = 100
    .type = float(value_min=1)
    .help = "In mm; the radius of a barrel."
  beam_centre = None
    .type = floats(size=2)
    .help = "Where the beam meets the detector, in pixels. A little off the centre if not given. For flat"
            "detectors."
  tilt = 0.2,-0.15
    .type = floats(size=2)
    .help = "Rotations in degrees of the detector about its fast and slow axes. Image headers know nothing of it."
  thickness = 0.32
    .type = float(value_min=0)
    .help = "Of the silicon sensor, in mm: causes parallax and limits the efficiency. 0: neither, and none in the"
            "headers."
  gaps = True
    .type = bool
    .help = "Pixels between modules read -1 (the largest value of an unsigned type)."
  hot_pixels = 12
    .type = int(value_min=0)
    .help = "Number of pixels that count without light."
  dead_pixels = 12
    .type = int(value_min=0)
    .help = "Number of pixels that never count."
  gain = 1
    .type = float(value_min=1e-3)
    .help = "ADU a photon. SMV headers tell it; of other formats only the models in truth.json know it."
  pedestal = 0
    .type = float
    .help = "ADU of a pixel without photons."
  data_type = *auto int32 uint32 int16 uint16
    .type = choice
    .help = "Integers that are stored, where the format leaves a choice (nxmx): int32 if not given, uint16 of smv."
}

beam_stop {
  radius = 2.5
    .type = float(value_min=0)
    .help = "Of its shadow on the detector, in mm. 0: none."
  arm_width = 1.5
    .type = float(value_min=0)
    .help = "Of its arm's shadow, which runs down from the beam, in mm."
  transmission = 0.02
    .type = float(value_min=0, value_max=1)
    .help = "What passes."
}

header {
  perturb = True
    .type = bool
    .help = "Write headers whose beam centre and distance are a little wrong, as at a beamline."
  beam_centre_error = 1.6,-1.1
    .type = floats(size=2)
    .help = "In pixels."
  distance_error = 0.25
    .type = float
    .help = "In mm."
}

response {
  solid_angle = True
    .type = bool
    .help = "Every pixel has its own solid angle; otherwise all have that at the foot of the detector's normal."
  polarisation = True
    .type = bool
    .help = "Scattering falls along the polarisation."
  efficiency = True
    .type = bool
    .help = "The sensor stops more of the rays that cross it at an angle."
  air = True
    .type = bool
    .help = "Air (dry, 20 degrees C, 101.325 kPa) between crystal and detector absorbs."
}

absolute {
  crystal = None
    .type = str
    .help = "Formula of the atoms in the unit cell that have places in it, e.g. \"C2560 N660 O760 S8\". If given,"
            "intensities are those of that cell, in electrons^2 times one scale (which photons sets): Bragg peaks,"
            "coherent diffuse scattering (clouds.contrast says how uneven; no halos) and incoherent; bragg.photons and"
            "the strengths of clouds, halos, compton do not count."
  solvent = None
    .type = str
    .help = "Formula of what the cell holds besides, without places: it scatters between the Bragg peaks alone."
}
bragg {
  photons = 4000
    .type = float(value_min=0)
    .help = "Mean number of photons in a Bragg reflection of the first sweep near q = 0, where the Lorentz factor is 1"
            "(on a still: where the Ewald sphere cuts the middle of the peak). 0: no Bragg peaks."
  b_factor = 18
    .type = float(value_min=0.1)
    .help = "In square Angstrom; intensities fall by exp(-B q^2 / 2)."
  sigma = 0.0013
    .type = float(value_min=1e-5)
    .help = "Standard deviation of a peak, in 1/A."
  mosaicity = 0.03
    .type = float(value_min=0)
    .help = "In degrees; peaks at q widen by it: variance sigma^2 + (mosaicity q)^2."
}
halos {
  strength = 3
    .type = float(value_min=0)
    .help = "Height at a Bragg point, at its maximum over q, in units of the clouds' mean at theirs. 0: no halos."
  width = 0.004
    .type = float(value_min=1e-4)
    .help = "Distance in 1/A from a Bragg point at which a halo has fallen to a quarter."
}
clouds {
  strength = 1
    .type = float(value_min=0)
    .help = "Mean of the broad clouds at its maximum over q: the unit of the others. 0: no clouds."
  contrast = 0.8
    .type = float(value_min=0, value_max=1.4)
    .help = "Standard deviation of the clouds in a shell of q, in units of their mean there."
  length = 4,12
    .type = floats(size=2, value_min=0.1)
    .help = "Range of the distances in A whose interferences make the clouds."
  q_peak = 0.3
    .type = float(value_min=1e-3)
    .help = "The q in 1/A where the clouds are strongest."
}
compton {
  strength = 0.4
    .type = float(value_min=0)
    .help = "Isotropic part at large q, in units of the clouds' mean at its maximum. 0: none."
  q_half = 0.35
    .type = float(value_min=1e-3)
    .help = "The q in 1/A where it has reached half."
}

b {
  scale = 1,0.8
    .type = floats(value_min=1e-6)
    .help = "Scale of a sweep against the first: one number a sweep; sweeps beyond have the last."
  variation = 0.15
    .type = float(value_min=0, value_max=0.9)
    .help = "Relative amplitude of a wave over the rotation; of stills, largest relative deviation from the mean."
  period = 75
    .type = float(value_min=0.1)
    .help = "Of that wave, in degrees."
  decay = 0.1
    .type = float(value_min=0)
    .help = "Loss over a sweep: falls to exp(-decay)."
}
a {
  strength = 0
    .type = float(value_min=0, value_max=0.3)
    .help = "Relative amplitude of the absorption in the crystal a(x, y, phi). 0: none."
}
c {
  strength = 0
    .type = float(value_min=0)
    .help = "Maximum of the excess isotropic background c(q, phi), in units of the clouds' mean at its"
            "maximum. 0: none."
}
d {
  strength = 0
    .type = float(value_min=0, value_max=0.3)
    .help = "Relative amplitude of the detector's response d(x, y). 0: none."
}

background {
  photons = 0.3
    .type = float(value_min=0)
    .help = "Photons of the air's scattering that a pixel counts in a frame of the first sweep, on average over the"
            "active pixels. 0: none."
  q_fall = 0.2
    .type = float(value_min=1e-3)
    .help = "The q in 1/A over which it falls."
  variation = 0
    .type = float(value_min=0, value_max=0.9)
    .help = "Relative amplitude of its wave over the rotation (period 360 degrees), in crystal and background images."
  images = 10
    .type = int(value_min=0)
    .help = "Number of images without the crystal; together they rotate through the first sweep's range."
  exposure = 1
    .type = float(value_min=1e-6)
    .help = "Exposure time of each in seconds."
}
""",
    process_includes=True,
)
