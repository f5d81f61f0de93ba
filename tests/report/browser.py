"""A headless Chromium driven over its debugging pipe: what a page logs, how it is laid out, what it looks like."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

UNDRAWN = """
[...document.images].filter(i => !(i.complete && i.naturalWidth > 0 && i.clientWidth > 0)).map(i => i.alt)
  .concat([...document.querySelectorAll("section svg[viewBox]")]
    .filter(s => !(s.getBoundingClientRect().width > 0 && s.getBBox().width > 0)).map(s => s.outerHTML.slice(0, 80)))
"""
BROKEN_LINKS = """
[...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href"))
  .filter(h => !(h.startsWith("data:") || (h.startsWith("#") && document.getElementById(h.slice(1)))))
"""
TOO_WIDE = """
[...document.querySelectorAll("body *")].filter(e => {
  const scrolls = ".wide, .plot, .graph, .contents";  // these scroll by themselves
  if (e.closest(scrolls) && !e.matches(scrolls)) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1 && !e.closest("svg");
}).map(e => e.tagName + "." + e.className)
"""

AXE = """
axe.run(document, {resultTypes: ["violations"], rules: {"landmark-one-main": {enabled: true}}})
  .then(r => r.violations.map(v => [v.impact, v.id, v.nodes.length, v.nodes[0].html.slice(0, 160)]))
"""


def axe_source() -> str:
    """axe-core, which finds barriers for people with disabilities; its package is used for nothing else."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None, "axe-playwright-python is missing: run make env"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")


def find_browser() -> str | None:
    """The program, or None if none is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page in a headless Chromium, with a profile of its own in ``folder``."""

    def __init__(self, program: str, folder: Path) -> None:
        self.problems: list[str] = []
        """Errors in the console, exceptions, and requests that the page made for anything but itself."""
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def connect() -> None:  # the debugging pipe is on descriptors 3 (reads) and 4 (writes)
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)
            for number in (3, 4):
                os.set_inheritable(number, True)

        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-gpu"]
        options += ["--no-sandbox", "--no-first-run", "--disable-extensions", "--disable-background-networking"]
        options += ["--disable-component-update", "--hide-scrollbars", "--allow-file-access-from-files"]
        self._process = subprocess.Popen(
            [program, *options, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=connect,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._numbers, self._rest = itertools.count(1), b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._process.pid, 9)
        self._process.wait()

    def _messages(self, deadline: float) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._rest:
                message, _, self._rest = self._rest.partition(b"\0")
                yield json.loads(message)
            if not select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise ConnectionError("the browser has ended")
            self._rest += piece

    def call(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages(time.monotonic() + timeout):
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)
        raise AssertionError

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method", ""), event.get("params", {})
        self._events.append({"method": method})
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details))[:300])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {json.dumps(parameters['args'])[:300]}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {parameters['entry']['text']} {parameters['entry'].get('url', '')}"[:300])
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("data:", "blob:", "about:")) and url != self.page:
                self.problems.append(f"request: {url[:200]}")

    page = ""

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Load a file at a window width and wait until it is drawn."""
        self.page = path.resolve().as_uri()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._events.clear()
        self.call("Page.navigate", url=self.page)
        deadline = time.monotonic() + 60
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._note(next(self._messages(deadline)))
        self.run("Promise.all([...document.images].map(i => i.decode().catch(() => 0))).then(() => 0)")

    def media(self, scheme: str = "light", paper: bool = False) -> None:
        """Show pages in a colour scheme (``light`` or ``dark``), on a screen or as on paper."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media="print" if paper else "", features=features)

    def barriers(self) -> list[list[Any]]:
        """What axe-core finds serious or critical in the page: impact, rule, number of elements, the first of them."""
        self.run(f"{axe_source()}; 0")
        return [found for found in self.run(AXE, 300) if found[0] in ("serious", "critical")]

    def pdf(self) -> bytes:
        """The page as printed on A4."""
        answer = self.call("Page.printToPDF", timeout=120, paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the first element that matches, in the window."""
        found = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return tuple(self.run(f"(r => [r.left, r.top, r.right, r.bottom])({found})"))

    def hover(self, x: float, y: float) -> None:
        """Move the pointer to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def run(self, expression: str, timeout: float = 60) -> Any:
        """Value of a JavaScript expression in the page; promises are waited for."""
        result = self.call("Runtime.evaluate", timeout, expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save what the page looks like as PNG: all of it, or only the window."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser_page(program: str, folder: Path, page: Path, width: int) -> Iterator[Browser]:
    """A browser that shows ``page`` in a window of ``width`` pixels."""
    with Browser(program, folder) as browser:
        browser.open(page, width)
        yield browser
