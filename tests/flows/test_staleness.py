"""Stale data cannot be served: what changed is made again, and nothing else is."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import engines
from flows.plan import load
from flows.session import Summary
from pipelines import generate, ingest, pairs, verify
from pipelines.consistency import decide
from pipelines.emit import emit
from pipelines.journal import Journal
from pipelines.judge import derived as judge
from pipelines.process import label
from pipelines.store import Store
from tests.flows.plans import (
    POLICY,
    STAGES,
    asked,
    merged,
    prefinery,
    prompt,
    run,
    scripted,
    toml,
    write_plan,
)
from tests.pipelines.engines.fake_server import FakeServer, reply

SAMPLES = 4
PROMPTS = 5


LOGGED = scripted(engines={"policy": {"ask_log": "asked.txt"}})


class Plan:
    """A plan that was run once, to be changed and run again."""

    def __init__(
        self, folder: Path, plan: dict[str, Any] = LOGGED, stages: list[str] = STAGES
    ) -> None:
        self.folder = folder
        self.plan = copy.deepcopy(plan)
        self.rows = [prompt(n) for n in range(PROMPTS)]
        self.first = self.run()
        assert self.first.computed == stages

    def copied(self, folder: Path) -> Plan:
        """The same in another folder, store and all."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = copy.copy(self)
        other.folder, other.plan, other.rows = folder, copy.deepcopy(self.plan), [*self.rows]
        return other

    @property
    def log(self) -> Path:
        return self.folder / "asked.txt"

    def run(self) -> Summary:
        return run(write_plan(self.folder, self.plan, self.rows), self.folder / "store")

    def again(self) -> tuple[list[str], int, int]:
        """What the same command makes now: stages, requests asked, and of them by the log."""
        before = len(asked(self.log))
        summary = self.run()
        return summary.computed, summary.asked, len(asked(self.log)) - before


@pytest.fixture(scope="module")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan(tmp_path_factory.mktemp("done"))


@pytest.fixture
def plan(done_once: Plan, tmp_path: Path) -> Plan:
    return done_once.copied(tmp_path / "plan")


def since(stage: str) -> list[str]:
    return STAGES[STAGES.index(stage) :]


def test_everything_is_made_and_asked_once(plan: Plan) -> None:
    log = asked(plan.log)
    assert plan.first.asked == len(log) == len(set(log)) > SAMPLES * PROMPTS
    assert plan.again() == ([], 0, 0)


def test_a_changed_prompt_is_asked_and_the_others_are_not(plan: Plan) -> None:
    plan.rows[2] = prompt(2, prompt="What is 7 and 0?")
    computed, requests, logged = plan.again()
    assert computed == STAGES
    new = asked(plan.log)[-logged:]
    assert requests == logged < plan.first.asked
    assert len(set(new) & set(asked(plan.log)[:-logged])) == 0
    plan.rows[2] = prompt(2)
    assert plan.again() == ([], 0, 0)  # what was made before is there still


def test_a_prompt_with_another_reference_is_judged_anew_but_not_asked(plan: Plan) -> None:
    plan.rows[2] = prompt(2, reference="8")
    before = set(asked(plan.log))
    computed, requests, logged = plan.again()
    assert computed == STAGES
    # The same question has the same answers; only rollouts that go on further may be new.
    assert requests == logged < plan.first.asked // PROMPTS
    assert not set(asked(plan.log)[len(before) :]) & before


def test_added_prompts_alone_are_asked(plan: Plan) -> None:
    plan.rows += [prompt(n) for n in range(PROMPTS, PROMPTS + 3)]
    before = asked(plan.log)
    computed, requests, logged = plan.again()
    assert computed == STAGES
    assert requests == logged >= 3 * SAMPLES
    assert not set(asked(plan.log)[len(before) :]) & set(before)


