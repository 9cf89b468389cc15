"""From votes to stated probabilities in a whole run: people, beliefs, bounds, queues, panels, rubrics."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows import runs, session
from flows.calibrating import in_words
from flows.report_rounds import rounds
from flows.rounds import fold_of
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import ErrorBound
from tests.flows.plans import POLICY, prompt, scripted, write_plan

VERDICTS = ['{"winner": "A", "strength": 2}', '{"winner": "B", "strength": 1}']
PLAN: dict[str, Any] = {
    "shard_rows": 50,
    "process": None,
    "engines": {"judge": {"kind": "scripted", "replies": VERDICTS}},
    "pairs": {"best_worst": False},
    "judge": {
        "judges": ["verifier", "agreement"],
        "panel": {
            "compares": {"kind": "pairwise", "engine": "judge"},
            "alike": {"kind": "code", "measure": "chrf"},
        },
    },
    "calibrate": {},
    "route": {"answers": 30},
}


def run(folder: Path, rows: int = 120, **changes: Any) -> dict[str, Published]:
    path = write_plan(folder, scripted(**{**PLAN, **changes}), [prompt(n) for n in range(rows)])
    summary = session.start(path, folder / "store")
    assert summary.status == "complete"
    store = Store.open(folder / "store", create=False)
    return dict(runs.load(store, summary.run).outputs(store))


def told(folder: Path, outputs: dict[str, Published], share: float = 1.0) -> None:
    """Write people's votes: of the first pairs by id, what the verifier knows."""
    right = {
        row["unit"]: row["value"]
        for row in outputs["verify"].table("votes").to_pylist()
        if row["judge"] == "verifier" and row["value"] is not None
    }
    pairs = sorted(outputs["pairs"].table("pairs").to_pylist(), key=lambda row: row["id"])
    lines = [
        {
            "pair_id": row["id"],
            "value": right[row["response_a"]] - right[row["response_b"]],
            "annotator": "ann",
            "purpose": "audit",
            "propensity": share,
        }
        for row in pairs[: int(share * len(pairs))]
    ]
    (folder / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def card(outputs: dict[str, Published]) -> str:
    return (outputs["emit"].path / "files" / "README.md").read_text("utf-8")


def test_without_people_beliefs_are_there_and_say_that_nobody_stands_behind_them(
    tmp_path: Path,
) -> None:
    outputs = run(tmp_path, risk={})
    pairs = outputs["pairs"].table("pairs")["id"].to_pylist()
    beliefs = outputs["calibrate"].table("beliefs").to_pylist()
    assert [row["pair_id"] for row in beliefs] == pairs
    assert not any(row["calibrated"] for row in beliefs)
    assert {row["rule"] for row in outputs["decide"].table("decisions").to_pylist()} == {
        "posterior-1"
    }
    (bound,) = outputs["decide"].table("bounds").to_pylist()
    assert (bound["accepted"], bound["bound"], bound["labels"]) == (0, None, 0)
    assert bound["reason"].startswith("too_few_labels")
    assert not any(row["accepted"] for row in outputs["decide"].table("decisions").to_pylist())
    assert "It is not calibrated" in card(outputs)
    assert {row["purpose"] for row in outputs["route"].table("queue").to_pylist()} >= {"audit"}


def test_with_people_the_card_states_the_bound_and_who_stands_behind_it(tmp_path: Path) -> None:
    told(tmp_path, run(tmp_path))
    outputs = run(
        tmp_path,
        humans={"paths": ["votes.jsonl"]},
        risk={"alpha": 0.1},
        emit={"accepted_only": True},
    )
    labels = outputs["humans"].table("labels").to_pylist()
    assert len(labels) > 100 and {row["people"] for row in labels} == {1}
    assert all(row["calibrated"] for row in outputs["calibrate"].table("beliefs").to_pylist())
    (bound,) = outputs["decide"].table("bounds").to_pylist()
    assert (bound["kind"], bound["bound"], bound["labels"]) == ("joint", 0.1, len(labels))
    decided = outputs["decide"].table("decisions").to_pylist()
    accepted = [row for row in decided if row["accepted"]]
    assert len(accepted) == bound["accepted"] > 50
    facts = outputs["emit"].manifest.facts
    assert sum(facts["rows"]["preference"].values()) == facts["accepted"] == len(accepted)
    text = card(outputs)
    assert "## Error bound" in text and f"{len(labels)} labels" in text
    assert "It is calibrated on" in text
    # People's votes are named in the rows that rest on them, under no name of theirs.
    votes = [row for row in outputs["humans"].table("votes").to_pylist()]
    assert {row["judge_kind"] for row in votes} == {"human"}
    assert not any(row["judge"] == "ann" for row in votes)


def test_what_people_answered_is_not_asked_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    told(tmp_path, first, share=0.4)
    outputs = run(tmp_path, humans={"paths": ["votes.jsonl"]}, route={"answers": 30, "round": 1})
    asked = set(outputs["route"].table("queue")["pair_id"].to_pylist())
    answered = set(outputs["humans"].table("labels")["pair_id"].to_pylist())
    assert asked and not asked & answered
    again = run(tmp_path, humans={"paths": ["votes.jsonl"]}, route={"answers": 30, "round": 1})
    assert again["route"].manifest.digest == outputs["route"].manifest.digest


def test_another_judge_asks_only_that_judge(tmp_path: Path) -> None:
    before = run(tmp_path, rows=20)
    panel = {**PLAN["judge"]["panel"], "scores": {"kind": "pointwise", "engine": "judge"}}
    path = write_plan(
        tmp_path,
        scripted(
            **{
                **PLAN,
                "judge": {**PLAN["judge"], "panel": panel},
                "engines": {"judge": {"kind": "scripted", "replies": [*VERDICTS, '{"score": 7}']}},
                "failure_limit": 1.0,
            }
        ),
        [prompt(n) for n in range(20)],
    )
    del before
    summary = session.start(path, tmp_path / "store")
    assert "panel.scores" in summary.computed
    # The other replies make it another engine: what that engine judged before is asked anew, what
    # no engine judged is not.
    assert "panel.alike" not in summary.computed and "generate" not in summary.computed


def test_mined_rubrics_are_proven_and_vote(tmp_path: Path) -> None:
    outputs = run(tmp_path, rubrics={"methods": ["mined"], "held_out": 0.4})
    values = outputs["rubric_value"].table("values").to_pylist()
    assert Counter(row["action"] for row in values)["retire"] > 0
    kept = outputs["rubric_value"].table("rubrics").to_pylist()
    votes = outputs["rubric"].table("votes").to_pylist()
    assert [row["unit"] for row in votes] == outputs["pairs"].table("pairs")["id"].to_pylist()
    judged = any(row["value"] is not None for row in votes)
    assert judged == any(row["status"] != "retired" for row in kept)


def test_a_judge_that_breaks_a_limit_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = run(
        tmp_path, rows=12, judge={**PLAN["judge"], "probes": {"limits": {"accuracy": 0.9}}}
    )
    assert "panel.compares" not in outputs and "panel.alike" in outputs
    cards = {row["measure"]: row for row in outputs["probes.compares"].table("cards").to_pylist()}
    assert cards["accuracy"]["passed"] is False
    assert "judge compares is left out: accuracy 0." in capsys.readouterr().err


@pytest.mark.slow
def test_rounds_train_a_judge_that_never_judges_what_it_learned_from(tmp_path: Path) -> None:
    reward = {"base": str(POLICY), "epochs": 1, "threads": 1}
    outputs = run(
        tmp_path, rows=40, rounds={"count": 2, "folds": 2, "min_pairs": 8, "reward": reward}
    )
    pairs = outputs["pairs"].table("pairs").to_pylist()
    for number in (1, 2):
        votes = outputs[f"round.{number}.reward"].table("votes").to_pylist()
        assert [row["unit"] for row in votes] == [row["id"] for row in pairs]
        assert {row["judge"] for row in votes} == {f"reward-{number}"}
        assert all(-1 <= row["value"] <= 1 for row in votes)
    assert {fold_of(row["prompt_id"], 2, 3) for row in pairs} == {0, 1}
    # The last round's model is a judge of the last decisions.
    shown = rounds(outputs)
    assert [r.number for r in shown] == [0, 1, 2]
    assert shown[0].changed == 0 and all(r.settled > 0 for r in shown)
    assert all(0 <= (r.expected_wrong or 0) < 0.5 and r.log_loss is None for r in shown)
    names = {vote["judge"] for vote in outputs["calibrate"].manifest.facts["judges"]}
    assert "reward-2" in names and "reward-1" not in names


def test_a_bound_in_words() -> None:
    bound = ErrorBound(
        slice="all",
        kind="conditional",
        alpha=0.02,
        confidence=0.9,
        threshold=0.97,
        accepted=800,
        pairs=1000,
        bound=0.02,
        labels=300,
        prompts=120,
        reason="holds",
    )
    assert in_words(bound) == (
        "Of all pairs, 800 of 1,000 are accepted: at most 2.00% of what is accepted of all pairs is "
        "wrong, with 90% confidence. Behind it: 300 labels of 120 prompts."
    )
    nothing = bound.model_copy(
        update={"bound": None, "accepted": 0, "threshold": None, "reason": "too_few_labels: 40"}
    )
    assert in_words(nothing) == (
        "Nothing is accepted of all pairs: too_few_labels: 40 (300 labels of 120 prompts)."
    )


def test_votes_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file matches .*votes\.jsonl"):
        run(tmp_path, rows=5, humans={"paths": ["votes.jsonl"]})


def test_what_people_wrote_on_responses_becomes_principles(tmp_path: Path) -> None:
    first = run(tmp_path, rows=12)
    # Prompts that are held out tell nothing; one remark a response of all of them.
    remarks = [
        {"unit": row["id"], "unit_kind": "criterion", "criterion": "Wrong reasoning",
         "annotator": "ann", "reason": "it forgets the carry"}
        for row in first["generate"].table("responses").to_pylist()
    ]  # fmt: skip
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in remarks))
    said = {"evidence": "forgets the carry", "text": "Carries digits.", "met": "no"}
    writer = {"kind": "scripted", "replies": [json.dumps({"principles": [said]})]}
    outputs = run(
        tmp_path,
        rows=12,
        engines={**PLAN["engines"], "writer": writer},
        humans={"paths": ["votes.jsonl"]},
        rubrics={"methods": ["feedback"], "engine": "writer", "scope": "general"},
    )
    texts = {row["text"] for row in outputs["rubrics"].table("criteria").to_pylist()}
    assert texts == {"Carries digits."}


def test_feedback_needs_people(tmp_path: Path) -> None:
    rubrics = {"methods": ["feedback"], "engine": "judge"}
    path = write_plan(tmp_path, scripted(**{**PLAN, "rubrics": rubrics}), 2)
    with pytest.raises(UserError, match="'feedback' needs what people wrote on responses"):
        session.start(path, tmp_path / "store")
