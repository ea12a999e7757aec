"""From images to observations: every unmasked pixel of every frame, counted in its voxel."""
