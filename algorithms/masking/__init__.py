"""Which pixels to leave out: bad ones, shadowed ones, and those that see Bragg peaks."""
