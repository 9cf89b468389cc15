"""A Label Studio server on this machine, for people who have none: loopback only, SQLite, no calls out.

Its data, its account and its token live in one folder, readable by the user alone. Sign-up is
closed but for invited people, and telemetry, version checks and error reports are off.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self
from urllib.parse import urlsplit

from pipelines.durable import write_durably
from schemas.errors import UserError

STARTING_S = 300.0
"""Seconds until it answers: 3 to 90 on two cores, the first time the longest."""
STOPPING_S = 15.0
HOST = "127.0.0.1"
USER = "prefinery@localhost.local"


@dataclass(frozen=True)
class Account:
    """Who owns the server: shown once by `review serve`, kept in `account.json`."""

    user: str
    password: str
    token: str


class Server:
    """One server over one data folder; used as `with Server(...)`, or started and stopped.

    It leads a process group of its own, which is ended as a whole. If this process is killed, the
    kernel tells the server to stop.
    """

    def __init__(self, environment: Path, data: Path, port: int) -> None:
        self.environment = environment
        self.data = data.absolute()
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def account(self) -> Account:
        """The owner's account, made with the data folder."""
        place = self.data / "account.json"
        if not place.exists():
            made = Account(USER, secrets.token_urlsafe(16), secrets.token_hex(20))
            self.data.mkdir(parents=True, exist_ok=True)
            self.data.chmod(0o700)
            write_durably(place, json.dumps(asdict(made)).encode())
            place.chmod(0o600)
        return Account(**json.loads(place.read_text("utf-8")))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers. Raises UserError with what its log ends with if not."""
        account = self.account
        self._hold()
        # Label Studio silently takes the next port where this one is taken.
        with socket.socket() as probe:
            if not probe.connect_ex((HOST, self.port)):
                self._release()
                raise UserError(f"port {self.port} is taken; name another with --port")
        environment = {
            # No key or token of ours is a server's business.
            **{k: v for k, v in os.environ.items() if k in _KEPT},
            "HOME": str(self.data),
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data),
            "LABEL_STUDIO_USERNAME": account.user,
            "LABEL_STUDIO_PASSWORD": account.password,
            "LABEL_STUDIO_USER_TOKEN": account.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",  # our own webhook is on loopback
            "LABEL_STUDIO_HOST": self.url,
            "DJANGO_DB": "sqlite",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
        log = self.data / "server.log"
        start = ("--no-browser", "--internal-host", HOST, "--port", str(self.port))
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(self.environment / "bin" / "label-studio"), "start", *start],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.data,
                start_new_session=True,
                preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
            )
        try:
            self._await_ready(log)
        except BaseException:
            self.stop()
            raise

    def _await_ready(self, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + STARTING_S
        why = f"does not answer after {STARTING_S:.0f} s"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                why = f"ended with {self._process.returncode}"
                break
            if answers(self.url):
                return
            time.sleep(0.25)
        end = log.read_bytes()[-600:].decode(errors="replace").strip().splitlines()
        raise UserError(f"Label Studio {why}; {log} ends: {end[-1] if end else 'nothing'}")

    def stop(self) -> None:
        """End it and all its children: asked first, killed where that does not help."""
        if self._process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                if self._await_end():
                    break
            self._process = None
        self._release()

    def kill(self) -> None:
        """`kill -9` of the server and its children."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOPPING_S)
        self._process = None
        self._release()

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self._process is not None
        return self._process.wait()

    def _await_end(self) -> bool:
        assert self._process is not None
        try:
            self._process.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _hold(self) -> None:
        """Two servers over one SQLite file would each believe that it is theirs."""
        lock = (self.data / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise UserError(f"{self.data}: a server is running on this folder already") from None
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


_KEPT = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"})


def answers(url: str) -> bool:
    """Whether a Label Studio answers there."""
    try:
        here = urlsplit(url).hostname in (HOST, "localhost", "::1")
        # A proxy of the environment does not know what listens on this machine.
        proxies = urllib.request.ProxyHandler({} if here else None)
        opener = urllib.request.build_opener(proxies)
        with opener.open(f"{url.rstrip('/')}/api/version", timeout=5) as page:
            return "label-studio-os-package" in json.load(page)
    except (OSError, ValueError):
        return False


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _stop_with_parent() -> None:
    """In the child: a SIGTERM when the one who started it dies (prctl's PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
