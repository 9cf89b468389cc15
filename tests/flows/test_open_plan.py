"""The sample plan of open-ended prompts against a real vLLM server, with the bundled policy as its model.

The policy's words are nonsense to a judge; the form of its replies must not be: a schema holds them.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import runs, session
from pipelines.store import Published, Store
from tests.flows.plans import ROOT, merged, toml
from tests.servers.vllm_server import VLLMServer, python_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

CONTEXT = 12_288
"""Tokens, which are characters to this model: the judges' prompts are long."""
# A model that never comes to an end of its own fills every bound of the schema.
SAMPLING = {"max_tokens": 8000}
CHANGES: dict[str, Any] = {
    "prompts": {"paths": [str(ROOT / "data" / "open_prompts.jsonl")], "limit": 6},
    "pairs": {"per_prompt": 2},
    "generate": {"sampling": {"max_tokens": 48}},
    "judge": {
        "panel": {
            "compares": {"think": False, "sampling": SAMPLING},
            "scores": {"sampling": SAMPLING},
        }
    },
    "rubrics": {
        "paths": [str(ROOT / "data" / "rubrics" / "helpful.toml")],
        "max_criteria": 1,
        "sampling": SAMPLING,
        "verdicts": {"sampling": SAMPLING},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    python = python_or_skip()
    folder = tmp_path_factory.mktemp("vllm")
    model = shutil.copytree(ROOT / "data" / "policy", folder / "policy")
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((model / name).read_text())
        for key in ("max_position_embeddings", "model_max_length"):
            if key in settings:
                settings[key] = CONTEXT
        (model / name).write_text(json.dumps(settings))
    with VLLMServer(python, model, folder / "server.log", context=CONTEXT) as running:
        yield running


@pytest.fixture(scope="module")
def made(
    server: VLLMServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[session.Summary, dict[str, Published]]:
    """The sample plan's run, at this server's address and with bounds that this model's words keep."""
    folder = tmp_path_factory.mktemp("open")
    plan = merged(tomllib.loads((ROOT / "data" / "plans" / "open.toml").read_text()), CHANGES)
    plan["engines"]["model"]["base_urls"] = [server.url]
    (folder / "plan.toml").write_text(toml(plan))
    summary = session.start(folder / "plan.toml", folder / "store")
    store = Store.open(folder / "store", create=False)
    record = runs.load(store, summary.run)
    return summary, dict(record.outputs(store))


def test_every_constrained_reply_has_its_form(
    made: tuple[session.Summary, dict[str, Published]],
) -> None:
    summary, outputs = made
    asked = 0
    for name, output in outputs.items():
        if name.startswith(("panel.", "probes.", "verdicts", "rubrics")):
            codes = Counter(output.table("rejects")["code"].to_pylist())
            # What a schema cannot hold: two criteria alike, evidence that no response has.
            formal = {
                "evidence_not_found",
                "duplicate_criterion",
                "not_selected",
                "empty_criterion",
            }
            assert set(codes) <= formal | {"names_a_response"}, (name, codes)
            asked += output.manifest.facts.get("rows", 0)
    # Responses are as many requests as there are; the others asked for a form.
    constrained = summary.asked - outputs["generate"].manifest.rows("responses")
    assert constrained >= 500
    assert summary.status == "complete"


def test_every_pair_has_the_votes_of_every_judge(
    made: tuple[session.Summary, dict[str, Published]],
) -> None:
    _, outputs = made
    pairs = set(outputs["pairs"].table("pairs")["id"].to_pylist())
    assert len(pairs) > 8
    for name, orders in (("compares", 2), ("scores", 1), ("instructions", 1)):
        rows = outputs[f"panel.{name}"].table("votes").to_pylist()
        own = Counter(row["unit"] for row in rows if row["unit_kind"] == "pair")
        assert own == dict.fromkeys(pairs, orders), name
        if name != "instructions":
            assert all(row["value"] is not None for row in rows)
    cards = outputs["probes.compares"].table("cards").to_pylist()
    (usable,) = (c for c in cards if c["measure"] == "usable_share")
    assert (usable["value"], usable["passed"]) == (1.0, True)


def test_decisions_and_dataset_rest_on_those_votes(
    made: tuple[session.Summary, dict[str, Published]],
) -> None:
    _, outputs = made
    decided = outputs["decide"].table("decisions").to_pylist()
    assert {row["pair_id"] for row in decided} == set(
        outputs["pairs"].table("pairs")["id"].to_pylist()
    )
    emitted = outputs["emit"].manifest.facts["rows"].get("preference", {})
    kept = sum(row["action"] in ("keep", "flip", "soften") for row in decided)
    assert sum(emitted.values()) == kept
    values = outputs["rubric_value"].table("values").to_pylist()
    assert values and all(row["reason"] for row in values)


def test_run_again_asks_nothing(server: VLLMServer, made: Any, tmp_path: Path) -> None:
    summary, _ = made
    store = Path(summary.paths["store"])
    plan = store / "runs" / summary.run / "plan.toml"
    again = session.start(plan, store)
    assert (again.run, again.asked, again.computed) == (summary.run, 0, [])
