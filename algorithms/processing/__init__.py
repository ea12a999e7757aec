"""DIALS from images to integrated intensities, and our programs after it, for many sweeps."""
