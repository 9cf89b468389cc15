"""A headless browser driven over the DevTools protocol, for tests that must see a page run."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import aiohttp

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--window-size=1400,1600",
]


class Browser:
    """One page of one browser that reaches loopback alone; `async with Browser(folder) as page`.

    `requests` are the URLs that the page asked for, `dialogs` what it would have shown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.console: list[str] = []
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        assert CHROMIUM is not None
        profile = Path(tempfile.mkdtemp(prefix="profile", dir=self.folder))
        self._log = (self.folder / "browser.log").open("wb")
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                *_FLAGS,
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            await self._connect(profile / "DevToolsActivePort")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if task := getattr(self, "_reader", None):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if session := getattr(self, "_session", None):
            await session.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        self._log.close()

    async def _connect(self, port_file: Path) -> None:
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            assert self._process.poll() is None and time.monotonic() < deadline, "no browser"
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as reply:
            targets = await reply.json()
        url = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
        self._socket = await self._session.ws_connect(url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Network"):
            await self.send(f"{domain}.enable")

    async def _read(self) -> None:
        async for message in self._socket:
            event = message.json()
            if waiting := self._waiting.pop(event.get("id", 0), None):
                if not waiting.done():
                    waiting.set_result(event)
                continue
            match event.get("method"):
                case "Network.requestWillBeSent":
                    self.requests.append(event["params"]["request"]["url"])
                case "Page.javascriptDialogOpening":
                    self.dialogs.append(event["params"]["message"])
                    no = {"accept": event["params"]["type"] == "beforeunload"}
                    await self._post("Page.handleJavaScriptDialog", no)
                case "Runtime.consoleAPICalled":
                    words = [str(a.get("value", "")) for a in event["params"]["args"]]
                    self.console.append(" ".join(words))

    async def _post(self, method: str, params: dict[str, Any]) -> int:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return number

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command; its result."""
        number = next(self._ids)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        reply = await asyncio.wait_for(waiting, 90)
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    async def run(self, script: str) -> Any:
        """Value of a JavaScript expression."""
        reply = await self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def until(self, script: str, seconds: float = 60) -> Any:
        """Wait until the expression is true; its value."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(AssertionError):  # the page may be loading
                if value := await self.run(script):
                    return value
            assert time.monotonic() < deadline, f"never true: {script}"
            await asyncio.sleep(0.2)

    async def go(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        await self.send("Page.navigate", url=url)
        await self.until("location.href != 'about:blank' && document.readyState == 'complete'")

    async def key(self, key: str, code: str | None = None, *, control: bool = False) -> None:
        """Press and release a key: a character, or a name such as `Enter`."""
        if code is None:
            code = f"Digit{key}" if key.isdigit() else f"Key{key.upper()}" if len(key) == 1 else key
        number = 13 if key == "Enter" else 32 if key == " " else ord(key.upper()[0])
        common: dict[str, Any] = {
            "key": key,
            "code": code,
            "windowsVirtualKeyCode": number,
            "modifiers": 2 if control else 0,
        }
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        if control:
            text = {}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        """Type text where the focus is."""
        await self.send("Input.insertText", text=text)

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot."""
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
