"""What is in the page, taken out of it again without our own code."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest
from cctbx import miller
from example_maps import example_map

from dials_diffuse.algorithms.view import show
from dials_diffuse.command_line.diffuse_view import phil_scope, run


def read_page(path):
    text = path.read_text()
    description = json.loads(re.search(r'id="description">(.*?)</script>', text)[1])
    arrays = {}
    for name in ("low", "high", "errors"):
        packed = re.search(rf'id="packed-{name}">([^<]*)</script>', text)[1]
        values = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.uint8)
        arrays[name] = values.reshape(description["shape"])
    return text, description, arrays


@pytest.fixture(params=["C 1 2 1", "P 6"])
def written(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diffuse_map, index, columns = example_map(request.param)
    diffuse_map.write("merged.nxs")
    run(["merged.nxs", "browser=False"])
    return diffuse_map, index, columns, tmp_path / "merged.html"


def test_every_voxel_is_in_the_page_once(written):
    diffuse_map, index, columns, path = written
    text, description, arrays = read_page(path)
    assert not re.search(r'(src|href)\s*=\s*"(?!data:)', text) and "http" not in text
    codes = arrays["low"].astype(int) | arrays["high"].astype(int) << 8
    values = np.array(description["values"], dtype=float)
    errors = np.array(description["errors"], dtype=float)
    unit = max(np.median(np.abs(columns["intensity"])) / 20, np.median(columns["intensity_errors"]))
    laue = diffuse_map.grid.laue_group.build_derived_point_group()
    for number in range(0, len(index), 5):
        mates = miller.sym_equiv_indices(laue, tuple(int(n) for n in index[number])).indices()
        places = np.array(sorted({mate.h() for mate in mates})) - description["lowest"]
        places = places[((places >= 0) & (places < codes.shape)).all(axis=1)]
        places = [tuple(place) for place in places if codes[tuple(place)]]
        assert len(places) == 1
        truth = columns["intensity"][number]
        assert abs(values[codes[places[0]]] - truth) < 0.0072 * (abs(truth) + unit)
        assert errors[arrays["errors"][places[0]]] == pytest.approx(columns["intensity_errors"][number], rel=0.052)
    assert (codes > 0).sum() == len(index)
    assert np.allclose(np.array(description["lowest"]) * description["step"], np.array(description["lowest"]) / 2)
    assert description["cell"] == pytest.approx(diffuse_map.grid.unit_cell.parameters())


def test_a_page_that_would_be_too_large_has_fewer_voxels(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(show, "PAGE_SIZE", 0)
    diffuse_map, *_ = example_map("P 2 2 2", ndiv=4)
    diffuse_map.write("merged.nxs")
    params = phil_scope.extract()
    params.browser = False
    sizes = []
    for params.max_size in (50, 0.05, 0.005):
        with caplog.at_level("INFO", "dials.diffuse"):
            show.show_map("merged.nxs", params)
        text, description, arrays = read_page(tmp_path / "merged.html")
        sizes.append((description["step"][0], description["coarse"], description["shape"]))
        assert ("axis is shown" in text) == (params.max_size < 50)
    assert [size[:2] for size in sizes] == [(0.25, 1), (0.5, 2), (1.0, 4)], sizes
    assert "above max_size=0.05 MB" in caplog.text
