r"""Which Laue group the diffuse data themselves support.

The observations are merged in -1 only, so that voxels v and Rv, for a rotation R of the lattice, are independent
measurements. Only what a lattice of any symmetry does not show by itself can tell: subtracted are the isotropic part
and then the mean, in a resolution shell, of all voxels in equivalent places between the Bragg points (halos are alike
about all Bragg points). What is left, x, is divided by its own spread t(|q|), and compared by covariances, in which
noise averages out however few the photons:

- C_R = sum(w x_v x_Rv) / sum(w) over pairs of voxels, and
- C_1, the same for voxels and themselves, from products of different measurements of one voxel (:func:`own_products`);

w = t^4 / ((t^2 + v_v) (t^2 + v_Rv)) is the inverse variance of x_v x_Rv where nothing correlates, v variances by
counting. C_R / C_1, "CC true" in the table, is 1 if R is a symmetry of the crystal, whatever the noise: it is the
correlation that perfect data would have. (C_1 takes the part of Evans's E(CC; S). The correlation that the noise
allows, "CC exp.", is the 2 CC1/2 / (1 + CC1/2) of these data.)
Errors of C_R and C_1 come from a jackknife over blocks of unit cells of the reciprocal lattice, symmetry equivalents
kept together, so that neighbouring voxels may be correlated.

Probabilities are those of Evans (2006) Acta Cryst. D62, 72 and (2011) D67, 282, appendix A, as in
dials/algorithms/symmetry/laue_group.py: C_R / C_1 is distributed about 1 if the symmetry is present, about some m with
density (1 - m^2)^(1/2) if not. (There m is above 0; but what is left of diffuse intensities can be opposite in Rv.) The
distribution is Lorentzian there, which allows for systematic errors; here it is Student's t with 3 degrees of freedom,
less tolerant where thousands of pairs say the same, of a scale that has the systematic errors (:data:`SYSTEMATIC`) and
those by counting in it, so that data too weak to tell favour neither. The error of C_1, which all elements have in
common, is integrated over. And in a crystal of symmetry H all R' in H R H, and their inverses, correlate alike, x_Rv
being x_v' with v' equivalent to Rv: they have one m in common, where Evans takes each element for itself. So the same
middling correlation of many elements, as by pseudosymmetry, does not make them symmetries.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
from cctbx import crystal
from cctbx.sgtbx.lattice_symmetry import metric_subgroups
from dials.util import tabulate
from dxtbx.model.experiment_list import ExperimentList

from dials_diffuse.algorithms.merging.scaled import column_of
from dials_diffuse.algorithms.scaling.expectation import between_voxel_variance, merge_voxels, radial_bins
from dials_diffuse.algorithms.scaling.observations import ARRAYS, GroupedObservations
from dials_diffuse.algorithms.scaling.partitions import Partition, VoxelPartitions, number_of_observations
from dials_diffuse.grid import GlobalGrid, lattice_group
from dials_diffuse.random_numbers import random_of_keys

logger = logging.getLogger("dials.diffuse.merging")

#: Scale of the systematic errors of C_R / C_1: if they lower C_1 as well, being from different visits, and if not.
#: (Evans has 0.1, for correlations.)
SYSTEMATIC, SYSTEMATIC_UNVISITED = 0.03, 0.1

#: Degrees by which a cell may deviate from the metric of a symmetry (Le Page, 1982), as in dials.symmetry.
MAX_DELTA = 2.0

#: Measurements of a voxel in one sweep that are less than this apart, in degrees, share their systematic errors.
VISIT = 10.0

#: Blocks of the jackknife.
BLOCKS = 200

#: Least spread of intensities, relative to their mean, that is reckoned with.
LEAST_CONTRAST = 0.01

#: Observations that are tested; many more tell no more.
ENOUGH, SEED = 2_000_000, 0

#: Indices are less than half of this.
SPAN = 1 << 20

#: Less than this share of the voxels with several visits do not tell C_1: their single observations do then.
LEAST_VISITED = 0.05


@dataclass
class SymmetryElement:
    """A rotation of the lattice (with its inverse), and how well the data agree with it.

    Attributes
    ----------
    operation : str
        What it makes of h, k, l.
    order : int
    pairs : int
        Pairs of voxels compared.
    cc : float
        Correlation of the voxels and their images, each pair weighing w.
    cc_expected : float
        What it would be if this were a symmetry, limited by noise.
    cc_true, sigma : float
        C_R / C_1, and its standard deviation if this is a symmetry.
    z, p : float
        C_R over its standard deviation, and the probability of as much by chance.
    r : float
        sum |I_v - I_Rv| / sum (I_v + I_Rv).
    likelihood : float
        Probability that it is a symmetry, p(S) / (p(S) + p(!S)).
    """

    operation: str
    order: int
    pairs: int
    cc: float
    cc_expected: float
    cc_true: float
    sigma: float
    z: float
    p: float
    r: float
    likelihood: float = float("nan")


@dataclass
class Covariances:
    """C_R and C_1 of an element, and the covariance of the two, shape (2, 2)."""

    c_r: float
    c_1: float
    covariance: np.ndarray

    def sigma(self, m: float | np.ndarray) -> np.ndarray:
        """Standard deviation of C_R / C_1 if it is m."""
        (rr, r1), (_, own) = self.covariance
        return np.sqrt(np.maximum(rr - 2 * m * r1 + m**2 * own, 0)) / self.c_1

    def own_sigma(self, m: float | np.ndarray) -> np.ndarray:
        """The same without the part that comes from the noise of C_1."""
        (rr, r1), _ = self.covariance
        return np.sqrt(np.maximum(rr - (2 * m - m**2) * r1, 0)) / self.c_1

    @property
    def common_variance(self) -> float:
        """Relative variance of C_1 by its noise: what it does not share with C_R by the choice of voxels."""
        return max(self.covariance[1, 1] - self.covariance[0, 1], 0) / self.c_1**2


@dataclass
class LaueSubgroup:
    """A group of rotations of the lattice, with -1.

    Attributes
    ----------
    symbol, patterson : str
        Laue class, e.g. ``4/m``, and symbol of the Patterson group in its conventional setting.
    reindex : str
        Operator to that setting.
    operations : list of str
        Those elements that are in it, as in :class:`SymmetryElement`.
    cc_in, cc_out : float
        Mean ``cc_true`` of the elements in it, and of the others; NaN if there are none.
    r : float
        Mean R of the elements in it.
    likelihood, confidence : float
        Probability among all the subgroups; sqrt(p (p - p_next)) as in POINTLESS, with the sign of p - p_next.
    delta : float
        Degrees by which the cell deviates from its metric.
    assumed : bool
        Whether the data were scaled under it.
    """

    symbol: str
    patterson: str
    reindex: str
    operations: list[str]
    cc_in: float
    cc_out: float
    r: float
    likelihood: float
    confidence: float
    delta: float
    assumed: bool


@dataclass
class SymmetryTest:
    """All elements of the lattice's symmetry, and all subgroups, the likeliest first.

    Attributes
    ----------
    elements : list of SymmetryElement
    subgroups : list of LaueSubgroup
    left_out : int
        Operations of the lattice that do not map voxels on voxels, and so cannot be compared.
    visited : bool
        Whether voxels were seen again at other rotations (:func:`own_products`); without that, errors that stay with
        the detector, or that the scaling model has left or made, can look like symmetry.
    warning : str
        What there is to be said of the assumed group; empty if nothing.
    """

    elements: list[SymmetryElement]
    subgroups: list[LaueSubgroup]
    left_out: int = 0
    visited: bool = True
    warning: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.warning = _warning(self.best, self.assumed)
        if self.warning and not self.visited:
            self.warning += (
                " But hardly any voxel was seen at two rotations far apart, so that errors that stay with the detector "
                "can look like symmetry: more rotation would tell."
            )

    @property
    def best(self) -> LaueSubgroup:
        """The likeliest group; the assumed one if it is as likely as any."""
        return self.subgroups[0]

    @property
    def assumed(self) -> LaueSubgroup:
        """The group that the data were scaled under."""
        return next(group for group in self.subgroups if group.assumed)

    def to_dict(self) -> dict:
        """JSON-ready: what is no number is None."""
        return {
            "elements": [_jsonable(element) for element in self.elements],
            "subgroups": [_jsonable(group) for group in self.subgroups],
            "operations_left_out": self.left_out,
            "visited": self.visited,
            "best": self.best.symbol,
            "assumed": self.assumed.symbol,
            "warning": self.warning,
        }

    def __str__(self) -> str:
        elements = tabulate(
            [
                [
                    f"{e.order}-fold {e.operation}",
                    e.pairs,
                    *(f"{x:.3f}" for x in (e.cc, e.cc_expected, e.cc_true, e.sigma)),
                    f"{e.z:.1f}",
                    f"{e.p:.1e}",
                    f"{e.r:.3f}",
                    f"{e.likelihood:.3f}",
                ]
                for e in self.elements
            ],
            ["Element", "Pairs", "CC", "CC exp.", "CC true", "sigma", "Z", "P", "R", "Likelihood"],
        )
        groups = tabulate(
            [
                [
                    f"{g.symbol}{' *' * (g is self.best)}{' (assumed)' * g.assumed}",
                    g.patterson,
                    *("" if np.isnan(x) else f"{x:.3f}" for x in (g.cc_in, g.cc_out, g.r)),
                    f"{g.likelihood:.3f}",
                    f"{g.confidence:.3f}",
                    f"{g.delta:.1f}",
                    g.reindex,
                ]
                for g in self.subgroups
            ],
            ["Laue group", "Patterson", "CC in", "CC out", "R", "Likelihood", "Confidence", "Delta", "Reindex"],
        )
        return f"Symmetry of the diffuse scattering:\n{elements}\n\nSubgroups of the lattice's symmetry:\n{groups}"


def test_symmetry(partitions: VoxelPartitions, grid: GlobalGrid, experiments: ExperimentList) -> SymmetryTest:
    """Find the Laue group that scaled observations support, among those compatible with the cell and the grid.

    The scales were refined under the assumed group, so the test leans a little towards it.

    Parameters
    ----------
    partitions : VoxelPartitions
        Scaled observations. If there are more than :data:`ENOUGH` of them, a sample is tested: at random, but voxels
        that any symmetry of the lattice makes equivalent are together in it, or not.
    grid : GlobalGrid
        Of which they are; its space group is the assumed one.
    experiments : ExperimentList

    Returns
    -------
    SymmetryTest
    """
    rotations, subgroups, left_out = lattice_symmetry(grid)
    n = sum(partitions.map(number_of_observations, "Symmetry"))
    choose = partial(_sample, list(rotations.values()), ENOUGH / n)
    observations = _merged_mates(grid, partitions.gather(choose, "Symmetry"))
    if len(observations) < n:
        logger.info("Symmetry is tested on %d of %d observations.", len(observations), n)
    comparison = _Comparison(observations, grid, list(rotations.values()), _degrees(experiments, observations))
    systematic = SYSTEMATIC if comparison.visited else SYSTEMATIC_UNVISITED
    compared = {name: comparison.element(rotation) for name, rotation in _one_of_inverses(rotations).items()}
    elements = {name: element for name, (element, _) in compared.items()}
    densities = Densities([covariances for _, covariances in compared.values()], systematic)
    for element, likelihood in zip(elements.values(), densities.of_elements()):
        element.likelihood = float(likelihood)
    scored = _score(subgroups, rotations, elements, densities, grid)
    test = SymmetryTest(list(elements.values()), scored, left_out, comparison.visited)
    logger.info("\n%s", test)
    if test.warning:
        logger.warning("%s", test.warning)
    return test


test_symmetry.__test__ = False  # not a test of pytest, wherever it is imported


def lattice_symmetry(grid: GlobalGrid) -> tuple[dict[str, np.ndarray], list[tuple[dict, set[str]]], int]:
    """Rotations of the lattice that map voxels on voxels, and the groups they make.

    Returns
    -------
    rotations : dict of str to ndarray, shape (3, 3), int
        Without the identity, by name: Miller indices as rows are multiplied by them from the right.
    subgroups : list of (dict, set of str)
        As from cctbx.sgtbx.lattice_symmetry.metric_subgroups, and the names of the rotations in each.
    left_out : int
        Rotations that do not, because ndiv or the setting of the cell does not fit them.
    """
    cell = grid.space_group.average_unit_cell(grid.unit_cell)  # or the assumed group might not be among them
    symmetry = crystal.symmetry(unit_cell=cell, space_group=lattice_group(grid.space_group))
    found = metric_subgroups(symmetry, MAX_DELTA, bravais_types_only=False)
    to_minimum = np.array(symmetry.change_of_basis_op_to_minimum_cell().c().r().as_double()).reshape(3, 3)
    ndiv = np.array(grid.ndiv)
    mixes = ndiv[:, None] != ndiv
    rotations, subgroups, left_out = {}, [], set()
    for group in found.result_groups:
        inside, fits = set(), True
        for operation in group["subsym"].space_group().build_derived_acentric_group():
            in_minimum = np.array(operation.r().as_double()).reshape(3, 3)
            rotation = np.linalg.inv(to_minimum) @ in_minimum @ to_minimum
            whole = np.rint(rotation).astype(int)
            if np.abs(rotation - whole).max() > 1e-6 or (mixes & (whole != 0)).any():
                fits = False
                left_out.add(operation.as_xyz())
            elif (whole != np.eye(3)).any():
                name = _name(whole)
                rotations[name] = whole
                inside.add(name)
        if fits:
            subgroups.append((group, inside))
    return rotations, subgroups, len(left_out)


def _sample(
    rotations: list[np.ndarray], share: float, partition: Partition, observations: GroupedObservations
) -> GroupedObservations:
    """View: a share of the voxels, equivalent ones together; each observation by itself, as one of its own voxel."""
    own = column_of(partition, "miller_index")
    if share < 1:
        keys = _orbit_keys(observations.voxels, rotations)
        chosen = observations.spread(random_of_keys(keys, SEED) < share)
        observations, own = observations.select(chosen), own[chosen]
    return replace(observations, voxels=own, first=np.arange(len(own) + 1))


def _merged_mates(grid: GlobalGrid, observations: GroupedObservations) -> GroupedObservations:
    """Single observations of voxels as those of m voxels that are different in -1."""
    keys = _friedel_keys(grid, observations.voxels)
    order = np.argsort(keys, kind="stable")
    voxels, first = np.unique(keys[order], return_index=True)
    return replace(
        observations,
        **{name: getattr(observations, name)[order] for name in ARRAYS},
        voxels=grid.key2index(voxels),
        first=np.append(first, len(order)),
    )


def _friedel_keys(grid: GlobalGrid, index: np.ndarray) -> np.ndarray:
    """One number for a voxel and its Friedel mate (the box is symmetric about the origin), shape (m,)."""
    key = grid.index2key(index)
    return np.maximum(key, np.prod(grid.shape, dtype=np.int64) - 1 - key)


def _orbit_keys(index: np.ndarray, rotations: list[np.ndarray]) -> np.ndarray:
    """One number for an index and all that become of it by a group of rotations and -1, shape (m,)."""
    keys = np.zeros(len(index), dtype=np.int64)
    for rotation in (np.eye(3, dtype=np.int64), *rotations):
        h, k, l = (index @ rotation).T.astype(np.int64)
        np.maximum(keys, np.abs((h * SPAN + k) * SPAN + l), out=keys)
    return keys


class _Comparison:
    """Voxels in -1, ready to be compared with their images.

    Parameters
    ----------
    observations : GroupedObservations
        n scaled observations of m voxels, merged in -1.
    grid : GlobalGrid
    rotations : list of ndarray, shape (3, 3), int
        The lattice's.
    degrees : ndarray, shape (n,)
        Rotation of the observations.
    """

    def __init__(
        self, observations: GroupedObservations, grid: GlobalGrid, rotations: list[np.ndarray], degrees: np.ndarray
    ) -> None:
        self.grid = grid
        self.voxels = observations.voxels.astype(np.int64)
        keys = _friedel_keys(grid, self.voxels)
        self.order = np.argsort(keys)
        self.keys = keys[self.order]
        q = grid.q(self.voxels)
        merged = merge_voxels(observations, q)
        self.intensity = merged.intensity
        u = observations.response
        weight = 1 / observations.variance(merged.prior.mean_at(q))
        information = observations.sum(weight * u**2)
        noise = 1 / information
        isotropic = merged.prior.mean_at(q)
        self.x, self.lost = self._without_trivial(isotropic, noise, q, rotations)
        mean = self.intensity - self.x
        own, self.known, self.visited = own_products(observations, weight, mean, degrees)
        self.own = own + self.lost * self.known
        self.spread = _contrast(self.x, noise, isotropic) * isotropic
        self.weight = self.spread / (self.spread**2 + noise)  # w x_v x_Rv = weight_v x_v weight_Rv x_Rv
        self.block = self._blocks(rotations)

    def _without_trivial(
        self, isotropic: np.ndarray, noise: np.ndarray, q: np.ndarray, rotations: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Intensities without the isotropic part and without the mean of equivalent places in a shell.

        Returns
        -------
        x : ndarray, shape (m,)
        lost : ndarray, shape (m,)
            Means of n voxels follow their noise, and let what is left correlate by -1/n: this is that, as covariance.
        """
        x = self.intensity - isotropic
        bins, place = radial_bins(q), self._places(rotations)
        nodes = np.bincount(bins, q) / np.bincount(bins)
        groups = place.max() + 1
        group = radial_bins(q, 30, 100 * groups) * groups + place
        for _ in range(4):  # one after the other until they agree, for a shell's mean depends on the places in it
            weight = 1 / ((_contrast(x, noise, isotropic) * isotropic) ** 2 + noise)
            x = x - _means(x, weight, group)[group]
            x = x - np.interp(q, nodes, _means(x, weight, bins))
        return x, 1 / np.bincount(group, weight)[group] + 1 / np.bincount(bins, weight)[bins]

    def _places(self, rotations: list[np.ndarray]) -> np.ndarray:
        """Numbers of the places between the Bragg points that the lattice tells apart, shape (m,)."""
        ndiv = np.array(self.grid.ndiv)
        images = [self.voxels @ rotation % ndiv for rotation in (np.eye(3, dtype=int), *rotations)]
        images += [-image % ndiv for image in images]
        label = np.min([(i[:, 0] * ndiv[1] + i[:, 1]) * ndiv[2] + i[:, 2] for i in images], axis=0)
        return np.unique(label, return_inverse=True)[1].ravel()

    def _blocks(self, rotations: list[np.ndarray]) -> np.ndarray:
        """Block of each voxel, shape (m,): that of the Bragg point nearest to it, equivalent ones in the same."""
        cell = np.floor(self.voxels / self.grid.ndiv + 0.5).astype(np.int64)
        _, number = np.unique(_orbit_keys(cell, rotations), return_inverse=True)
        return np.random.default_rng(0).permutation(number.max() + 1)[number] % BLOCKS

    def pairs(self, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of voxels, and of their images, where both were measured and differ; each shape (k,), int."""
        image = self.voxels @ rotation
        inside = np.flatnonzero((np.abs(image) <= self.grid.n_max).all(axis=1))
        key = _friedel_keys(self.grid, image[inside])
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        other = self.order[place]
        good = (self.keys[place] == key) & (other != inside)
        return inside[good], other[good]

    def element(self, rotation: np.ndarray) -> tuple[SymmetryElement, Covariances]:
        """Compare the voxels with their images under a rotation."""
        a, b = self.pairs(rotation)
        weight = self.weight[a] * self.weight[b]
        normal = weight * self.spread[a] * self.spread[b]
        product = weight * (self.x[a] * self.x[b] + (self.lost[a] + self.lost[b]) / 2)
        own = weight * (self.own[a] + self.own[b]) / 2
        known = normal * (self.known[a] + self.known[b]) / 2
        sums = np.stack([np.bincount(self.block[a], values, BLOCKS) for values in (product, normal, own, known)])
        measured = _jackknife(sums)
        squares = float(np.sum(weight * (self.x[a] ** 2 + self.x[b] ** 2)) / 2)
        total = float(np.sum(self.intensity[a] + self.intensity[b]))
        error = np.sqrt(measured.covariance[0, 0])
        z = measured.c_r / error if error > 0 else 0.0
        told = measured.c_1 > 0
        element = SymmetryElement(
            operation=_name(rotation),
            order=_order(rotation),
            pairs=len(a),
            cc=product.sum() / squares if squares else float("nan"),
            cc_expected=measured.c_1 * normal.sum() / squares if squares else float("nan"),
            cc_true=measured.c_r / measured.c_1 if told else float("nan"),
            sigma=float(measured.sigma(1)) if told else float("inf"),
            z=z,
            p=_chance(z),
            r=float(np.abs(self.intensity[a] - self.intensity[b]).sum() / total) if total else float("nan"),
        )
        return element, measured


def _means(x: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Weighted means of groups; 0 of those without members."""
    total = np.bincount(group, weight)
    return np.bincount(group, weight * x) / np.where(total > 0, total, 1)


def _contrast(x: np.ndarray, noise: np.ndarray, mean: np.ndarray) -> float:
    """Spread of x over the mean intensity: one number for all |q|, or weights would follow the noise of shells.

    At least :data:`LEAST_CONTRAST`, which matters only to data that cannot tell anyway.
    """
    one = np.zeros(len(x), dtype=int)
    variance = between_voxel_variance(one, x / mean, noise / mean**2, np.ones(1))
    return max(float(np.sqrt(variance[0])), LEAST_CONTRAST)


def own_products(
    observations: GroupedObservations, weight: np.ndarray, mean: np.ndarray, degrees: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Products of different measurements of the same voxel, with what is expected of them.

    A voxel's x is the mean of its observations' with weights a; the sum over all pairs of different visits to the voxel
    of a_i a_j x_i x_j is (sum a x)^2 - sum_visits (a x)^2. A visit is what one sweep sees of a voxel within
    :data:`VISIT` degrees: the errors of scale, background and geometry are common to it, and would not be to an image
    of the voxel elsewhere. If few voxels were visited twice, every observation counts as a visit.

    Parameters
    ----------
    observations : GroupedObservations
        n observations of m voxels.
    weight : ndarray, shape (n,)
        Inverse variances of the signals.
    mean : ndarray, shape (m,)
        What is subtracted from the intensities.
    degrees : ndarray, shape (n,)
        Rotation.

    Returns
    -------
    own, known : ndarray, shape (m,)
        The sum over pairs, and its expectation for x = 1 in the voxel, both over (sum a)^2.
    visited : bool
        Whether the pairs are of visits.
    """
    u = observations.response
    voxel = observations.spread(np.arange(len(observations.voxels)))
    order = np.lexsort((degrees, observations.experiment, voxel))
    a = (weight * u**2)[order]
    ax = (weight * u * (observations.signal - u * observations.spread(mean)))[order]
    voxel, experiment, degrees = voxel[order], observations.experiment[order], degrees[order]
    new = (np.diff(voxel) != 0) | (np.diff(experiment) != 0) | (np.diff(degrees) > VISIT)
    begin = np.flatnonzero(np.concatenate([[True], new]))
    visits = np.bincount(voxel[begin], minlength=len(mean))
    visited = bool(np.mean(visits > 1) >= LEAST_VISITED)
    if not visited:
        begin = np.arange(len(a))
    a, ax, voxel = np.add.reduceat(a, begin), np.add.reduceat(ax, begin), voxel[begin]
    total, total_ax = np.bincount(voxel, a), np.bincount(voxel, ax)
    squares, squares_ax = np.bincount(voxel, a**2), np.bincount(voxel, ax**2)
    single = np.bincount(voxel) == 1  # zero but for rounding
    own, known = (total_ax**2 - squares_ax) / total**2, 1 - squares / total**2
    return np.where(single, 0, own), np.where(single, 0, known), visited


class Densities:
    """Probability densities of what was measured, with and without each symmetry element (module's docstring).

    Parameters
    ----------
    measured : list of Covariances
        Elements whose C_1 is not above 0 tell nothing.
    systematic : float
        Scale of the systematic errors.

    Attributes
    ----------
    present : ndarray, shape (elements, nodes)
        Logarithms of the densities, for true values of C_1 that are multiples of the measured ones.
    absent : ndarray, shape (elements, k, nodes)
        The same for k values of m.
    prior : ndarray, shape (k, 1)
        Logarithms of the probabilities of those.
    weight : ndarray, shape (nodes,)
        Logarithms of the probabilities of the multiples.
    """

    def __init__(self, measured: list[Covariances], systematic: float) -> None:
        telling = [m for m in measured if m.c_1 > 0]
        spread = np.sqrt(np.mean([m.common_variance for m in telling])) if telling else 0.0
        deviate = np.linspace(-4, 4, 161)
        factor = 1 + spread * deviate
        factor, deviate = factor[factor > 0], deviate[factor > 0]
        self.weight = -(deviate**2) / 2
        self.weight -= np.log(np.exp(self.weight).sum())
        m = (np.arange(-200, 200) + 0.5)[:, None] / 200
        self.prior = np.log(np.sqrt(1 - m**2) / np.sqrt(1 - m**2).sum())
        self.present = np.zeros((len(measured), len(factor)))
        self.absent = np.zeros((len(measured), len(m), len(factor)))
        for i, one in enumerate(measured):
            if one.c_1 > 0:
                ratio = one.c_r / one.c_1
                self.present[i] = log_density(ratio - factor, np.hypot(one.own_sigma(1.0), systematic))
                self.absent[i] = log_density(ratio - m * factor, np.hypot(one.own_sigma(m), systematic))

    def of_elements(self) -> np.ndarray:
        """Probability of each element by itself, shape (elements,)."""
        n = len(self.present)
        present = np.array([self.log_likelihood([i], []) for i in range(n)])
        absent = np.array([self.log_likelihood([], [[i]]) for i in range(n)])
        return 1 / (1 + np.exp(absent - present))

    def log_likelihood(self, inside: list[int], outside: list[list[int]]) -> float:
        """Logarithm of the likelihood of a group.

        Parameters
        ----------
        inside : list of int
            Its elements.
        outside : list of list of int
            The others; those that correlate alike together.
        """
        from scipy.special import logsumexp

        total = self.weight + self.present[inside].sum(axis=0)
        for alike in outside:
            total = total + logsumexp(self.prior + self.absent[alike].sum(axis=0), axis=0)
        return float(logsumexp(total))


def log_density(x: np.ndarray, scale: float | np.ndarray) -> np.ndarray:
    """Logarithm of the density of Student's t with 3 degrees of freedom, of a scale."""
    return np.log(2 / (np.pi * np.sqrt(3) * scale)) - 2 * np.log1p((x / scale) ** 2 / 3)


def alike(rotations: dict[str, np.ndarray], inside: set[str]) -> list[set[str]]:
    """The rotations that are not in a subgroup H, in the sets H R H with their inverses."""
    members = [np.eye(3, dtype=int), *(rotations[name] for name in inside)]
    sets: list[set[str]] = []
    for name, rotation in rotations.items():
        if name not in inside and not any(name in other for other in sets):
            both = (rotation, np.rint(np.linalg.inv(rotation)).astype(int))
            sets.append({_name(a @ r @ b) for r in both for a in members for b in members})
    return sets


def _jackknife(sums: np.ndarray) -> Covariances:
    """C_R and C_1 from the sums in blocks, shape (4, BLOCKS): numerator and denominator of each.

    Each block is left out in turn (Efron & Tibshirani (1993) An Introduction to the Bootstrap, eq. 11.5).
    """
    sums = sums[:, sums[1] > 0]
    n = sums.shape[1]
    if n < 3 or not sums[3].sum() > 0:
        return Covariances(0.0, 0.0, np.zeros((2, 2)))
    whole = sums.sum(axis=1)
    left = whole[:, None] - sums
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.stack([left[0] / left[1], left[2] / left[3]])
    deviation = np.nan_to_num(values - values.mean(axis=1)[:, None])
    covariance = (n - 1) / n * deviation @ deviation.T
    return Covariances(float(whole[0] / whole[1]), float(whole[2] / whole[3]), covariance)


def _chance(z: float) -> float:
    """Probability of a C_R as high by chance, by Student's t with the degrees of freedom of the jackknife."""
    from scipy.stats import t

    return float(t.sf(z, BLOCKS - 1))


def _score(
    subgroups: list[tuple[dict, set[str]]],
    rotations: dict[str, np.ndarray],
    elements: dict[str, SymmetryElement],
    densities: Densities,
    grid: GlobalGrid,
) -> list[LaueSubgroup]:
    """The subgroups in the order of their likelihood, the assumed one first of equals."""
    proper = (op for op in grid.laue_group if op.r().determinant() > 0 and not op.is_unit_mx())
    assumed = {_name(np.array(op.r().as_double()).reshape(3, 3).astype(int)) for op in proper}
    names = list(elements)
    log_likelihood = []
    for _, inside in subgroups:
        others = [[i for i, name in enumerate(names) if name in one] for one in alike(rotations, inside)]
        log_likelihood.append(densities.log_likelihood([i for i, n in enumerate(names) if n in inside], others))
    log_likelihood = np.array(log_likelihood)
    likelihood = np.exp(log_likelihood - log_likelihood.max())
    likelihood /= likelihood.sum()
    order = sorted(range(len(subgroups)), key=lambda i: (-round(likelihood[i], 12), subgroups[i][1] != assumed))
    scored = []
    for place, i in enumerate(order):
        group, inside = subgroups[i]
        members = [e for name, e in elements.items() if name in inside]
        others = [e for name, e in elements.items() if name not in inside]
        rival = likelihood[order[place + 1]] if place + 1 < len(order) else 0.0
        gap = likelihood[i] * (likelihood[i] - rival)
        scored.append(
            LaueSubgroup(
                symbol=group["subsym"].space_group().laue_group_type().strip(),
                patterson=str(group["best_subsym"].space_group_info()),
                reindex=str(group["cb_op_inp_best"]),
                operations=[e.operation for e in members],
                cc_in=_mean([e.cc_true for e in members]),
                cc_out=_mean([e.cc_true for e in others]),
                r=_mean([e.r for e in members]),
                likelihood=float(likelihood[i]),
                confidence=float(np.sqrt(max(gap, 0))),
                delta=float(group["max_angular_difference"]),
                assumed=inside == assumed,
            )
        )
    return scored


def _warning(best: LaueSubgroup, assumed: LaueSubgroup) -> str:
    """What to tell the user of the assumed group, if another is likely and ten times as likely; empty if not."""
    if best.likelihood < max(0.5, 10 * assumed.likelihood):
        return ""
    if set(assumed.operations) < set(best.operations):
        return (
            f"The diffuse data support a higher Laue group, {best.symbol} ({best.patterson}, likelihood "
            f"{best.likelihood:.2f}), than the assumed {assumed.symbol}: if the Bragg data agree, reindex "
            f"({best.reindex}) and start again with it."
        )
    only = "only a lower" if set(best.operations) < set(assumed.operations) else "another"
    return (
        f"The diffuse data support {only} Laue group, {best.symbol} ({best.patterson}, likelihood "
        f"{best.likelihood:.2f}), and not the assumed {assumed.symbol}: merged in that, the map is a mean over voxels "
        "that differ. Extract again with grid.space_group, or see whether scaling or indexing went wrong."
    )


def _degrees(experiments: ExperimentList, observations: GroupedObservations) -> np.ndarray:
    """Rotation of the observations, counted from anywhere; 0 for stills."""
    widths = [abs(e.scan.get_oscillation()[1]) if e.scan is not None else 0.0 for e in experiments]
    return observations.position[:, 2] * np.array(widths)[observations.experiment]


def _one_of_inverses(rotations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the inverses of others, which compare the same pairs."""
    chosen: dict[str, np.ndarray] = {}
    for name, rotation in rotations.items():
        if _name(np.rint(np.linalg.inv(rotation)).astype(int)) not in chosen or _order(rotation) == 2:
            chosen[name] = rotation
    return chosen


def _order(rotation: np.ndarray) -> int:
    return next(n for n in (2, 3, 4, 6) if (np.linalg.matrix_power(rotation, n) == np.eye(3)).all())


def _name(rotation: np.ndarray) -> str:
    """What becomes of h, k, l as a row vector multiplied by the matrix: e.g. ``-k,h,l``."""
    parts = []
    for column in rotation.T:
        terms = "".join(f"{'-' if c < 0 else '+'}{abs(c) if abs(c) > 1 else ''}{x}" for c, x in zip(column, "hkl") if c)
        parts.append(terms.removeprefix("+"))
    return ",".join(parts)


def _mean(values: list[float]) -> float:
    values = [value for value in values if np.isfinite(value)]
    return float(np.mean(values)) if values else float("nan")


def _jsonable(entry: SymmetryElement | LaueSubgroup) -> dict:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in asdict(entry).items()
    }
