"""What varies from observation to observation, refined so that equivalent observations agree."""

# DIALS's module loads every scaling plug-in, ours included, at the end of its own import. It must therefore be under
# way before ours is: whoever imports this package first would meet a circular import otherwise.
import dials.algorithms.scaling.model.model  # noqa: F401
