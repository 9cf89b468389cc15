"""An OpenAI-compatible server that answers at once: what is measured is the client.

A bare asyncio protocol over HTTP/1.1 with keep-alive, since a web framework would take more CPU
than the client under test. `python -m benchmarks.instant_server` prints its port and serves until
its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

MODEL = "instant"
TEXT = "3+4=7\n7-2=5\n#5"

_MODELS = {"object": "list", "data": [{"id": MODEL, "root": "/models/instant"}]}
_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": TEXT},
        }
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32},
}


def _response(content: object) -> bytes:
    body = json.dumps(content).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_BYTES = {b"GET": _response(_MODELS), b"POST": _response(_ANSWER)}


class Instant(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that has come in."""
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head = self.held[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = end + 4 + length
            if len(self.held) < whole:
                return
            method = self.held[:end].split(b" ", 1)[0]
            self.held = self.held[whole:]
            self.transport.write(_BYTES[method])


async def serve() -> None:
    """Serve on a free loopback port, printed as one line, until stdin is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Instant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
