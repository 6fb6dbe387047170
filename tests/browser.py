"""A page in headless Chromium, where it is installed: driven through its pipe, with the protocol of its own tools."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
)
_PATIENCE = 120.0
"""Seconds that an answer may take on a busy machine."""


class Page:
    """One page; what went wrong on it is in `problems`."""

    def __init__(self, out: int, back: int) -> None:
        self._out, self._back, self._read, self._number, self._session = out, back, b"", 0, ""
        self._seen: list[str] = []
        self.problems: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Load a file, and wait until all of it is there."""
        self._seen.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._seen:
            self._hear()

    def wide(self, width: int, height: int = 900) -> None:
        """Show it in a window of this size."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, as on a keyboard."""
        down = {"text": text} if text else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **down)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._hear()).get("id") != self._number:
            pass
        assert "error" not in answer, answer["error"]
        return dict(answer["result"])

    def _hear(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._back], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._back, 1 << 16) if ready else b""
            if not part:
                raise AssertionError("the browser does not answer")
            self._read += part
        line, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._seen.append(message.get("method", ""))
        if self._seen[-1] in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(line.decode())
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page in a browser of its own, which ends with it."""
    assert CHROMIUM is not None
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    start = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    arguments = ["bash", "-c", start, CHROMIUM, *_SWITCHES, f"--user-data-dir={profile}"]
    with subprocess.Popen(arguments, pass_fds=(commands, answers), stderr=subprocess.DEVNULL) as process:
        os.close(commands)
        os.close(answers)
        try:
            yield Page(to_browser, from_browser)
        finally:
            os.close(to_browser)  # which it ends with
            os.close(from_browser)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
