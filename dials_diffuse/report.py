"""HTML reports in DIALS's style: one file, that shows its plots without a network."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dials_diffuse.plot import DIGITS, Plot
from dials_diffuse.provenance import ProcessRecord

TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass
class Table:
    """Rows under a header, which may be empty; numbers are written with 5 digits, None as a dash."""

    header: list[str]
    rows: list[list[Any]]
    caption: str = ""


@dataclass
class Section:
    """A part of a report that opens and closes by its title.

    Attributes
    ----------
    title, text : str
        ``text`` may have several paragraphs, with an empty line between them.
    tables : list of Table
    plots : list of Plot
    is_open : bool
        Whether it is open at first.
    """

    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    is_open: bool = False


def report_html(title: str, sections: list[Section], record: ProcessRecord | None = None) -> str:
    """A page with all that it needs inside.

    Parameters
    ----------
    title : str
    sections : list of Section
    record : ProcessRecord, optional
        The run whose versions, parameters and inputs end the page.
    """
    return render("report.html", title=title, sections=sections, record=record, plotly=_packed_plotly())


def render(name: str, **values: Any) -> str:
    """The page of one of :data:`TEMPLATES`, with values for what it names."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    return environment.get_template(name).render(**values)


def packed(content: bytes) -> str:
    """Base64 of gzip, which a page unpacks."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _packed_plotly() -> str:
    """plotly.js: Debian's is not minified, and 10 MB as it is."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs().encode())


def _cell(value: Any) -> str:
    """Text of a table's cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
