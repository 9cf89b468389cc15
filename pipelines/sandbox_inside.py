"""The inside of the sandbox: run as a script by `pipelines.sandbox`, never imported.

Three processes. The launcher leaves the system's namespaces. Its child is the first process of the
new process namespace: it builds the file system and waits; it is out of the reach of what it
started, and all ends with it. The grandchild gives up all rights, takes on the limits and becomes a
fresh Python with `harness`, the only one that runs foreign code. Standard library alone.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65534
DESCRIPTOR = 3
ROOT = "/proc"
"""Where the new root is mounted: a folder that every system has and that no run needs."""


def launch(settings: dict[str, int]) -> NoReturn:
    """Leave the namespaces, start the rest, end as it ends."""
    os.dup2(settings["descriptor"], DESCRIPTOR)
    os.closerange(DESCRIPTOR + 1, 4096)
    os.umask(0o022)
    signal.alarm(settings["wall_seconds"] + 5)  # if our own parent is gone
    try:
        user, group = isolate()
        child = os.fork()
    except OSError as error:
        refuse(error)
    if child == 0:
        try:
            status = first_process(settings, user, group)
        except BaseException as error:
            refuse(error)
        os._exit(status)
    os.close(DESCRIPTOR)
    os._exit(code_of(os.waitpid(child, 0)[1]))


def isolate() -> tuple[int, int]:
    """Leave the namespaces; user and group for the code, who must not be root: limits bind no root."""
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    if os.geteuid() == 0:
        call("unshare", flags)
        # A user of its own for each run, or runs would share one limit on processes.
        own = 1_000_000 + os.getpid()
        return own, own
    user, group = os.geteuid(), os.getegid()
    call("unshare", flags | CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    return NOBODY, NOBODY


def first_process(settings: dict[str, int], user: int, group: int) -> int:
    """Build the file system, start the code, wait; the exit code to end with."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    source = Path(__file__).read_text()
    build_root(settings["folder_bytes"])
    child = os.fork()
    if child == 0:
        try:
            become(settings, user, group)
            run = [sys.executable, "-P", "-s", "-S", "-B", "-c", source, "harness"]
            os.execve(sys.executable, run, dict(os.environ))
        except BaseException as error:
            refuse(error)
    os.close(DESCRIPTOR)
    while True:
        ended, status = os.wait()
        if ended == child:
            return code_of(status)


def build_root(size: int) -> None:
    """An empty root in memory with Python and the system's libraries, read-only."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    prefix = os.path.realpath(sys.base_prefix)
    wanted = [
        prefix,
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/etc/ld.so.cache",
    ]
    wanted += ["/nix/store", "/dev/null"]
    mount("tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},nr_inodes=4096,mode=755")
    for path in map(Path, wanted):
        inside = Path(ROOT + str(path))
        if inside.exists() or inside.is_symlink() or not path.exists():
            continue
        inside.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            inside.symlink_to(path.readlink())
            continue
        if path.is_dir():
            inside.mkdir()
        else:
            inside.touch()
        mount(str(path), str(inside), None, MS_BIND | MS_REC)
        if path.name != "null":
            # Flags that the mount has already may not be taken away.
            kept = os.statvfs(inside).f_flag & (2 | 4 | 8 | 1024 | 2048)
            flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept
            mount("none", str(inside), None, flags)
    work = Path(ROOT, "work")
    work.mkdir()
    work.chmod(0o777)
    # No process inside may make namespaces of its own once its root is not the system's.
    os.chroot(ROOT)
    os.chdir("/work")


def become(settings: dict[str, int], user: int, group: int) -> None:
    """Give up all rights and take on the limits. Capabilities end with the user and at exec."""
    if os.geteuid() == 0:
        os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o077)
    for name, soft, hard in (
        ("CPU", settings["cpu_seconds"], settings["cpu_seconds"] + 1),
        ("AS", settings["memory_bytes"], settings["memory_bytes"]),
        ("NPROC", settings["processes"], settings["processes"]),
        ("FSIZE", settings["file_bytes"], settings["file_bytes"]),
        ("NOFILE", settings["open_files"], settings["open_files"]),
        ("CORE", 0, 0),
        ("MEMLOCK", 0, 0),
        ("MSGQUEUE", 0, 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))
    os.set_inheritable(DESCRIPTOR, True)


def call(name: str, *arguments: object) -> None:
    """A function of the C library. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount. Raises OSError."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def refuse(error: BaseException) -> NoReturn:
    """Say why nothing was run, and end."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    os.write(DESCRIPTOR, f"refused: {line[:300]}\n".encode())
    os._exit(97)


def code_of(status: int) -> int:
    """An exit code that tells a signal by 128 and its number."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def harness() -> NoReturn:
    """Run the code, then the tests in its namespace. Only here is foreign code run."""
    import atexit
    import builtins
    import gc
    import random
    import types

    read, write, leave, join = os.read, os.write, os._exit, b"".join
    process, own = os.getpid, os.getpid()
    kept, compiled, run, name_of = dict(vars(builtins)), compile, exec, type
    trace, profile, collect, quit_hooks = sys.settrace, sys.setprofile, gc.callbacks, atexit._clear
    handle, timer, alarms = signal.signal, signal.setitimer, signal.ITIMER_REAL
    error_type, known_errors = BaseException, (SyntaxError, ValueError, MemoryError, RecursionError)

    def receive() -> str:
        def exactly(count: int) -> bytes:
            pieces = []
            while count:
                piece = read(DESCRIPTOR, min(count, 65536))
                if not piece:
                    leave(1)
                pieces.append(piece)
                count -= len(piece)
            return join(pieces)

        return exactly(int.from_bytes(exactly(8), "big")).decode("utf-8", "surrogatepass")

    def say(text: str) -> None:
        write(DESCRIPTOR, " ".join(text.split()).encode("utf-8", "replace")[:500] + b"\n")

    def failed(error: BaseException, where: str) -> NoReturn:
        line, trace_back = 0, error.__traceback__
        while trace_back is not None:
            if trace_back.tb_frame.f_code.co_filename == where:
                line = trace_back.tb_lineno
            trace_back = trace_back.tb_next
        say(f"failed: {name_of(error).__name__} in line {line} of the {where}")
        leave(0)

    os.set_inheritable(DESCRIPTOR, False)
    random.seed(0)
    say("started")
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        code = compiled(receive(), "solution", "exec", dont_inherit=True)
    except known_errors as error:
        say(f"no python: {name_of(error).__name__}")
        leave(0)
    try:
        run(code, module.__dict__)
    except error_type as error:
        failed(error, "solution")
    if process() != own:
        leave(1)
    now = vars(builtins)
    for name in [*now]:
        if name not in kept:
            del now[name]
    now.update(kept)
    trace(None)
    profile(None)
    collect.clear()
    quit_hooks()
    timer(alarms, 0)
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
        handle(number, signal.SIG_DFL)
    module.__dict__["__builtins__"] = builtins
    say("ready")
    tests, token = receive(), receive()
    try:
        run(compiled(tests, "tests", "exec", dont_inherit=True), module.__dict__)
    except error_type as error:
        failed(error, "tests")
    if process() != own:
        leave(1)
    say(f"passed {token}")
    leave(0)


if __name__ == "__main__":
    if sys.argv[1:] == ["harness"]:
        harness()
    else:
        launch(json.loads(sys.argv[1]))