@pytest.mark.parametrize(
    ("changes", "made", "asks"),
    [
        ({"generate": {"system": "Be brief."}}, since("generate"), True),
        ({"generate": {"sampling": {"temperature": 0.5}}}, since("generate"), True),
        ({"generate": {"samples": SAMPLES + 1}}, since("generate"), True),
        ({"process": {"sampling": {"stop": ["x"]}}}, since("process"), True),
        ({"process": {"k": 3}}, since("process"), True),
        ({"process": None}, since("pairs"), False),
        ({"verify": {"last_number": True}}, ["verify", *since("pairs")], False),
        ({"pairs": {"per_prompt": 1}}, since("pairs"), False),
        ({"judge": {"judges": ["verifier", "agreement"]}}, since("judge"), False),
        ({"decide": {"keep_margin": 0.9}}, since("decide"), False),
        ({"emit": {"validation": 0.3}}, ["emit"], False),
        ({"seed": 4}, since("generate"), True),
        ({"engines": {"policy": {"replies": ["#7", "#8"]}}}, since("generate"), True),
        ({"engines": {"policy": {"fail_share": 0.01}}}, since("generate"), True),
        ({"shard_rows": 3}, STAGES, False),
        ({"prompts": {"task": "sums"}}, STAGES, False),
        # What changes nothing that is made:
        ({"failure_limit": 0.5}, [], False),
        ({"engines": {"policy": {"delay_ms": 1.0, "concurrency": 3}}}, [], False),
        ({"engines": {"unused": {"kind": "scripted", "replies": ["x"]}}}, [], False),
        ({"name": "renamed"}, [], False),
        ({"generate": {"sampling": {"temperature": 1.0}}}, [], False),
    ],
)
def test_a_changed_key_makes_what_depends_on_it(
    changes: dict[str, Any], made: list[str], asks: bool, plan: Plan
) -> None:
    plan.plan = merged(LOGGED, changes)
    computed, requests, logged = plan.again()
    assert computed == made
    assert requests == logged
    assert (requests > 0) is asks


