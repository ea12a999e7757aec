"""Open a page in headless Chromium, as a reader would."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest


@dataclass
class Page:
    """A page after its scripts have run.

    Attributes
    ----------
    plots : dict of str to int
        By title of the plot: how many curves and maps it shows.
    console : list of str
        What scripts wrote to the console, errors among it.
    dom : str
    """

    plots: dict[str, int]
    console: list[str]
    dom: str


def open_page(path: Path, profile: Path) -> Page:
    """Open a report with all its sections open; skips the test where there is no Chromium.

    Parameters
    ----------
    path : Path
        The page.
    profile : Path
        A folder for Chromium's own files.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND"]  # whatever is not in the page is an error on the console
    options += [f"--user-data-dir={profile}", "--window-size=1400,1000", "--virtual-time-budget=60000", "--dump-dom"]
    run = subprocess.run([chromium, *options, f"{path.resolve().as_uri()}#all"], capture_output=True, timeout=120)
    console = re.findall(r"CONSOLE[^\n]*", run.stderr.decode(errors="replace"))
    dom = run.stdout.decode()
    parser = _PlotCounter()
    parser.feed(dom)
    return Page(parser.plots, console, dom)


class _PlotCounter(HTMLParser):
    """Counts what plotly.js drew (curves: ``g.trace``, maps: ``g.hm``) within the main SVG of each plot."""

    def __init__(self) -> None:
        super().__init__()
        self.plots: dict[str, int] = {}
        self.title = ""
        self.in_heading = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        classes = (values.get("class") or "").split()
        if tag == "h4":
            self.title, self.in_heading = "", True
        elif tag == "div" and "plot" in classes:
            assert self.title not in self.plots, f"two plots are called {self.title}"
            self.plots[self.title] = 0
        elif self.title in self.plots and tag == "g" and {"trace", "hm"} & set(classes):
            self.plots[self.title] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "h4":
            self.in_heading = False
        elif tag == "figure":
            self.title = ""

    def handle_data(self, data: str) -> None:
        if self.in_heading:
            self.title += data
