"""A map as the sum of its isotropic part, a function of |q|, and its variational (anisotropic) part, the rest.

Meisburger, Case & Ando (2020) Nat. Commun. 11, 1271: what the crystal's disorder correlates shows in the variational
part; the isotropic one holds Compton scattering, liquid and air besides.
"""

from __future__ import annotations

import libtbx.phil
import numpy as np

from dials_diffuse.algorithms.maps.equivalents import representatives, slabs
from dials_diffuse.algorithms.maps.radial import RadialProfile, low_percentiles, profile_of, shells_of
from dials_diffuse.map_file import DiffuseMap

#: What an operation takes the isotropic part from: the half maps measure the same.
INTENSITIES = ("intensity", "half_1", "half_2")


def isotropic(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """The isotropic part, where there is an intensity. The map's arrays are changed.

    Errors become those of the mean at the voxel's |q|; half maps are left out.

    Parameters
    ----------
    diffuse_map : DiffuseMap
    params : libtbx.phil.scope_extract
        The scope ``isotropic``: ``kind``, ``shells``, ``percentile``.
    """
    profile, level = isotropic_part(diffuse_map, params)
    for planes in slabs(diffuse_map):
        q = diffuse_map.q(planes)
        missing = np.isnan(diffuse_map.intensity[planes])
        for name, values in (("intensity", level), ("intensity_errors", profile.error)):
            diffuse_map.fields[name][planes] = np.where(missing, np.nan, profile.at(q, values))
    for name in [name for name in diffuse_map.fields if name.startswith("half_")]:
        del diffuse_map.fields[name]
    return diffuse_map


def variational(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> DiffuseMap:
    """The map and its half maps less the isotropic part. The map's arrays are changed; errors stay.

    (The mean at |q| is over many voxels: what its error adds is nothing beside a voxel's own.)

    Parameters
    ----------
    diffuse_map : DiffuseMap
    params : libtbx.phil.scope_extract
        As for :func:`isotropic`.
    """
    profile, level = isotropic_part(diffuse_map, params)
    for planes in slabs(diffuse_map):
        part = profile.at(diffuse_map.q(planes), level)
        for name in INTENSITIES:
            if name in diffuse_map.fields:
                diffuse_map.fields[name][planes] -= part
    return diffuse_map


def isotropic_part(diffuse_map: DiffuseMap, params: libtbx.phil.scope_extract) -> tuple[RadialProfile, np.ndarray]:
    """Statistics by shells, and the isotropic part at the shells' |q|: their mean, or a low percentile."""
    voxels = representatives(diffuse_map)
    shells = shells_of(voxels.q, params.shells)
    profile = profile_of(voxels, shells)
    if params.kind == "mean":
        return profile, profile.mean
    return profile, low_percentiles(voxels, shells, profile, params.percentile)
