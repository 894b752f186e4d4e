"""A real browser without a window: Chromium, driven over its DevTools pipe. It needs no network."""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FOUND = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    FOUND is None, reason="no Chromium on this machine: apt-get install chromium"
)
#: Seconds until a browser that does not answer is ended.
PATIENCE = 240


class BrowserPage:
    """A page that was opened, and what it asked for."""

    def __init__(self, browser, session):
        self._browser, self._session = browser, session
        #: The addresses that the page requested.
        self.requests = []
        #: Errors of scripts, and what the page's policy forbade.
        self.complaints = []

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol."""
        return self._browser.call(method, self._session, **parameters)

    def run(self, script):
        """Evaluate JavaScript and return its value."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def resize(self, width, height=900):
        """Set the size of the window, a phone's below 600 pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def set_mode(self, mode, media="screen"):
        """Prefer "light" or "dark"; ``media`` is "screen" or "print"."""
        features = [{"name": "prefers-color-scheme", "value": mode}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, path):
        """Write a PNG of the whole page, for people who mend a test."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """A process of Chromium."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._number, self._pages = 0, {}

    def open(self, path):
        """Open a file in a new tab, and wait until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = BrowserPage(self, session)
        for domain in ("Network", "Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=Path(path).absolute().as_uri())
        loaded = "document.readyState === 'complete' && location.protocol === 'file:'"
        while not page.run(loaded):
            time.sleep(0.05)
        return page

    def call(self, method, session=None, **parameters):
        """Send a command and return its result; events that come before it are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        page = self._pages.get(event.get("sessionId"))
        if page is None:
            return
        if event["method"] == "Network.requestWillBeSent":
            page.requests.append(event["params"]["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            page.complaints.append(event["params"]["exceptionDetails"]["text"])
        elif event["method"] == "Log.entryAdded":
            page.complaints.append(event["params"]["entry"]["text"])

    def _read(self):
        """Read one message, which ends with a zero byte."""
        message = bytearray()
        while not message.endswith(b"\0"):
            part = self._from.read(1)
            assert part, "the browser ended"
            message += part
        return json.loads(message[:-1])


@contextmanager
def running():
    """Start Chromium; it is ended after the block, or when it hangs."""
    child_in, to_browser = os.pipe()
    from_browser, child_out = os.pipe()
    # Its processes may still write while they end.
    with tempfile.TemporaryDirectory("tsllm-browser", ignore_cleanup_errors=True) as profile:
        # Debian's start script asks for no window; descriptors 3 and 4 are the protocol's.
        shell = f'exec "$@" 3<&{child_in} 4>&{child_out}'
        options = [
            *("--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-component-update"),
        ]
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", FOUND, *options],
            pass_fds=(child_in, child_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(child_in)
        os.close(child_out)

        def end():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the browser and its own processes

        watch = threading.Timer(PATIENCE, end)
        watch.start()
        try:
            with os.fdopen(to_browser, "wb") as to, os.fdopen(from_browser, "rb") as back:
                yield Browser(to, back)
        finally:
            watch.cancel()
            end()
            process.wait()
