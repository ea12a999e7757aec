"""The grid of voxels that all experiments share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import libtbx.phil
import numpy as np
from cctbx import crystal, miller, sgtbx, uctbx
from dials.array_family import flex
from dials.util import Sorry
from dxtbx import flumpy
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.geometry import resolution
from dials_diffuse.images import sweep_name

#: Relative difference of cell edges, and difference of angles in degrees, up to which cells are the same crystal's:
#: for ``uctbx.unit_cell.is_similar_to``.
SAME_CELL = (0.02, 2.0)


@dataclass(frozen=True, eq=False)
class GlobalGrid:
    """Voxels of reciprocal space, ``ndiv`` to a reciprocal-lattice spacing, within a sphere of resolution ``d_min``.

    A voxel is a triple of integers n = round(ndiv * h): its centre is n / ndiv in fractional Miller indices, and every
    Bragg point is the centre of a voxel whatever ndiv is. The triples are Miller indices of the supercell
    (ndiv_a a, ndiv_b b, ndiv_c c), so that cctbx's symmetry machinery applies to them as they are.

    Parameters
    ----------
    unit_cell : cctbx.uctbx.unit_cell
        The reference cell, in Angstrom and degrees: used for |q| of a voxel and for the map. Observations are indexed
        with the cells of their own experiments.
    space_group : cctbx.sgtbx.space_group
        The crystal's space group; voxels are equivalent under its Laue group.
    ndiv : tuple of 3 int
        Voxels to a reciprocal-lattice spacing along a*, b*, c*.
    d_min : float
        Resolution limit in Angstrom: voxels whose centres lie within |q| <= 1 / d_min belong to the grid.
    friedel_apart : bool
        Voxels n and -n are not equivalent unless by a rotation or a mirror of the crystal.

    Raises
    ------
    Sorry
        If ndiv differs between axes that the Laue group mixes, or d_min is not positive.
    """

    unit_cell: uctbx.unit_cell
    space_group: sgtbx.space_group
    ndiv: tuple[int, int, int]
    d_min: float
    friedel_apart: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ndiv", tuple(int(n) for n in self.ndiv))
        if min(self.ndiv) < 1:
            raise Sorry(f"grid.ndiv={','.join(map(str, self.ndiv))}: each must be 1 or more.")
        if not self.d_min > 0:
            raise Sorry(f"d_min={self.d_min}: give a resolution above 0 A, or none for all that the detector sees.")
        for operation in self.laue_group:
            rotation = np.array(operation.r().as_double()).reshape(3, 3)
            for i, j in zip(*np.nonzero(rotation)):
                if self.ndiv[i] != self.ndiv[j]:
                    raise Sorry(
                        f"grid.ndiv={','.join(map(str, self.ndiv))} does not fit Laue group {self.laue_symbol}, which "
                        f"mixes the axes {'abc'[j]}* and {'abc'[i]}*: give them the same number."
                    )

    @classmethod
    def from_experiments(cls, experiments: ExperimentList, params: libtbx.phil.scope_extract) -> GlobalGrid:
        """The grid of a set of experiments.

        Parameters
        ----------
        experiments : ExperimentList
            Each with a crystal. The reference cell is the mean of their cells (constrained to the space group) unless
            ``params.grid.unit_cell`` is set.
        params : libtbx.phil.scope_extract
            Of :data:`dials_diffuse.phil_scope.grid.phil_scope`: ``grid``, and ``d_min`` (the detectors' reach if None).

        Raises
        ------
        Sorry
            If a crystal is missing, the crystals' Laue groups differ, or ndiv does not fit the Laue group.
        """
        for experiment in experiments:
            if experiment.crystal is None:
                raise Sorry(f"{sweep_name(experiment)} has no crystal: index it first (dials.index).")
        crystals = [experiment.crystal for experiment in experiments]
        if params.grid.space_group is not None:
            space_group = params.grid.space_group.group()
        else:
            space_group = crystals[0].get_space_group()
            laue = space_group.build_derived_laue_group()
            for experiment in experiments:
                if experiment.crystal.get_space_group().build_derived_laue_group() != laue:
                    raise Sorry(
                        f"The crystals of {sweep_name(experiments[0])} and {sweep_name(experiment)} have different "
                        "Laue groups: reindex them to a common setting (dials.reindex, dials.cosym), or give "
                        "grid.space_group."
                    )
        cell = params.grid.unit_cell
        if cell is None:
            mean = np.mean([model.get_unit_cell().parameters() for model in crystals], axis=0)
            cell = space_group.average_unit_cell(uctbx.unit_cell(tuple(mean)))
        d_min = params.d_min
        if d_min is None:
            d_min = min(resolution(experiment) for experiment in experiments)
        return cls(cell, space_group, tuple(params.grid.ndiv), float(d_min))

    @cached_property
    def laue_group(self) -> sgtbx.space_group:
        """The centrosymmetric point group in the crystal's setting, as cctbx's space group; without centring."""
        return self.space_group.build_derived_laue_group()

    @cached_property
    def equivalence_group(self) -> sgtbx.space_group:
        """Under which voxels are equivalent: the Laue group, or the crystal's point group with ``friedel_apart``."""
        return self.space_group.build_derived_point_group() if self.friedel_apart else self.laue_group

    @cached_property
    def rotations(self) -> np.ndarray:
        """Matrices R, shape (operations, 3, 3), int64, of the equivalence group: voxels n and n R are equivalent.

        (cctbx's convention for Miller indices.)
        """
        operations = self.equivalence_group.build_derived_point_group()
        return np.array([operation.r().as_double() for operation in operations]).reshape(-1, 3, 3).astype(np.int64)

    @property
    def laue_symbol(self) -> str:
        """Hermann-Mauguin symbol of the Laue group, e.g. ``4/m``."""
        symbol = self.laue_group.laue_group_type().strip()
        if symbol == "-3m":  # -3m1 and -31m, where the axes are hexagonal with the threefold along c
            name = self.laue_group.match_tabulated_settings().hermann_mauguin()
            return "-3" + name.partition("-3")[2].replace(" ", "") if name else symbol
        return symbol

    @cached_property
    def supercell(self) -> uctbx.unit_cell:
        """The cell whose Miller indices are the voxels, in Angstrom and degrees."""
        a, b, c, *angles = self.unit_cell.parameters()
        return uctbx.unit_cell((a * self.ndiv[0], b * self.ndiv[1], c * self.ndiv[2], *angles))

    @cached_property
    def n_max(self) -> tuple[int, int, int]:
        """Largest voxel index along each axis; the smallest is its negative. (|h| <= a / d for every direct axis a.)"""
        return tuple(int(np.floor(edge / self.d_min)) for edge in self.supercell.parameters()[:3])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of voxels along the axes of the box that holds the sphere."""
        return tuple(2 * n + 1 for n in self.n_max)

    def check_size(self) -> None:
        """See that the extraction can number the voxels of the box, in 32 bits.

        Raises
        ------
        Sorry
            If not.
        """
        if np.prod(self.shape, dtype=np.int64) > 2**31 - 2:
            raise Sorry(f"The grid has too many voxels ({self}): choose a smaller grid.ndiv or a larger d_min.")

    def hkl2index(self, hkl: np.ndarray) -> np.ndarray:
        """Voxels that hold fractional Miller indices.

        Parameters
        ----------
        hkl : ndarray, shape (n, 3), float

        Returns
        -------
        ndarray, shape (n, 3), int32
            round(ndiv * h), halves up.
        """
        return np.floor(np.asarray(hkl, dtype=float) * self.ndiv + 0.5).astype(np.int32)

    def index2hkl(self, index: np.ndarray) -> np.ndarray:
        """Fractional Miller indices, shape (n, 3), of voxel centres."""
        return np.asarray(index) / np.asarray(self.ndiv, dtype=float)

    def axes(self, lowest: Sequence[int], shape: Sequence[int]) -> list[np.ndarray]:
        """h, k, l of the voxels of a box whose first one is ``lowest``."""
        return [(first + np.arange(count)) / ndiv for first, count, ndiv in zip(lowest, shape, self.ndiv)]

    def contains(self, index: np.ndarray) -> np.ndarray:
        """Which voxels, shape (n, 3), have their centres within the sphere of d_min; bool, shape (n,)."""
        return self.q(index) <= 1.0 / self.d_min

    def index2key(self, index: np.ndarray) -> np.ndarray:
        """One integer for each voxel: its position in the box of :attr:`shape`, row-major.

        Parameters
        ----------
        index : ndarray, shape (n, 3), int
            Voxels within the box.

        Returns
        -------
        ndarray, shape (n,), int64
        """
        shifted = np.asarray(index).astype(np.int64) + self.n_max
        return (shifted[:, 0] * self.shape[1] + shifted[:, 1]) * self.shape[2] + shifted[:, 2]

    def key2index(self, key: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`index2key`: int32, shape (n, 3)."""
        key = np.asarray(key, dtype=np.int64)
        rest, n_l = np.divmod(key, self.shape[2])
        n_h, n_k = np.divmod(rest, self.shape[1])
        return (np.stack([n_h, n_k, n_l], axis=-1) - self.n_max).astype(np.int32)

    def q(self, index: np.ndarray) -> np.ndarray:
        """|q| = 1/d of voxel centres in 1/Angstrom, shape (n,), from the reference cell."""
        orthogonal = np.array(self.unit_cell.fractionalization_matrix()).reshape(3, 3)
        return np.linalg.norm(self.index2hkl(index) @ orthogonal, axis=-1)

    def map_to_asu(self, index: np.ndarray) -> np.ndarray:
        """The representatives of voxels in the asymmetric unit of the equivalence group, as cctbx chooses it.

        With ``friedel_apart`` they are those of the Laue group or minus them.

        Parameters
        ----------
        index : ndarray, shape (n, 3), int

        Returns
        -------
        ndarray, shape (n, 3), int32
        """
        indices = miller_index_from_numpy(index)
        miller.map_to_asu(self.equivalence_group.type(), self.friedel_apart, indices)
        return miller_index_to_numpy(indices)

    def asu_keys(self, index: np.ndarray) -> np.ndarray:
        """Keys of the representatives of voxels in the asymmetric unit, -1 beyond the grid.

        Parameters
        ----------
        index : ndarray, shape (n, 3), int

        Returns
        -------
        ndarray, shape (n,), int64
        """
        keys = np.full(len(index), -1, dtype=np.int64)
        inside = self.contains(index)
        keys[inside] = self.index2key(self.map_to_asu(index[inside]))
        return keys

    def is_bragg(self, index: np.ndarray) -> np.ndarray:
        """Which voxels are centred on a Bragg point of the lattice (centring respected); bool, shape (n,)."""
        index = np.asarray(index)
        integer = (index % np.asarray(self.ndiv) == 0).all(axis=-1)
        hkl = index // np.asarray(self.ndiv)
        centring = lattice_group(self.space_group)
        if centring.order_z() > 1 and integer.any():
            absent = flumpy.to_numpy(centring.is_sys_absent(miller_index_from_numpy(hkl[integer])))
            integer[integer] = ~absent
        return integer

    def crystal_symmetry(self) -> crystal.symmetry:
        """The reference cell and the space group together."""
        return crystal.symmetry(unit_cell=self.unit_cell, space_group=self.space_group)

    def to_dict(self) -> dict:
        """As JSON-ready values; :meth:`from_dict` gives an equal grid back."""
        values = {
            "unit_cell": list(self.unit_cell.parameters()),
            "space_group": self.space_group.type().hall_symbol().strip(),
            "ndiv": list(self.ndiv),
            "d_min": self.d_min,
        }
        return {**values, "friedel_apart": True} if self.friedel_apart else values

    @classmethod
    def from_dict(cls, values: dict) -> GlobalGrid:
        return cls(
            uctbx.unit_cell(tuple(values["unit_cell"])),
            sgtbx.space_group(values["space_group"]),
            tuple(values["ndiv"]),
            values["d_min"],
            values.get("friedel_apart", False),
        )

    def as_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> GlobalGrid:
        return cls.from_dict(json.loads(text))

    def as_phil(self) -> str:
        """As PHIL text that asks for this very grid."""
        cell = ",".join(repr(value) for value in self.unit_cell.parameters())
        hall = self.space_group.type().hall_symbol().strip().replace('"', '\\"')
        ndiv = ",".join(map(str, self.ndiv))
        return f"""grid {{
  unit_cell = {cell}
  space_group = "Hall: {hall}"
  ndiv = {ndiv}
}}
d_min = {self.d_min!r}
"""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GlobalGrid) and self.to_dict() == other.to_dict()

    def __str__(self) -> str:
        cell = ", ".join(f"{value:.3f}" for value in self.unit_cell.parameters())
        return (
            f"{' x '.join(map(str, self.shape))} voxels, {','.join(map(str, self.ndiv))} to a reciprocal-lattice "
            f"spacing, to {self.d_min:.2f} A; cell {cell}; Laue group {self.laue_symbol}"
            + (", Friedel mates apart" if self.friedel_apart else "")
        )


def lattice_group(space_group: sgtbx.space_group) -> sgtbx.space_group:
    """The space group's centring translations alone."""
    group = sgtbx.space_group()
    for operation in space_group:
        if operation.r().is_unit_mx():
            group.expand_ltr(operation.t())
    return group


def miller_index_from_numpy(index: np.ndarray) -> flex.miller_index:
    """flex.miller_index from an integer array of shape (n, 3)."""
    h, k, l = (flumpy.from_numpy(np.ascontiguousarray(column, dtype=np.int32)) for column in np.asarray(index).T)
    return flex.miller_index(h, k, l)


def miller_index_to_numpy(indices: flex.miller_index) -> np.ndarray:
    """int32 array of shape (n, 3) from flex.miller_index."""
    return np.stack([flumpy.to_numpy(part) for part in indices.as_vec3_double().parts()], axis=-1).astype(np.int32)
