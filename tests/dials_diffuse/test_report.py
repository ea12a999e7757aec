from __future__ import annotations

import json
import re

import numpy as np
from chromium import open_page
from report_data import scaling_report

from dials_diffuse.algorithms.scaling.plots import scaling_sections
from dials_diffuse.plot import Choice, Plot, axes, heat_map, line, rounded
from dials_diffuse.provenance import ProcessRecord
from dials_diffuse.report import Section, Table, report_html

SQUARE = np.arange(6.0).reshape(2, 3)
#: Chooses the second sweep and the third phi as a reader would, and writes what is shown then where the test finds it.
READER = """<script>
const wait = setInterval(() => {
  const set = (query, value) => {
    const control = document.querySelector(query);
    control.value = value;
    control.dispatchEvent(new Event("input"));
  };
  if (!document.querySelector("input")) return;
  clearInterval(wait);
  set("select", 1);
  set("input", 2);
  document.body.dataset.shown = document.querySelector(".plot").data[0].z[1][2];
  document.body.dataset.label = document.querySelector("input + output").textContent;
}, 20);
</script></body>"""


def slices(first: float) -> Choice:
    views = [[heat_map([1, 2, 3], [1, 2], SQUARE + first + 10 * i)] for i in range(3)]
    return Choice("phi", ["0", "30", "60"], views, slider=True)


def test_a_page_shows_its_plots_without_a_network(tmp_path):
    sections = [
        Section("Maps", plots=[Plot("Slices", Choice("sweep", ["0", "1"], [slices(0), slices(100)]))], is_open=True),
        Section(
            "Text", "Of <b>one</b>.\n\nOf two.", [Table(["a", "b"], [[1.23456789, None], [True, "<i>"]], "Of all")]
        ),
        Section(
            "Curves", plots=[Plot("One", [line([1, 2], [3, np.nan], error=[0.1, 0.2])], axes("x", "y"), "Help & so")]
        ),
        *scaling_sections(scaling_report()),
    ]
    record = ProcessRecord.now("dials.diffuse_test", "scope {\n  a = <script>\n}\n")
    record.inputs["scaled.refl"] = 64 * "f"
    html = report_html("A & B", sections, record)
    assert len(html) < 10e6
    assert not re.search(r'(src|href)\s*=\s*"(?!data:)', html)
    for text in (
        "A &amp; B",
        "a = &lt;script&gt;",
        "Of &lt;b&gt;one",
        "<td>1.2346</td><td>-</td>",
        "<td>yes</td>",
        64 * "f",
    ):
        assert text in html
    path = tmp_path / "report.html"
    path.write_text(html.replace("</body>", READER))
    page = open_page(path, tmp_path / "chromium")
    assert page.console == []
    assert {"Slices": 1, "One": 1}.items() <= page.plots.items()
    titles = [plot.title for section in sections for plot in section.plots]
    assert list(page.plots) == titles and len(titles) > 20
    assert all(page.plots.values()), page.plots
    assert page.plots["Scale b(phi): beam, illuminated volume, decay"] == 3  # sweeps
    assert 'data-shown="125"' in page.dom and 'data-label=" 60"' in page.dom


def test_numbers_have_five_digits_and_what_is_no_number_is_null():
    values = {
        "a": np.array([[1.23456789, np.nan], [np.inf, 1e-9]]),
        "b": [np.int64(123456789), np.bool_(True), "c", None],
    }
    assert json.dumps(rounded(values)) == '{"a": [[1.2346, null], [null, 1e-09]], "b": [123456789, true, "c", null]}'


def test_many_sweeps_and_panels_stay_a_small_page():
    assert len(report_html("many", scaling_sections(scaling_report(sweeps=100, panels=128)))) < 10e6
