"""Compare formulas in worker processes, with hard limits on time and memory.

Formulas are hostile: 9^9^9^9 would run for ever. A worker that is over its processor time, its
memory or the wall time ends and is replaced, and the comparison decided nothing. Workers inherit no
environment. They are started when first asked and end with this process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from schemas.errors import UserError

WALL_SECONDS = 60.0
"""Longest wait for a worker, which is long after its processor time is spent."""

_WORKER = Path(__file__).with_name("symbolic_worker.py")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


def same_formulas(answer: str, reference: str) -> bool | None:
    """Whether two formulas are the same; None if one cannot be read or they cannot be compared."""
    return _ask({"answer": answer, "reference": reference})


def is_formula(text: str) -> bool:
    """Whether a text can be read as a formula."""
    return bool(_ask({"reference": text}))


class _Worker:
    """One process; one request at a time."""

    def __init__(self) -> None:
        if importlib.util.find_spec("latex2sympy2_extended") is None:
            raise UserError(
                "latex2sympy2_extended is not installed, which the verifier `latex` needs; "
                "add it with: pip install latex2sympy2_extended"
            )
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        if self._line() != "ready":
            self.close()
            raise UserError(
                "the process that compares formulas does not start: it ended before it was ready"
            )

    def ask(self, request: dict[str, str]) -> tuple[bool, bool | None]:
        """Whether the worker lives on, and its answer."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self._line()
        except OSError:
            return False, None
        return bool(line), json.loads(line) if line else None

    def _line(self) -> str:
        """The next line; empty if there is none in time."""
        pipe: IO[bytes] | None = self.process.stdout
        assert pipe
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(WALL_SECONDS):
                return ""
        return pipe.readline().decode().strip()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        self.process.wait()


class _Pool:
    """As many workers as processors, four at most; started one by one as they are needed."""

    def __init__(self) -> None:
        self.size = max(1, min(4, os.cpu_count() or 1))
        self.idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.size):
            self.idle.put(None)

    def ask(self, request: dict[str, str]) -> bool | None:
        worker = self.idle.get()
        try:
            if worker is None:
                worker = _Worker()
            lives, answer = worker.ask(request)
            if not lives:
                worker.close()
                worker = None
        finally:
            self.idle.put(worker)
        return answer


_lock = threading.Lock()
_pool: _Pool | None = None


def _ask(request: dict[str, str]) -> bool | None:
    global _pool
    with _lock:
        _pool = _pool or _Pool()
    return _pool.ask(request)


def _forget() -> None:
    """A fork must not share its parent's pipes."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
