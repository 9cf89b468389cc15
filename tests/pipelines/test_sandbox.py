import os
import shutil
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import sandbox
from pipelines.sandbox import Ran, run_tests
from schemas.errors import UserError

TWICE = "assert f(2) == 4\nassert f(-1) == -2\n"

RUNS = [
    ("def f(x):\n    return 2 * x", TWICE, Ran(True, "passed")),
    ("def f(x):\n    return 4", TWICE, Ran(False, "AssertionError in line 2 of the tests")),
    ("def f(x):\n    return g(x)", TWICE, Ran(False, "NameError in line 1 of the tests")),
    ("f = undefined", TWICE, Ran(False, "NameError in line 1 of the solution")),
    ("def f(x: return", TWICE, Ran(None, "no python: SyntaxError")),
    (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n",
        "assert P(3) == P(3)",
        Ran(True, "passed"),
    ),
    (
        "from __future__ import annotations\ndef f(x: Missing):\n    return 2 * x",
        TWICE,
        Ran(True, "passed"),
    ),
    (
        "from threading import Thread\n"
        "def f(x):\n    y = []\n    t = Thread(target=lambda: y.append(2 * x))\n"
        "    t.start(); t.join()\n    return y[0]",
        TWICE,
        Ran(True, "passed"),
    ),
    ("def sum(a, b):\n    return a + b", "assert sum(1, 2) == 3", Ran(True, "passed")),
    ("print('x' * 10**7)\ndef f(x):\n    return 2 * x", TWICE, Ran(True, "passed")),
    ("if __name__ == '__main__':\n    input()\nf = lambda x: 2 * x", TWICE, Ran(True, "passed")),
    ("f = lambda x: 2 * x\ninput()", TWICE, Ran(False, "EOFError in line 2 of the solution")),
    (
        "open('a.txt', 'w').write('4')\ndef f(x):\n    return int(open('a.txt').read())",
        "assert f(2) == 4",
        Ran(True, "passed"),
    ),
]


@pytest.mark.parametrize(("code", "tests", "ran"), RUNS)
def test_runs(code, tests, ran):
    assert run_tests(code, tests) == ran


LEAVING = "ended before the tests were over"
CHEATS = [
    ("import os\nos._exit(0)", LEAVING),
    ("import os\ndef f(x):\n    os._exit(0)", LEAVING),
    ("import sys\nsys.exit(0)", "SystemExit in line 2 of the solution"),
    ("import sys\ndef f(x):\n    sys.exit(0)", "SystemExit in line 1 of the tests"),
    ("def f(x):\n    raise KeyboardInterrupt", "KeyboardInterrupt in line 1 of the tests"),
    (
        "import os\ndef f(x):\n    os.execv('/bin/true', ['true'])",
        "FileNotFoundError in line 1 of the tests",
    ),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ("import ctypes\nctypes.string_at(0)", "killed by signal 11"),
    ("import os\ndef f(x):\n    os.write(3, b'passed 00\\n')\n    os._exit(0)", LEAVING),
    ("import os\nos.write(3, b'passed\\n' * 5000)\ndef f(x):\n    return 0", None),
    ("import os\nos.write(3, b'refused: me\\n')", "meddled with its verdict"),
    ("import os\nos.close(3)\ndef f(x):\n    return 4", None),
    (
        "import builtins\nbuiltins.AssertionError = None\ndef f(x):\n    return 0",
        "AssertionError in line 1 of the tests",
    ),
    (
        "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\ndef f(x):\n    return 0",
        "AssertionError in line 1 of the tests",
    ),
    (
        "import sys\ndef t(frame, *a):\n    frame.f_trace_lines = False\n    return None\n"
        "sys.settrace(t)\ndef f(x):\n    return 0",
        "AssertionError in line 1 of the tests",
    ),
    (
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x):\n    return 0",
        "AssertionError in line 1 of the tests",
    ),
    ("import os\nif os.fork():\n    os._exit(0)\ndef f(x):\n    return 2 * x", LEAVING),
]


@pytest.mark.parametrize(("code", "reason"), CHEATS)
def test_leaving_early_or_meddling_is_not_passing(code, reason):
    ran = run_tests(code, TWICE)
    assert ran.passed is False
    if reason:
        assert ran.reason == reason


def test_the_tests_are_not_there_while_the_solution_loads():
    code = (
        "import gc, os, sys\nfound = [s for s in gc.get_objects() if isinstance(s, str) and 'needle-17' in s]\n"
        "frame = sys._getframe()\nwhile frame:\n"
        "    found += [v for v in frame.f_locals.values() if isinstance(v, str) and 'needle' + '-17' in v]\n"
        "    frame = frame.f_back\n"
    )
    assert run_tests(code, "assert not found  # needle-17 stands here alone").passed


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True:\n    pass", "over 1 s of processor time"),
        ("x = [0] * 10**10", "MemoryError in line 1 of the solution"),
        ("x = 9 ** 9 ** 9 ** 9", "over 1 s of processor time"),
        ("def f(x):\n    return f(x)\nf(1)", "RecursionError in line 2 of the solution"),
        ("import os\nwhile True:\n    os.fork()", "BlockingIOError in line 3 of the solution"),
        (
            "with open('a', 'wb') as f:\n    for _ in range(100):\n        f.write(bytes(10**6))",
            "OSError in line 3 of the solution",
        ),
        (
            "for i in range(100):\n    with open(str(i), 'wb') as f:\n        f.write(bytes(10**6))",
            "OSError in line 3 of the solution",
        ),
        ("x = [open('/dev/null') for _ in range(1000)]", "OSError in line 1 of the solution"),
    ],
)
def test_limits(monkeypatch, code, reason):
    monkeypatch.setitem(sandbox._LIMITS, "cpu_seconds", 1)
    assert run_tests(code, "pass") == Ran(False, reason)


