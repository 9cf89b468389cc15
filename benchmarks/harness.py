"""What every benchmark shares: its options, the machine it ran on, and the JSON it prints."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

REPO = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "polars", "pyarrow", "pydantic", "torch", "transformers")


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    quick: bool
    seeds: int
    out: Path | None


@dataclass
class Result:
    """The JSON object that a benchmark prints, less `commit` and `machine`."""

    benchmark: str
    seeds: list[int]
    figures: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)


def options(module_doc: str, *, seeds: int, argv: Sequence[str] | None = None) -> Options:
    """Parse `[--quick] [--seeds N] [--out FILE]`; `seeds` is the number that a full run takes."""
    parser = argparse.ArgumentParser(description=module_doc.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a first look, within 60 s on 2 cores")
    parser.add_argument("--seeds", type=int, default=None, help=f"repetitions (default {seeds})")
    parser.add_argument("--out", type=Path, default=None, help="file for the JSON, too")
    given = parser.parse_args(argv)
    if given.seeds is not None and given.seeds < 1:
        parser.error("--seeds: at least 1")
    return Options(given.quick, given.seeds or (1 if given.quick else seeds), given.out)


def report(result: Result, chosen: Options) -> dict[str, Any]:
    """Print the result as one JSON object, and write it to `--out`."""
    whole = {"commit": commit(), "machine": machine(), "quick": chosen.quick, **asdict(result)}
    text = json.dumps(whole, indent=2)
    print(text)
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text + "\n", encoding="utf-8")
    return whole


def say(text: str) -> None:
    """Talk on stderr: stdout holds the JSON alone."""
    print(text, file=sys.stderr, flush=True)


def commit() -> str | None:
    """The commit measured, ending in `-dirty` where files differ from it; None outside a clone."""
    command = ["git", "-C", str(REPO), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores, memory, load and versions: nothing that names the machine."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def peak_mib() -> float:
    """Most memory this process has held at once (resident), in MiB.

    VmHWM, where there is one: `ru_maxrss` is inherited from the parent over fork and exec.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean over seeds and its 95% interval by Student's t; no interval of a single value."""
    if len(values) < 2:
        return fmean(values), None
    from scipy.stats import t

    mean = fmean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def demo_plan() -> dict[str, Any]:
    """The bundled plan with absolute paths, to be changed and written elsewhere."""
    place = REPO / "data" / "plans"
    plan = tomllib.loads((place / "demo.toml").read_text("utf-8"))

    def absolute(table: dict[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                absolute(value)
            elif key == "paths":
                table[key] = [str((place / path).resolve()) for path in value]
            elif key in ("model", "base"):
                table[key] = str((place / value).resolve())

    absolute(plan)
    return plan


def toml(table: dict[str, Any], prefix: str = "") -> str:
    """A plan as TOML: its scalars and lists are written alike in JSON."""
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in table.items()
        if not isinstance(value, dict)
    ]
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(f"\n[{prefix}{key}]\n{toml(value, f'{prefix}{key}.')}")
    return "".join(lines)


def plot(drawing: str, chosen: Options, name: str) -> None:
    """Write a chart of the report (an SVG element) beside `--out`, with the report's colours."""
    if chosen.out is None:
        return
    css = (REPO / "flows" / "templates" / "report.css").read_text("utf-8")
    css += "\nsvg { font: 14px/1.5 ui-sans-serif, system-ui, sans-serif; background: var(--bg); }"
    head, body = drawing.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    text = f"{head}><style><![CDATA[{css}]]></style>{body}"
    chosen.out.with_name(f"{chosen.out.stem}-{name}.svg").write_text(text, encoding="utf-8")
