"""The panel's judges in a whole run: what they load, they load once."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest

from flows import runs, session
from pipelines.judge import reward_model
from pipelines.store import Store
from tests.flows.plans import prompt, scripted, write_plan
from tests.pipelines.judge.test_reward_model import llama


def plan(folder: Path, **judges: dict[str, Any]) -> Path:
    """Pairs in three shards, put to reward models, after their probes."""
    panel = {
        name: {"kind": "reward_model", "model": str(folder / "model"), **more}
        for name, more in judges.items()
    }
    llama(folder / "model", max_position_embeddings=1024)
    rows = [prompt(n) for n in range(6)]
    judge = {"judges": [], "panel": panel, "probes": {}}
    return write_plan(folder, scripted(process=None, judge=judge, failure_limit=1.0), rows)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """At each load of a reward model: tokens of its batches, and how many others are still held."""
    found: list[tuple[int, int]] = []
    alive: list[weakref.ref[Any]] = []
    load = reward_model._Model.__init__

    def counted(self: Any, config: reward_model.RewardModelConfig) -> None:
        found.append((config.batch_tokens, sum(ref() is not None for ref in alive)))
        alive.append(weakref.ref(self))
        load(self, config)

    monkeypatch.setattr(reward_model._Model, "__init__", counted)
    return found


def test_a_reward_model_is_loaded_once_for_its_probes_and_all_shards(
    tmp_path: Path, loads: list[tuple[int, int]]
) -> None:
    path = plan(tmp_path, first={"batch_tokens": 300}, second={"batch_tokens": 500})
    summary = session.start(path, tmp_path / "store")
    assert loads == [(300, 0), (500, 0)], "the first is gone when the second is loaded"
    store = Store.open(tmp_path / "store", create=False)
    outputs = dict(runs.load(store, summary.run).outputs(store))
    assert outputs["panel.first"].shards() == 3
    for name in ("first", "second"):
        assert len(outputs[f"probes.{name}"].table("cards")) > 0
        votes = outputs[f"panel.{name}"].table("votes")
        assert set(votes["unit_kind"].to_pylist()) == {"pair", "response"}
        assert votes["value"].null_count == 0


def test_what_is_published_loads_nothing(tmp_path: Path, loads: list[tuple[int, int]]) -> None:
    path = plan(tmp_path, first={"batch_tokens": 300})
    session.start(path, tmp_path / "store")
    session.start(path, tmp_path / "store")
    assert len(loads) == 1
