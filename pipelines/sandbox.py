"""Run a model's Python code and then unit tests, in a process that can harm nothing.

Isolated, by Linux namespaces (see `sandbox_inside`): the network (none), processes (its own, and all
of them end with the run), files (an empty folder in memory beside Python's own folder and the
system's libraries, read-only; nothing else of the user's or the system's is there), environment and
descriptors (none of ours), users. Limited: processor time, wall time, memory of a process, processes
and threads, size and number of files. Where the system grants no namespaces, UserError: nothing is
ever run without them.

Not isolated: the kernel is shared and its system calls are not filtered; memory is limited a process,
so a run may take `processes` times `memory_bytes`. The tests run in the process of the solution, for
they use its objects. They come there, with a secret that the verdict must show, only after the
solution's own statements are over, and what these changed in `builtins`, in tracing, in signals and
at exit is undone. Leaving early, in any way, is not passing. A solution that is written against this
very file can still pass: functions that return objects equal to everything, changed modules of the
standard library, names that hide builtins from the tests, or reading the secret from the memory or
descriptor of its own process when a test calls it.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from schemas.errors import UserError

CPU_SECONDS = 10
"""Processor time of each process: what a verdict about endless code rests on."""
WALL_SECONDS = 60.0
"""Longest time for one run: for code that sleeps."""
START_SECONDS = 60.0
"""Longest wait until the sandbox is up."""
MAX_REPLY_BYTES = 10_000

_INSIDE = Path(__file__).with_name("sandbox_inside.py")
_LIMITS = {
    "cpu_seconds": CPU_SECONDS,
    "wall_seconds": int(START_SECONDS + WALL_SECONDS),
    "memory_bytes": 2**29,
    "processes": 8,
    "file_bytes": 16 * 2**20,
    "folder_bytes": 64 * 2**20,
    "open_files": 64,
}
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


class Ran(NamedTuple):
    """How the tests went; `passed` is none if the text was no Python at all."""

    passed: bool | None
    reason: str


def run_tests(code: str, tests: str) -> Ran:
    """Run `code`, then `tests` in its namespace; passed if nothing is raised to the tests' end.

    Blocks for up to the wall time; any thread may call it. `__name__` is not `__main__`. Raises
    UserError where the system cannot isolate the run.
    """
    token = secrets.token_hex(32)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [*_python(), str(_INSIDE), json.dumps({**_LIMITS, "descriptor": theirs.fileno()})],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        try:
            return _talk(process, ours, code, tests, token)
        finally:
            # The launcher's end is the end of the namespace's first process, and so of all in it.
            process.kill()
            process.wait()


def _python() -> list[str]:
    """The interpreter itself, not a virtual environment's link to it."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    # As -I, but for the fixed hash seed: environment and paths are ours anyhow.
    return [str(Path(executable).resolve()), "-P", "-s", "-S", "-B"]


def _talk(
    process: subprocess.Popen[bytes], ours: socket.socket, code: str, tests: str, token: str
) -> Ran:
    lines = _Lines(ours, START_SECONDS)
    first = lines.next()
    if first != "started":
        why = first.removeprefix("refused: ") if first else "the process does not start"
        raise UserError(
            f"code answers cannot be run safely here ({why[:200]}); run where unprivileged user "
            "namespaces are allowed, or as root with CAP_SYS_ADMIN, or leave out prompts with verifier code"
        )
    lines.deadline = time.monotonic() + WALL_SECONDS
    lines.send(code)
    said = lines.next()
    if said == "ready":
        lines.send(tests)
        lines.send(token)
        said = lines.next()
    if lines.is_late:
        return Ran(False, f"over {WALL_SECONDS:.0f} s of wall time")
    if said and not said.startswith(("passed ", "failed: ", "no python: ")):
        return Ran(False, "meddled with its verdict")
    try:
        status = process.wait(max(0.1, lines.deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Ran(False, f"over {WALL_SECONDS:.0f} s of wall time")
    if said == f"passed {token}" and status == 0:
        return Ran(True, "passed")
    if status > 128:
        return Ran(False, _killed(status - 128))
    if said.startswith("no python: "):
        return Ran(None, said)
    if said.startswith("failed: "):
        return Ran(False, said.removeprefix("failed: "))
    return Ran(False, "ended before the tests were over")


def _killed(number: int) -> str:
    if number == signal.SIGXCPU:
        return f"over {_LIMITS['cpu_seconds']} s of processor time"
    return f"killed by signal {number}"


class _Lines:
    """Texts sent with their length, lines received, until a deadline."""

    def __init__(self, ours: socket.socket, seconds: float) -> None:
        self.ours = ours
        self.deadline = time.monotonic() + seconds
        self.held = b""
        self.got = 0
        self.is_late = False

    def send(self, text: str) -> None:
        """Send a text; a process that is gone will say no more, which `next` tells."""
        data = text.encode("utf-8", "surrogatepass")
        try:
            self.ours.settimeout(self._left())
            self.ours.sendall(len(data).to_bytes(8, "big") + data)
        except TimeoutError:
            self.is_late = True
        except OSError:
            return

    def next(self) -> str:
        """The next line; empty at the end, when too much was said and when it is too late."""
        while b"\n" not in self.held:
            try:
                self.ours.settimeout(self._left())
                data = self.ours.recv(4096)
            except TimeoutError:
                self.is_late = True
                return ""
            except OSError:
                return ""
            self.got += len(data)
            if not data or self.got > MAX_REPLY_BYTES:
                return ""
            self.held += data
        line, _, self.held = self.held.partition(b"\n")
        return line.decode("utf-8", "replace")

    def _left(self) -> float:
        return max(0.001, self.deadline - time.monotonic())
