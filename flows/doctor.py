"""What is installed, what answers, what fits: `prefinery doctor`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipelines.store import Store
from schemas.errors import UserError

EXTRAS = {
    "torch": "local",
    "transformers": "local",
    "accelerate": "train",
    "peft": "train",
    "sentence-transformers": "embed",
    "label-studio-sdk": "review",
    "crowd-kit": "review",
    "prefect-ray": "ray",
    "vllm": "vllm",
}
CORE = ("prefinery", "pyarrow", "polars", "duckdb", "datasets", "huggingface_hub", "prefect")
LOW_DISK_GIB = 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    state: Literal["ok", "absent", "problem"]
    what: str
    detail: str


def examine(plan: Path | None, root: Path, as_json: bool) -> int:
    """Print what was found; exit code 2 if there is a problem, else 0."""
    findings = [*_installed(), *_machine(root), _label_studio(root)]
    if plan is not None:
        findings += _engines(plan, root)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.what:<24} {finding.detail}")
    return 2 if any(finding.state == "problem" for finding in findings) else 0


def _installed() -> list[Finding]:
    findings = []
    for name in (*CORE, *EXTRAS):
        try:
            findings.append(Finding("ok", name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            if name in EXTRAS:
                hint = f"not installed; add it with: pip install 'prefinery[{EXTRAS[name]}]'"
                findings.append(Finding("absent", name, hint))
            else:
                findings.append(Finding("problem", name, "not installed; install prefinery anew"))
    return findings


def _machine(root: Path) -> list[Finding]:
    findings = [Finding("ok", "python", f"{platform.python_version()}, {os.cpu_count()} cores")]
    there = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    enough: Literal["ok", "problem"] = "ok" if free >= LOW_DISK_GIB else "problem"
    findings.append(Finding(enough, "disk", f"{free:.1f} GiB free at {there}"))
    if (root / "store.json").exists():
        try:
            store = Store.open(root)
            writable = os.access(store.root, os.W_OK)
            state: Literal["ok", "problem"] = "ok" if writable else "problem"
            findings.append(
                Finding(state, "store", f"{root}{'' if writable else ': not writable by you'}")
            )
        except UserError as error:
            findings.append(Finding("problem", "store", str(error)))
    else:
        findings.append(Finding("absent", "store", f"none yet at {root}"))
    url = os.environ.get("PREFECT_API_URL")
    findings.append(
        Finding("ok", "prefect server", url)
        if url
        else Finding("absent", "prefect server", "PREFECT_API_URL is not set: runs go without it")
    )
    return findings


def _label_studio(root: Path) -> Finding:
    """The store's own Label Studio: whether it is running, or could be started."""
    from annotation import environment, server

    place = root / "label-studio" / "address.json"
    if place.exists():
        url = str(json.loads(place.read_text("utf-8"))["url"])
        if server.answers(url):
            return Finding("ok", "label studio", url)
        return Finding("problem", "label studio", f"{url} does not answer: prefinery review serve")
    if environment.installed(environment.cache_folder()) is None:
        hint = "not installed; `prefinery review serve` installs it"
        return Finding("absent", "label studio", hint)
    return Finding("absent", "label studio", "not running; start it: prefinery review serve")


def _engines(path: Path, root: Path) -> list[Finding]:
    """Ask every engine of the plan who it is."""
    from flows.engines import identify
    from flows.plan import load

    try:
        plan = load(path)
    except UserError as error:
        return [Finding("problem", "plan", str(error))]
    findings = [Finding("ok", "plan", f"{path}: {plan.name}")]
    for name, config in plan.engines.items():
        try:
            who = identify(config)
            detail = f"{who.kind} {who.model} {who.revision[:12]}".rstrip()
            findings.append(Finding("ok", f"engine {name}", detail))
        except UserError as error:
            findings.append(Finding("problem", f"engine {name}", str(error)))
    return findings
