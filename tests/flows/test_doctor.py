"""`prefinery doctor`: what is absent, what is wrong, and the exit code that says so."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from flows.doctor import CORE, EXTRAS, _label_studio
from pipelines.store import Store
from tests.flows.plans import POLICY, call, prefinery, scripted, write_plan
from tests.pipelines.engines.fake_server import FakeServer

Finding = dict[str, str]


def findings(*args: object, code: int = 0) -> dict[str, Finding]:
    done = call("doctor", *args, "--json")
    assert (done.code, done.err) == (code, ""), done
    return {finding["what"]: finding for finding in json.loads(done.out)}


def without(monkeypatch: pytest.MonkeyPatch, *gone: str) -> None:
    def version(name: str) -> str:
        if name in gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_absent_extras_are_told_with_the_command_that_adds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *EXTRAS)
    found = findings("--root", tmp_path / "store")
    for package, extra in EXTRAS.items():
        assert found[package] == {
            "state": "absent",
            "what": package,
            "detail": f"not installed; add it with: pip install 'prefinery[{extra}]'",
        }
    assert {found[name]["state"] for name in CORE} == {"ok"}
    assert found["store"]["state"] == "absent"
    assert not (tmp_path / "store").exists()


def test_every_extra_is_one_that_the_package_declares() -> None:
    try:
        declared = importlib.metadata.metadata("prefinery").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed in this environment")
    assert set(EXTRAS.values()) <= set(declared)


def test_a_core_package_that_is_gone_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "duckdb")
    found = findings("--root", tmp_path, code=2)
    assert found["duckdb"]["state"] == "problem"
    assert found["duckdb"]["detail"] == "not installed; install prefinery anew"


def test_a_fine_plan(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    done = prefinery("doctor", plan, "--root", tmp_path / "store")
    assert (done.code, done.err) == (0, ""), done
    assert f"ok       plan                     {plan}: scripted\n" in done.out
    assert "ok       engine policy            scripted scripted " in done.out
    assert not any(line.startswith("problem") for line in done.out.splitlines())


def test_an_engine_that_is_down(tmp_path: Path) -> None:
    with FakeServer() as server:
        engine = {"kind": "openai", "base_urls": [server.url]}
        plan = write_plan(tmp_path, scripted(engines={"server": engine}))
        up = findings(plan, "--root", tmp_path / "store")
        assert up["engine server"]["state"] == "ok"
        assert up["engine server"]["detail"] == "openai m"
    down = findings(plan, "--root", tmp_path / "store", code=2)
    assert down["engine policy"]["state"] == "ok"
    assert down["engine server"] == {
        "state": "problem",
        "what": "engine server",
        "detail": f"{server.url}: connection refused; start the server or mend base_urls",
    }


def test_engines_of_this_machine(tmp_path: Path) -> None:
    engines = {
        "here": {"kind": "local", "model": str(POLICY)},
        "gone": {"kind": "local", "model": "./gone"},
    }
    found = findings(write_plan(tmp_path, scripted(engines=engines)), code=2)
    assert found["engine here"]["detail"].startswith("local policy ")
    assert found["engine gone"]["detail"].startswith(f"model folder {tmp_path / 'gone'} does not")


def test_a_plan_that_is_wrong(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(generate={"sampels": 1}))
    found = findings(plan, "--root", tmp_path / "store", code=2)
    assert found["plan"]["state"] == "problem"
    assert found["plan"]["detail"] == (
        f"{plan}: generate.sampels: unknown key; did you mean 'samples'?"
    )


def test_a_store(tmp_path: Path) -> None:
    Store.open(tmp_path / "fine")
    assert findings("--root", tmp_path / "fine")["store"]["state"] == "ok"
    (tmp_path / "fine" / "store.json").write_text('{"format": 2}')
    other = findings("--root", tmp_path / "fine", code=2)["store"]
    assert other["state"] == "problem" and "another format" in other["detail"]


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 2**30, 2**30))
    found = findings("--root", tmp_path / "not" / "there", code=2)["disk"]
    assert found["state"] == "problem"
    assert found["detail"] == f"1.0 GiB free at {tmp_path}"


def test_a_prefect_server(tmp_path: Path) -> None:
    found = findings("--root", tmp_path)["prefect server"]
    assert (found["state"], found["detail"]) == (
        "absent",
        "PREFECT_API_URL is not set: runs go without it",
    )


def test_a_label_studio_that_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "store" / "label-studio"
    place.mkdir(parents=True)
    (place / "address.json").write_text('{"url": "http://127.0.0.1:9"}')
    found = _label_studio(tmp_path / "store")
    assert (found.state, found.detail) == (
        "problem",
        "http://127.0.0.1:9 does not answer: prefinery review serve",
    )
    assert _label_studio(tmp_path / "none").state == "absent"
