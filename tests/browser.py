"""A headless Chromium, driven through its debugging pipe (the Chrome DevTools protocol)."""

import base64
import json
import os
import select
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# The last three keep it from asking the network for anything of its own.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--remote-debugging-pipe", "--disable-dev-shm-usage", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync"),
)
PATIENCE = 120  # seconds without a word from the browser


class Browser:
    """A process of Chromium, with more flags if need be; a context manager that ends it."""

    def __init__(self, profile: Path, *flags: str):
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        # Chromium reads descriptor 3 and writes descriptor 4.
        redirect = f'exec "$@" 3<&{command_end} 4>&{answer_end}'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                redirect,
                "bash",
                CHROMIUM,
                *FLAGS,
                *flags,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(command_end, answer_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_end)
        os.close(answer_end)
        self._number, self._buffer, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.command("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._commands)
        os.close(self._answers)

    def command(self, method: str, session: str = "", **parameters) -> dict:
        """Sends a command and returns its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait(self, event: str, session: str) -> None:
        """Waits until an event of a page has come, if it did not before."""
        while not any((e["method"], e.get("sessionId")) == (event, session) for e in self.events):
            self.events.append(self._read())

    def open(self, path: Path | str, width: int, dark: bool = False, script: str = "") -> "Page":
        """Shows a file, or an address, in a window of its own.

        Args:
            path: The file; the address if it is a str.
            width: CSS pixels.
            dark: Whether the user prefers dark colours.
            script: What runs before the page's own.
        """
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.command(f"{domain}.enable")
        page.command(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.command("Emulation.setEmulatedMedia", features=[scheme])
        page.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        self.events = [e for e in self.events if e.get("sessionId") != page.session]
        address = path if isinstance(path, str) else path.absolute().as_uri()
        page.command("Page.navigate", url=address)
        self.wait("Page.loadEventFired", page.session)
        return page

    def _read(self) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            chunk = os.read(self._answers, 1 << 20) if ready else b""
            assert chunk, "Chromium does not answer"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


class Page:
    """A page that is shown."""

    def __init__(self, browser: Browser, session: str):
        self._browser, self.session = browser, session

    def command(self, method: str, **parameters) -> dict:
        return self._browser.command(method, self.session, **parameters)

    def evaluate(self, expression: str):
        """Returns the value of a JavaScript expression, or that of its promise."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.command("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def events(self, *methods: str) -> list[dict]:
        """Returns the parameters of the events of these kinds since the page was opened."""
        self.evaluate("0")  # the events before this answer have arrived
        return [
            event["params"]
            for event in self._browser.events
            if event["method"] in methods and event.get("sessionId") == self.session
        ]

    def complaints(self) -> list[dict]:
        """Returns what the console shows: errors, warnings, violations of the page's policy."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        # Verbose entries are advice, which the console hides.
        return [e for e in self.events(*names) if e.get("entry", {}).get("level") != "verbose"]

    def requests(self) -> list[str]:
        """Returns the beginnings of all addresses that were requested, the page's among them."""
        return [event["request"]["url"][:200] for event in self.events("Network.requestWillBeSent")]

    def pdf(self) -> bytes:
        """Returns the page as it is printed in colour."""
        return base64.b64decode(self.command("Page.printToPDF", printBackground=True)["data"])