def test_wall_time_ends_every_process_of_the_run(monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 1.0)
    before = set(_harnesses())
    code = "import os, time\nos.fork()\nos.setsid() if os.getpid() > 2 else None\ntime.sleep(71)"
    assert run_tests(code, "pass") == Ran(False, "over 1 s of wall time")
    for _ in range(100):
        if not set(_harnesses()) - before:
            return
        time.sleep(0.1)
    pytest.fail("a process of the run lives on")


def _harnesses():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().endswith(b"\0harness\0"):
                yield folder
        except (FileNotFoundError, ProcessLookupError):
            continue


LOOKS = [
    ("nothing of ours in the environment", "import os", "assert not [k for k in os.environ if 'KEY' in k]"),
    ("no user's files", "import os", f"assert not os.path.exists({str(Path(__file__))!r})"),
    ("no home", "import os", "assert not os.path.exists('/etc/passwd') and not os.path.exists('/home')"),
    ("an empty folder", "import os", "assert os.listdir() == []"),
    ("Python read-only", "import os, pathlib", "try:\n    pathlib.Path(os.__file__).with_name('x').touch()\nexcept OSError:\n    pass\nelse:\n    assert False"),
    ("no descriptors but its own", "import os", "held = []\nfor i in range(60):\n    try:\n        os.fstat(i)\n        held.append(i)\n    except OSError:\n        pass\nassert held == [0, 1, 2, 3], held"),
    ("no user root", "import os", "assert os.getuid() and os.geteuid() and os.getgid()"),
    ("no way to become root", "import os", "try:\n    os.setuid(0)\nexcept OSError:\n    pass\nelse:\n    assert False"),
    ("no other processes", "import os", "assert os.getpid() < 10"),
    ("no namespaces of its own", "import ctypes", "assert ctypes.CDLL(None).unshare(0x10000000) == -1"),
    ("no mounts", "import ctypes", "assert ctypes.CDLL(None).mount(b'x', b'/work', b'tmpfs', 0, None) == -1"),
    ("the first process cannot be ended", "import os, signal", "try:\n    os.kill(1, signal.SIGKILL)\nexcept OSError:\n    pass"),
    ("hashes do not change", "x = hash('a')", "assert x == 4644417185603328019"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "code", "tests"), LOOKS)
def test_what_can_be_seen(monkeypatch, what, code, tests):
    monkeypatch.setenv("API_KEY", "secret")
    assert run_tests(code, tests) == Ran(True, "passed"), what


def test_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # it can be reached from here
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)"
        assert run_tests(code, "pass").reason.endswith("Error in line 2 of the solution")


def test_no_abstract_sockets_of_the_system():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0prefinery-test")
        server.listen()
        code = "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0prefinery-test')"
        assert run_tests(code, "pass") == Ran(
            False, "ConnectionRefusedError in line 2 of the solution"
        )


def test_verdicts_are_the_same_again_and_for_many_at_once():
    code = "import random\ndef f():\n    return random.random(), list({'a', 'b', 'c'}), hash('x')"
    first = run_tests(code, "assert f() == 0").reason
    assert first == "AssertionError in line 1 of the tests"
    script = "open('x', 'w').write('x')\nassert f() == f.known"
    with ThreadPoolExecutor(6) as threads:
        values = list(threads.map(lambda _: run_tests(code, script), range(12)))
    assert set(values) == {Ran(False, "AttributeError in line 2 of the tests")}
    seeded = "import random\nassert random.random() == 0.8444218515250481"
    assert run_tests("", seeded) == Ran(True, "passed")


def _as(monkeypatch, *prefix, python=None):
    command = sandbox._python()
    if python:
        command[0] = python
    monkeypatch.setattr(sandbox, "_python", lambda: [*prefix, *command])


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
)


@needs_root
def test_refuses_where_it_cannot_isolate(monkeypatch):
    _as(monkeypatch, "setpriv", "--bounding-set=-sys_admin")
    with pytest.raises(
        UserError, match=r"^code answers cannot be run safely here \(PermissionError"
    ) as caught:
        run_tests("f = lambda x: 2 * x", TWICE)
    assert "\n" not in str(caught.value)


def test_refuses_where_python_does_not_start(monkeypatch):
    _as(monkeypatch, python=shutil.which("false"))
    with pytest.raises(UserError, match="the process does not start"):
        run_tests("f = lambda x: 2 * x", TWICE)


@needs_root
@pytest.mark.parametrize(
    ("code", "tests", "ran"),
    [
        *RUNS[:3],
        ("import os\nwhile True:\n    os.fork()", "pass", Ran(False, "BlockingIOError in line 3 of the solution")),
        *((code, tests, Ran(True, "passed")) for _, code, tests in LOOKS),
    ],
)  # fmt: skip
def test_the_same_for_a_user_who_is_not_root(monkeypatch, code, tests, ran):
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if not python or sys.version_info[:2] != (3, 11):
        pytest.skip("needs a Python that other users may run")
    _as(monkeypatch, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python=python)
    assert run_tests(code, tests) == ran
