"""The environment that Label Studio runs in: its dependencies clash with ours, so it has its own.

Made once in the cache folder: $PREFINERY_CACHE, else `prefinery` in $XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import UserError

VERSION = "1.23.2"
PACKAGE = f"label-studio=={VERSION}"


def cache_folder() -> Path:
    """Where environments are kept."""
    named = os.environ.get("PREFINERY_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "prefinery"


def installed(cache: Path) -> Path | None:
    """The environment's folder, if it is complete and this interpreter's."""
    folder = cache / f"label-studio-{VERSION}"
    marker = folder / "complete"
    return folder if marker.is_file() and marker.read_text() == _made_by() else None


def ensure(cache: Path) -> Path:
    """The environment's folder, made now (some minutes) if it is not there.

    Raises UserError where it cannot be installed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"label-studio-{VERSION}.lock"):
        found = installed(cache)
        if found is not None:
            return found
        folder = cache / f"label-studio-{VERSION}"
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
        done = subprocess.run([*command, PACKAGE], capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            why = errors[-1] if errors else f"pip ended with {done.returncode}"
            raise UserError(f"{PACKAGE} cannot be installed: {why}; name a server with --url")
        # Written last: an environment without it is made anew.
        (folder / "complete").write_text(_made_by())
        return folder


def _made_by() -> str:
    return f"{PACKAGE} {platform.python_version()} {Path(sys.executable).resolve()}\n"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two commands do not install into one folder at once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
