"""A headless Chromium, driven over a pipe by its own DevTools protocol: no driver program, no port, no package."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",  # a container's root may not build one
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
# the browser reads descriptor 3 and writes descriptor 4; both pipes are first moved out of the way of those
LAUNCH = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for pipe, place in zip(pipes, (3, 4)):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds for any one answer
KEYS = {"Enter": "\r", " ": " "}


def find_browser() -> str | None:
    """The first Chromium or Chrome on PATH."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One page of one browser; everything that the page asks of a network or a disk is kept in `requests`."""

    def __init__(self, program: str, profile: Path) -> None:
        self._in, write_there = os.pipe()
        read_there, self._out = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(read_there), str(write_there), program]
            + [*FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._numbers = itertools.count(1)
        self._waiting = b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        pages = [target for target in self.ask("Target.getTargets")["targetInfos"] if target["type"] == "page"]
        answer = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events that come in between are noted."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"the browser said nothing for {PATIENCE:.0f} seconds"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser ended"
            self._waiting += part
        line, self._waiting = self._waiting.split(b"\0", 1)
        message = json.loads(line)
        event, given = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"].get("exception", {}).get("description", str(given)))
        elif event == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(given["entry"]["text"])
        return message

    def open(self, address: str) -> None:
        """Load a page and wait until it is whole."""
        self.requests.clear()
        self.errors.clear()
        self.ask("Page.navigate", url=address)
        until = time.monotonic() + PATIENCE
        while self.run("[location.href, document.readyState]") != [address, "complete"]:
            assert time.monotonic() < until, f"{address} was not loaded"
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.ask("Input.insertText", text=text)

    def press(self, *keys: str) -> None:
        """Press keys by their names, such as ArrowDown."""
        for key in keys:
            text = {"text": KEYS.get(key, key)} if key in KEYS or len(key) == 1 else {}
            code = {"windowsVirtualKeyCode": {"Enter": 13, "Escape": 27, "Tab": 9}.get(key, 0)}
            self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def click(self, element: str) -> None:
        """Click the middle of an element, given as a JavaScript expression, as a mouse does."""
        box = (
            f"(e => {{ e.scrollIntoView({{block: 'nearest'}}); return e.getBoundingClientRect().toJSON() }})({element})"
        )
        at = self.run(box)
        middle = {"x": at["x"] + min(at["width"], 40) / 2, "y": at["y"] + at["height"] / 2}
        for event in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=event, button="left", clickCount=1, **middle)

    def look(self, width: int, height: int, scheme: str = "light") -> bytes:
        """A picture of the page, a .png, in a window of this size, `light` or `dark`."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        return base64.b64decode(self.ask("Page.captureScreenshot")["data"])
