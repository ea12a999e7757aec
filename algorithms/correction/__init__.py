"""From counts to intensity: corrections for geometry, beam and detector, and the background."""
