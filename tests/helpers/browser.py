"""Use a page in headless Chromium as a reader does: mouse, controls, screenshots (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
OPTIONS += ("--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--hide-scrollbars")


class Browser:
    """A browser with one page.

    Attributes
    ----------
    console : list of str
        What scripts wrote to the console, and errors.
    """

    def __init__(self, commands: io.FileIO, answers: io.FileIO) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._count = 0
        self._session: dict[str, str] = {}
        self.console: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict:
        """A command of the protocol, and its answer."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": params, **self._session}
        self._commands.write(json.dumps(command).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(message["params"]))
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]

    def _message(self) -> dict:
        while b"\0" not in self._buffer:
            part = self._answers.read(1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, path: Path, width: int = 1400, height: int = 900) -> float:
        """Open a page of dials.diffuse_view; seconds until it is drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        begin = time.perf_counter()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.evaluate("document.body?.dataset.drawn ?? ''"):
            assert time.perf_counter() - begin < 60 and not self.console, self.console
            time.sleep(0.02)
        return time.perf_counter() - begin

    def evaluate(self, expression: str) -> Any:
        """Value of an expression of JavaScript in the page, once the page has been drawn again if it has to be."""
        drawn = f"new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done({expression}))))"
        answer = self.call("Runtime.evaluate", expression=drawn, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose(self, control: str, value: Any) -> None:
        """Give a control of the page a value, as a reader would."""
        kinds = '["input", "change"].forEach((kind) => control.dispatchEvent(new Event(kind)))'
        self.evaluate(
            f"(() => {{ const control = document.getElementById({control!r}); control.value = {json.dumps(value)}; "
            f"{kinds}; }})()"
        )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """An event of the mouse at a point of the window: mouseMoved, mousePressed, mouseReleased, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", buttons=1, clickCount=1)

    def screenshot(self, filename: Path | None = None) -> np.ndarray:
        """Red, green, blue of the window, shape (height, width, 3), uint8."""
        import matplotlib.image

        self.evaluate("0")
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if filename:
            filename.write_bytes(png)
        return np.rint(255 * matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]).astype(np.uint8)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser; skips the test where there is no Chromium.

    Parameters
    ----------
    profile : Path
        A folder for Chromium's own files.
    """
    chromium = next((found for name in NAMES if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    their_commands, our_commands = os.pipe()
    our_answers, their_answers = os.pipe()

    # Chromium reads commands from descriptor 3 and writes answers to 4
    script = f'exec "$@" 3<&{their_commands} 4>&{their_answers}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", chromium, *OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(their_commands, their_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_commands)
    os.close(their_answers)
    try:
        with open(our_commands, "wb", buffering=0) as commands, open(our_answers, "rb", buffering=0) as answers:
            yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait(timeout=30)
