"""A small receiver of the server's calls: they only say that something has changed.

Label Studio calls once, waits a second and never repeats, and anyone on the machine can call: so a
call is a hint to pull earlier than the clock would, and nothing that it carries is read. It has to
bring the secret that was made for it.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from annotation.client import Client, Unknown
from schemas.errors import UserError

HEADER = "X-Prefinery-Secret"
HOST = "127.0.0.1"


class Receiver:
    """Listens on loopback while it is open; `wait` tells of calls.

    A server on another machine cannot reach it: campaigns there are polled.
    """

    def __init__(self, port: int = 0) -> None:
        self.secret = secrets.token_urlsafe(24)
        self._changed = threading.Event()
        try:
            self._server = ThreadingHTTPServer((HOST, port), self._handler())
        except OSError as error:
            raise UserError(f"port {port} cannot be listened on: {error.strerror}") from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._hooked: tuple[Client, int] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self._server.server_address[1]}/changed"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._hooked is not None:
            client, hook = self._hooked
            # A server that is gone calls nobody.
            with contextlib.suppress(Unknown, UserError):
                client.unhook(hook)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hook(self, client: Client, project: int) -> None:
        """Have the server call, until this is closed; it stops calling receivers that were killed.

        Raises UserError where it will not.
        """
        try:
            for hook, headers in client.hooks(project):
                if HEADER in headers:
                    client.unhook(hook)
            self._hooked = client, client.hook(project, self.url, {HEADER: self.secret})
        except Unknown as error:
            raise UserError(f"Label Studio at {client.url} takes no webhook ({error})") from None

    def wait(self, seconds: float) -> bool:
        """Wait for a call, at most so long; whether there was one since the last wait."""
        changed = self._changed.wait(seconds)
        self._changed.clear()
        return changed

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        secret, changed = self.secret.encode(), self._changed

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # seconds that a caller may take for its request

            def do_POST(self) -> None:
                given = self.headers.get(HEADER, "").encode("utf-8", "replace")
                right = hmac.compare_digest(given, secret)
                if right:
                    changed.set()
                self.send_response(204 if right else 403)
                self.send_header("Connection", "close")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: a caller's words are no business of the terminal."""

        return Handler
