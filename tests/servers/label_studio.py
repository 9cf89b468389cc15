"""A real Label Studio server for tests and benchmarks, and people who answer its tasks over its API.

A first start takes a minute or two (its database is migrated), so a migrated data folder is kept
beside the environment and copied for each server.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import threading
from collections.abc import Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx

from annotation.environment import VERSION, ensure
from annotation.server import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "Annotate-1234"


def cache() -> Path:
    """Where environments are kept."""
    return Path(os.environ.get("PREFINERY_CACHE") or ROOT / ".cache")


def server(data: Path) -> Server:
    """A server over a new data folder, not started yet."""
    environment = ensure(cache())
    template = cache() / f"label-studio-{VERSION}-data"
    with (cache() / f"label-studio-{VERSION}-data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (template / "complete").exists():
            shutil.rmtree(template, ignore_errors=True)
            with Server(environment, template, free_port()):
                pass
            (template / "complete").touch()
        shutil.copytree(template, data, ignore=shutil.ignore_patterns("lock", "*.log", "complete"))
    return Server(environment, data, free_port())


class Person:
    """Someone who answers: signs up by an invitation, and works with a session of their own."""

    def __init__(self, owner: httpx.Client, email: str) -> None:
        self.email = email
        link = owner.get("/api/invite").raise_for_status().json()["invite_url"]
        self.http = httpx.Client(base_url=owner.base_url, timeout=60, trust_env=False)
        page = self.http.get("/user/signup/" + link[link.index("?") :])
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert found is not None, page.text[:500]
        form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": found.group(1)}
        done = self.http.post(str(page.url), data=form, headers={"Referer": str(page.url)})
        assert done.status_code == 302, (done.status_code, done.text[:500])
        self.id = int(self.call("GET", "/api/current-user/whoami")["id"])

    def call(self, method: str, path: str, **more: Any) -> Any:
        """One request, as the page would send it."""
        token = self.http.cookies.get("csrftoken") or ""
        headers = {"X-CSRFToken": token, "Referer": str(self.http.base_url)}
        reply = self.http.request(method, path, headers=headers, **more)
        assert reply.status_code < 300, (method, path, reply.status_code, reply.text[:500])
        return reply.json() if reply.content else None

    def answer(self, task: int, choice: str | None, seconds: float = 1.0, **more: Any) -> int:
        """Prefer in a pair, or skip (None); the annotation's id."""
        if choice is None:
            more["was_cancelled"] = True
        return self.submit(task, preferring(choice), seconds, **more)

    def submit(self, task: int, result: Any, seconds: float = 1.0, **more: Any) -> int:
        """Answer a task of any kind; the annotation's id."""
        body = {"result": result, "lead_time": seconds, **more}
        return int(self.call("POST", f"/api/tasks/{task}/annotations/", json=body)["id"])

    def change(self, annotation: int, choice: str, **more: Any) -> None:
        """Answer otherwise."""
        body = {"result": preferring(choice), **more}
        self.call("PATCH", f"/api/annotations/{annotation}/", json=body)

    def delete(self, annotation: int) -> None:
        """Take an answer back."""
        self.call("DELETE", f"/api/annotations/{annotation}/")


def preferring(choice: str | None) -> list[dict[str, Any]]:
    """The result of a pairwise task."""
    if choice is None:
        return []
    value = {"choices": [choice]}
    return [{"from_name": "preference", "to_name": "prompt", "type": "choices", "value": value}]


def owner(server: Server) -> httpx.Client:
    """The owner's plain access to the API."""
    headers = {"Authorization": f"Token {server.account.token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False)


class LossyProxy:
    """Stands before a server and loses replies to imports, as a network and its timeouts do.

    `late`: 504 is said before the server has finished; else the connection is cut after it has.
    """

    def __init__(self, port: int, lose: int, late: bool = False) -> None:
        self.lost = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                now = proxy.lost < lose and self.command == "POST" and "/import" in self.path
                if now and late:
                    proxy.lost += 1
                    forward = (port, self.command, self.path, body, dict(self.headers))
                    threading.Thread(target=_forward, args=forward, daemon=True).start()
                    self.send_error(504)
                    return
                status, headers, content = _forward(
                    port, self.command, self.path, body, dict(self.headers)
                )
                if now:
                    proxy.lost += 1
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() in ("content-type", "location"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _pass_on

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _forward(
    port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    kept = {k: v for k, v in headers.items() if k.lower() not in ("connection", "accept-encoding")}
    connection.request(method, path, body, kept)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, dict(reply.getheaders()), content
