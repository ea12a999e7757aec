"""From scaled observations to one intensity a voxel, and how well it is known."""
