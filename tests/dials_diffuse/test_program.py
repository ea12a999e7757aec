from __future__ import annotations

import pytest
from dials.util import Sorry
from iotbx.phil import parse

from dials_diffuse.program import check_inputs_stay, named_files

SCOPE = """
mask = None
  .type = path
  .multiple = True
grid = 3
  .type = int
output { log = a.log
    .type = path
}
"""


def test_files_that_parameters_name_are_inputs(tmp_path):
    for name in ("1.mask", "2.mask", "a.log"):
        (tmp_path / name).write_text(name)
    text = f"mask={tmp_path}/1.mask\nmask={tmp_path}/2.mask\nmask={tmp_path}/3.mask\noutput.log={tmp_path}/a.log"
    scope = parse(SCOPE).fetch(parse(text))
    assert named_files(scope) == [f"{tmp_path}/1.mask", f"{tmp_path}/2.mask"]
    assert named_files(parse(SCOPE)) == []


def test_an_input_is_never_an_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = parse(SCOPE).extract().output
    check_inputs_stay(["b.log"], output)
    with pytest.raises(Sorry, match="output.log=a.log is an input, too"):
        check_inputs_stay(["b.log", f"{tmp_path}/a.log"], output)
