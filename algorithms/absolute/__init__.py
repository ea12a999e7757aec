"""Intensities in electrons squared: what is in the unit cell, what it scatters, and the scale that follows."""
