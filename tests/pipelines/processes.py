"""Other processes for tests of crashes and locks."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_IMPORTS = "import asyncio, os, signal, sys, time\nfrom pathlib import Path"


def start(helpers: str, code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs `code` with the names of the module `helpers`; arguments in sys.argv."""
    code = f"{_IMPORTS}\nfrom {helpers} import *\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line it says, within a minute."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready, "the other process says nothing"
    return process.stdout.readline().strip()
