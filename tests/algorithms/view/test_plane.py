from __future__ import annotations

import numpy as np
import pytest
from cctbx import uctbx
from dials.util import Sorry
from iotbx.phil import parse

from dials_diffuse.algorithms.view.plane import Plane, vectors_in_zone
from dials_diffuse.phil_scope.view import phil_scope

TRICLINIC = uctbx.unit_cell((20, 23, 26, 82, 105, 97))
HEXAGONAL = uctbx.unit_cell((22, 22, 26, 90, 90, 120))


def matrix(cell):
    return np.array(cell.fractionalization_matrix()).reshape(3, 3)


def plane(text, cell=TRICLINIC):
    params = phil_scope.fetch(parse("plane {\n" + text.replace(" ", "\n") + "\n}")).extract()
    return Plane.from_params(params.plane, matrix(cell))


@pytest.mark.parametrize("text", ["zone=0,0,1 level=1.5", "zone=1,2,-1 level=-0.5", "vectors=1,1,0,0,1,3 level=2"])
def test_lengths_and_angles_are_true(text):
    chosen = plane(text)
    rng = np.random.default_rng(0)
    origin, right, up = chosen.frame(matrix(TRICLINIC))
    points = origin + rng.normal(size=(6, 1)) * right + rng.normal(size=(6, 1)) * up
    np.testing.assert_allclose(points @ chosen.zone, chosen.level)
    places = chosen.draw(points, matrix(TRICLINIC))
    reciprocal = TRICLINIC.reciprocal()
    for i in range(5):
        apart = points[i] - points[i + 1]
        assert np.linalg.norm(places[i] - places[i + 1]) == pytest.approx(reciprocal.length(tuple(apart)))
        squared = reciprocal.length(tuple(points[i])) ** 2  # |q| of a point: Pythagoras about the drawing's (0, 0)
        assert squared == pytest.approx(reciprocal.length(tuple(origin)) ** 2 + (places[i] ** 2).sum())
    first, second = chosen.vectors
    ends = chosen.draw(origin + np.array([(0, 0, 0), first, second]), matrix(TRICLINIC))
    assert ends[1][0] > 0 and ends[1][1] == pytest.approx(0, abs=1e-12) and ends[2][1] > 0
    angle = np.degrees(np.arctan2(ends[2][1], ends[2][0]))
    assert angle == pytest.approx(reciprocal.angle(tuple(map(float, first)), (0.0, 0, 0), tuple(map(float, second))))


def test_the_level_of_a_point():
    chosen = plane("vectors=1,1,0,0,0,1 through=1,0.5,7")
    assert chosen.zone == (1, -1, 0) and chosen.level == 0.5
    assert plane("zone=0,2,0 through=1,0.5,7").level == 1


def test_vectors_of_a_zone_are_the_shortest():
    assert vectors_in_zone((0, 1, 0), matrix(TRICLINIC)) == ((1, 0, 0), (0, 0, 1))
    assert vectors_in_zone((0, 0, -2), matrix(HEXAGONAL)) == ((1, 0, 0), (0, 1, 0))
    assert vectors_in_zone((1, 1, 0), matrix(HEXAGONAL)) == ((0, 0, 1), (1, -1, 0))
    for zone in ((1, 2, -1), (2, -3, 1)):
        first, second = vectors_in_zone(zone, matrix(TRICLINIC))
        assert not np.dot(first, zone) and not np.dot(second, zone)
        assert np.abs(np.cross(first, second)).tolist() == np.abs(zone).tolist()  # a basis of all that is in the plane


def test_names():
    assert plane("zone=0,1,0 level=1.333333").labels() == ("h", "l", "h, 1.333, l")
    assert plane("zone=0,0,-1 level=2").labels() == ("h", "k", "h, k, -2")
    assert plane("zone=1,-2,0 level=0.5", HEXAGONAL).labels() == (
        "x (0 0 1)",
        "y (2 1 0)",
        "h - 2k = 0.5: (0.1 -0.2 0) + x (0 0 1) + y (2 1 0)",
    )
    chosen = plane("vectors=1,1,0,0,0,2 level=0")
    assert chosen.labels()[2] == "h - k = 0: (0 0 0) + x (1 1 0) + y (0 0 2)"


def test_no_plane():
    with pytest.raises(Sorry, match="no direction"):
        plane("zone=0,0,0")
    with pytest.raises(Sorry, match="along one line"):
        plane("vectors=1,1,0,2,2,0")