@pytest.mark.parametrize(
    ("module", "name", "made"),
    [
        (ingest, "ingest", ["ingest"]),
        (generate, "generate", since("generate")),
        (verify, "verify", ["verify", *since("pairs")]),
        (label, "process", since("process")),
        (pairs, "pairs", since("pairs")),
        (judge, "judge", since("judge")),
        (decide, "decide", since("decide")),
        (emit, "emit", since("emit")),
    ],
)
def test_a_stage_of_another_version_is_made_again(
    module: Any, name: str, made: list[str], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    computed, requests, _ = plan.again()
    assert computed[0] == name and computed == (STAGES if name == "ingest" else made)
    assert requests == 0  # the journal has every reply
    monkeypatch.undo()
    assert plan.again() == ([], 0, 0)


def test_a_plan_that_moves_with_its_prompts_makes_nothing_new(plan: Plan) -> None:
    there = plan.folder / "other" / "place"
    there.mkdir(parents=True)
    for name in ("plan.toml", "prompts.jsonl"):
        shutil.move(plan.folder / name, there / name)
    moved = run(there / "plan.toml", plan.folder / "store")
    assert (moved.run, moved.computed, moved.asked) == (plan.first.run, [], 0)


def test_prompts_under_another_file_name_are_other_rows(plan: Plan) -> None:
    """A reject's unit is `file-name:line`, so the name is part of what ingest makes."""
    write_plan(plan.folder, plan.plan, plan.rows)
    shutil.copyfile(plan.folder / "prompts.jsonl", plan.folder / "other.jsonl")
    plan.plan["prompts"] = {"paths": ["other.jsonl"]}
    computed, requests, _ = plan.again()
    assert (computed, requests) == (STAGES, 0)


def test_a_run_that_has_nothing_to_do_takes_little(plan: Plan) -> None:
    root = plan.folder / "store"
    done = prefinery("run", plan.folder / "plan.toml", "--root", root, "--json")
    assert (done.json["computed"], done.json["asked"]) == ([], 0)
    assert done.json["rows"] == plan.first.rows
    assert done.err.startswith("nothing to do: every output of this plan is there already\n")
    assert done.cpu < 3.0, f"{done.cpu:.2f} s of user and system time"


# --- engines ----------------------------------------------------------------------------------------


def identities(path: Path) -> dict[str, str]:
    """Digests of who a plan's engines are, as the stages' keys hold them."""
    store = Store.open(path.parent / "store")
    journal = Journal(store.root / "journal.sqlite")
    try:
        built = engines.build(load(path), store, journal)
    finally:
        journal.close()
    return {name: engine.identity.digest for name, engine in built.items()}


def _config(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text()
    path.write_text(text.replace("\n", " ", 1))  # one byte, of the same size


def _weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _template(folder: Path) -> None:
    with (folder / "chat_template.jinja").open("a") as file:
        file.write("{# #}")


def _more(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


@pytest.mark.parametrize("change", [_config, _weights, _template, _more])
def test_a_byte_of_a_models_folder_makes_another_engine(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    shutil.copytree(POLICY, tmp_path / "model")
    local = {"kind": "local", "model": "model"}
    path = write_plan(tmp_path, {**scripted(), "engines": {"policy": local}})
    before = identities(path)
    assert identities(path) == before
    change(tmp_path / "model")
    assert identities(path) != before


def test_a_models_folder_may_move_and_its_readme_change(tmp_path: Path) -> None:
    shutil.copytree(POLICY, tmp_path / "model")
    local = {"kind": "local", "model": "model"}
    path = write_plan(tmp_path, {**scripted(), "engines": {"policy": local}})
    before = identities(path)
    (tmp_path / "model" / "README.md").write_text("other words")
    (tmp_path / "deeper").mkdir()
    shutil.move(tmp_path / "model", tmp_path / "deeper" / "model")
    path.write_text(toml({**scripted(), "engines": {"policy": {**local, "model": "deeper/model"}}}))
    assert identities(path) == before
    # The settings that make no answer another are not part of it; the arithmetic is.
    for setting, same in (("batch", True), ("threads", True), ("dtype", False)):
        value: Any = "float32" if setting == "dtype" else 1
        changed = {**local, "model": "deeper/model", setting: value}
        path.write_text(toml({**scripted(), "engines": {"policy": changed}}))
        assert (identities(path) == before) is same, setting


SERVED: dict[str, tuple[dict[str, Any], bool]] = {
    "the same again": ({"id": "m", "root": "/models/m"}, False),
    "another model": ({"id": "n", "root": "/models/m"}, True),
    "the same name, another model": ({"id": "m", "root": "/models/m-v2"}, True),
}


@pytest.mark.parametrize("what", SERVED)
def test_what_a_server_serves_is_who_answers(what: str, tmp_path: Path) -> None:
    served, other = SERVED[what]
    with FakeServer(always=reply(text="3+4=7\n#7")) as server:
        engine = {"kind": "openai", "base_urls": [server.url], "retries": 0}
        plan = Plan(tmp_path, {**scripted(process=None), "engines": {"policy": engine}}, _SHORT)
        count = len(server.bodies)
        assert count == plan.first.asked == SAMPLES * PROMPTS
        server.models = [served]
        computed, requests, _ = plan.again()
        assert computed == ([s for s in since("generate") if s != "process"] if other else [])
        assert len(server.bodies) - count == requests == (count if other else 0)


_SHORT = [stage for stage in STAGES if stage != "process"]


def test_a_server_that_moves_is_the_same_engine(tmp_path: Path) -> None:
    fine = reply(text="3+4=7\n#7")
    with FakeServer(always=fine) as here, FakeServer(always=fine) as there:
        engine = {"kind": "openai", "base_urls": [here.url]}
        plan = Plan(tmp_path, {**scripted(process=None), "engines": {"policy": engine}}, _SHORT)
        plan.plan["engines"]["policy"]["base_urls"] = [there.url]
        assert plan.again() == ([], 0, 0)
        assert there.bodies == [] and there.probes == 1
