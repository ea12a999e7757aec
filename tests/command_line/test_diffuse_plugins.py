from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from installed_plugin import documented_plugin, install_plugin, run_with_plugin

from dials_diffuse.algorithms.plugin_list import list_plugins
from dials_diffuse.command_line.diffuse_plugins import run

BUILT_IN = {
    "dials_diffuse.correction": {"solid_angle", "polarisation", "detector_efficiency", "air_attenuation", "lorentz"},
    "dials_diffuse.bragg_mask": {"none", "ellipsoid", "shoebox", "file"},
    "dials_diffuse.scaling_term": {"scale", "absorption", "offset", "detector", "modules"},
    "dxtbx.scaling_model_ext": {"diffuse"},
}


def lines(text: str) -> dict[str, str]:
    """Lines of the tables by what stands in their first column."""
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}


def test_alone_it_lists_what_is_built_in(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run([])
    rows = lines(capsys.readouterr().out)
    for plugins in list_plugins().values():
        for plugin in plugins:
            assert plugin.value in rows[plugin.name]
            assert f"dials-diffuse {version('dials-diffuse')}" in rows[plugin.name]
    assert {group: {plugin.name for plugin in plugins} for group, plugins in list_plugins().items()} == BUILT_IN
    assert not list(tmp_path.iterdir())


def test_the_list_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["output.log=plugins.log"])
    assert set().union(*BUILT_IN.values()) <= set(lines(Path("plugins.log").read_text()))


@pytest.mark.parametrize(
    "group", ["dials_diffuse.correction", "dials_diffuse.bragg_mask", "dials_diffuse.scaling_term"]
)
def test_plugins_of_the_documentation_are_listed(tmp_path, group):
    code, entry = documented_plugin(group)
    done = run_with_plugin(install_plugin(tmp_path / "plugin", group, code, entry), "plugins")
    assert done.returncode == 0, done.stderr
    name, value = (part.strip() for part in entry.split("="))
    row = lines(done.stdout)[name]
    assert value in row and f"{value.split(':')[0]} 1.0" in row
    assert code.split('"""')[1].split("\n")[0] in row  # its docstring


@pytest.mark.parametrize(
    ("code", "row", "below"),
    [
        ("raise RuntimeError('no such library')", "BROKEN: RuntimeError: no such library", "cannot be loaded"),
        ("Mask = 3", "broken:Mask", "is not a BraggMask"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_error(tmp_path, code, row, below):
    folder = install_plugin(tmp_path / "plugin", "dials_diffuse.bragg_mask", code, "mine = broken:Mask")
    done = run_with_plugin(folder, "plugins")
    assert done.returncode == 0, done.stderr
    rows = lines(done.stdout)
    assert row in rows["mine"]
    assert set().union(*BUILT_IN.values()) <= set(rows)
    assert below in done.stdout
