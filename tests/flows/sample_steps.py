"""Step labels made by hand: four questions, published in a store as a run publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows import runs
from flows.steps_data import SHOWN_ROLLOUTS, Drawn, Outcomes, QuestionSteps, Solved
from pipelines.process.estimate import interval, value
from pipelines.store import Draft, Key, Store
from schemas.record import digest
from schemas.records import (
    Asked,
    Message,
    Prompt,
    Reject,
    Response,
    Rollout,
    StepLabels,
    StepPair,
    Trajectory,
)

NAMES = {"R": "right", "W": "wrong", "T": "truncated", "U": "unparsed"}
PENS = "Ana has 3 boxes of 12 pens. She gives 7 pens to Ben, then buys twice as many as she has left. How many pens does she have?"
HEAD = "Ana starts with 3 × 12 = 36 pens.\n"
GIVEN = "After giving 7 to Ben she has 36 − 7 = 29 pens.\n"


class Rows(NamedTuple):
    """The tables of a small run."""

    prompts: list[Prompt]
    responses: list[Response]
    trajectories: list[Trajectory]
    rollouts: list[Rollout]
    labels: list[StepLabels]
    pairs: list[StepPair]
    rejects: list[Reject]


def empty() -> Rows:
    return Rows([], [], [], [], [], [], [])


def prompt(question: str, reference: str) -> Prompt:
    return Prompt(
        messages=(Message(role="user", content=question),),
        reference=reference,
        task="math",
        verifier="numeric",
        source="word_problems.jsonl",
        source_id=digest(question)[:6],
        licence="CC0-1.0",
    )


def prefix_id(of: Prompt, text: str) -> str:
    return digest("prefix", of.id, text)


def draw(rows: Rows, of: Prompt, kept: Sequence[str], outcomes: str, prover: bool = False) -> None:
    """Rollouts of a prefix, one a letter of R, W, T, U."""
    key = prefix_id(of, "".join(kept))
    first = sum(r.prefix_id == key and r.prover == prover for r in rows.rollouts)
    for index, letter in enumerate(outcomes, first):
        answer = {"R": of.reference, "W": str(29 + index), "T": None, "U": None}[letter]
        rows.rollouts.append(
            Rollout(
                prompt_id=of.id,
                prefix_id=key,
                position=len(kept),
                prover=prover,
                draw=index,
                text=f"Then she has {answer} pens.\n#{answer}"
                if answer
                else "Then, let us see, she",
                outcome=NAMES[letter],  # type: ignore[arg-type]
                answer=answer,
                completion_tokens=20 + index,
            )
        )


def solve(
    rows: Rows,
    of: Prompt,
    steps: Sequence[str],
    *,
    grown: bool = False,
    label: str = "",
    final_right: bool | None = None,
    method: str = "monte_carlo(k=8,stop_at=2)",
    stopped: str = "complete",
    resolved: bool = True,
    asked: Sequence[tuple[int, int, str, str]] = (),
    **columns: Any,
) -> StepLabels:
    """A solution whose labels count the rollouts drawn so far; `label` has r, w or - a step."""
    text = "".join(steps)
    response = None
    if not grown:
        response = Response(
            prompt_id=of.id,
            engine=digest("engine"),
            model="prefinery/word-problems-1.6m",
            sample_index=sum(r.prompt_id == of.id for r in rows.responses),
            text=text,
            prompt_tokens=60,
            completion_tokens=max(1, len(text) // 4),
            finish_reason="stop",
        )
        rows.responses.append(response)
    ends = tuple(len("".join(steps[: t + 1])) for t in range(len(steps)))
    keys = tuple(prefix_id(of, text[:end]) for end in (0, *ends))
    trajectory = Trajectory(
        prompt_id=of.id,
        response_id=response.id if response else None,
        text=text if grown else None,
        steps=tuple(step.rstrip("\n") for step in steps),
        starts=(0, *ends[:-1]),
        ends=ends,
        token_ends=(),
        prefixes=keys,
    )
    found = [[r for r in rows.rollouts if r.prefix_id == key and not r.prover] for key in keys[1:]]
    count = {
        name: tuple(sum(r.outcome == name for r in drawn) for drawn in found)
        for name in NAMES.values()
    }
    known = [
        (right, right + wrong) if right + wrong else None
        for right, wrong in zip(count["right"], count["wrong"], strict=True)
    ]
    between = [interval(*k, 0) if k else (None, None) for k in known]
    label = label or "".join("-" if k is None else "r" if k[0] else "w" for k in known)
    hard = tuple({"r": "right", "w": "wrong", "-": None}[letter] for letter in label)
    none = (None,) * len(steps)
    made: dict[str, Any] = {
        "n": tuple(map(len, found)),
        "successes": count["right"],
        "truncated": count["truncated"],
        "unparsed": count["unparsed"],
        "value": tuple(value(*k, 0) if k else None for k in known),
        "low": tuple(low for low, _ in between),
        "high": tuple(high for _, high in between),
        "sound": none,
        "error": none,
        "advantage": none,
        "judge_label": none,
        "judge_probability": none,
        "label": hard,
        "source": tuple(
            "none" if h is None else "rollouts" if k else "inferred"
            for h, k in zip(hard, known, strict=True)
        ),
        "first_error": hard.index("wrong") if "wrong" in hard else None,
        "no_error": None,
        "tokens": tuple(sum(r.completion_tokens for r in drawn) for drawn in found),
    }
    labels = StepLabels(
        prompt_id=of.id,
        response_id=response.id if response else None,
        trajectory_id=trajectory.id,
        method=method,
        steps=trajectory.steps,
        resolved=resolved,
        stopped=stopped,
        asked=tuple(
            Asked(position=at, count=n, of=who, why=why)  # type: ignore[arg-type]
            for at, n, who, why in asked
        ),
        final_right=final_right,
        **{**made, **columns},
    )
    rows.trajectories.append(trajectory)
    rows.labels.append(labels)
    return labels


def pens() -> Rows:
    """A question with three given and two grown solutions, as a posterior search leaves them."""
    rows, of = empty(), prompt(PENS, "87")
    rows.prompts.append(of)
    good = [
        HEAD,
        GIVEN,
        "She buys 2 × 29 = 58 more pens.\n",
        "In total she has 29 + 58 = 87 pens.\n",
        "#87",
    ]
    bad = [
        HEAD,
        GIVEN,
        "Twice as many as she has left is 2 × 36 = 72 pens.\n",
        "29 + 72 = 101, so she has 101 pens.\n",
        "#101",
    ]
    odd = [
        HEAD,
        "Ben gets 7, so 7 − 36 = 29 pens are left over, which is fine.\n",
        "She then has 29 × 2 = 58 pens.\n",
        "#58",
    ]
    short = [HEAD, GIVEN, "So she ends with 29 × 3 = 87.\n", "#87"]
    lost = ["There are 3 + 12 = 15 pens in the boxes.\n", "15 − 7 = 8 pens.\n", "#24"]
    for kept, outcomes in (
        ([], "RRWRRWTR"),
        (good[:1], "RRRRWRRR"),
        (good[:2], "RRRRRWRRRRRR"),
        (good[:3], "RRRR"),
        (good[:4], "RRRRRRRR"),
        (bad[:3], "WWUWWWWTWWWW"),
        (bad[:4], "WWWW"),
        (odd[:2], "RWRWTRWR"),
        (odd[:3], "WWWW"),
        (short[:3], "RRRR"),
        (lost[:1], "WWWWWWWR"),
    ):
        draw(rows, of, kept, outcomes)
    draw(rows, of, bad[:2], "RRWR", prover=True)
    method = "changepoint(confidence=0.9)"
    ask = "policy"
    solve(
        rows, of, good, label="rrrrr", final_right=True, method=method, stopped="confident",
        source=("rollouts", "rollouts", "rollouts", "rollouts", "answer"),
        sound=(0.99, 0.985, 0.98, 0.975, 0.97), error=(0.01, 0.005, 0.005, 0.005, 0.005),
        no_error=0.97, value=(0.81, 0.88, 0.9, 0.95, 1.0), low=(0.6, 0.72, 0.63, 0.76, 1.0),
        high=(0.94, 0.97, 0.99, 1.0, 1.0),
        asked=[(0, 4, ask, "pilot"), (2, 4, ask, "0.61 bits over 1..4"), (4, 8, ask, "0.34 bits over 3..4"), (3, 4, ask, "0.12 bits over 3..4")],
    )  # fmt: skip
    solve(
        rows, of, bad, label="rrwww", final_right=False, method=method, stopped="confident",
        source=("rollouts", "rollouts", "rollouts", "inferred", "answer"),
        sound=(0.99, 0.965, 0.04, 0.03, 0.01), error=(0.01, 0.025, 0.925, 0.01, 0.02), no_error=0.01,
        value=(0.81, 0.88, 0.04, 0.03, 0.0), low=(0.6, 0.72, 0.0, 0.0, 0.0),
        high=(0.94, 0.97, 0.18, 0.2, 0.0), advantage=(0.11, 0.07, -0.84, -0.01, None),
        judge_label=("right", "right", "wrong", "right", None),
        judge_probability=(1.0, 0.8, 0.2, 0.6, None),
        asked=[
            (0, 4, ask, "pilot"), (3, 4, ask, "0.93 bits over 1..5"), (1, 4, ask, "0.41 bits over 1..3"),
            (2, 4, ask, "0.38 bits over 2..3"), (3, 8, ask, "0.22 bits over 2..3"), (2, 4, "prover", "advantage"),
            (3, 1, "judge", "verdict on step 3"), (2, 8, ask, "0.15 bits over 2..3"), (4, 4, ask, "0.05 bits over 3..4"),
        ],
    )  # fmt: skip
    solve(
        rows, of, odd, label="r--w", final_right=False, method=method, stopped="budget",
        resolved=False, source=("rollouts", "none", "none", "answer"),
        sound=(0.98, 0.55, 0.2, 0.01), error=(0.02, 0.43, 0.35, 0.19), no_error=0.01,
        asked=[(0, 4, ask, "pilot"), (2, 8, ask, "0.8 bits over 1..4"), (3, 4, ask, "0.3 bits over 2..3")],
    )  # fmt: skip
    solve(rows, of, short, grown=True, label="rrrr", final_right=True, method=method, stopped="confident",
          source=("rollouts", "rollouts", "rollouts", "answer"))  # fmt: skip
    solve(rows, of, lost, grown=True, label="w-w", final_right=False, method=method, stopped="pool_empty",
          resolved=False, source=("rollouts", "none", "answer"))  # fmt: skip
    for prefix, chosen, rejected, probability in (
        ("", HEAD, lost[0], 0.998),
        (HEAD, GIVEN, odd[1], 0.914),
        (HEAD + GIVEN, good[2], bad[2], 0.999),
        ("A prefix of no solution.\n", "one way\n", "another\n", 0.75),
    ):
        rows.pairs.append(
            StepPair(
                prompt_id=of.id,
                prefix=prefix,
                chosen=chosen,
                rejected=rejected,
                chosen_value=0.88,
                rejected_value=0.13,
                chosen_n=8,
                rejected_n=8,
                probability=probability,
                method=method,
            )
        )
    again = rows.responses[0].model_copy(update={"sample_index": 3})
    rows.responses.append(again)
    rows.rejects.append(
        Reject(
            unit=again.id, stage="process", code="same_text", detail="another sample says the same"
        )
    )
    return rows


def plain(number: int, outcomes: Sequence[str], **more: Any) -> Rows:
    """A question with one short solution, labelled by Monte Carlo."""
    rows, of = empty(), prompt(f"Mia has {number} nuts and eats 1. How many nuts?", str(number - 1))
    rows.prompts.append(of)
    steps = [*(f"line {t} of {number}\n" for t in range(1, len(outcomes) + 1)), f"#{number - 1}"]
    for t, letters in enumerate(outcomes, 1):
        draw(rows, of, steps[:t], letters)
    solve(rows, of, steps, final_right=True, **more)
    return rows


def question(rows: Rows) -> QuestionSteps:
    """The first question of some rows, without a store."""
    of = rows.prompts[0]
    answered = {response.id: response for response in rows.responses}
    solved = [
        Solved(t, labels, answered.get(t.response_id or ""))
        for t, labels in zip(rows.trajectories, rows.labels, strict=True)
        if t.prompt_id == of.id
    ]
    drawn: dict[tuple[str, bool], list[Rollout]] = {}
    for rollout in rows.rollouts:
        if rollout.prompt_id == of.id:
            drawn.setdefault((rollout.prefix_id, rollout.prover), []).append(rollout)
    counted = {
        key: Drawn(
            Outcomes(
                *(sum(r.outcome == name for r in found) for name in NAMES.values()),
                tokens=sum(r.completion_tokens for r in found),
            ),
            tuple(found[:SHOWN_ROLLOUTS]),
        )
        for key, found in drawn.items()
    }
    pairs, rejects = tuple(rows.pairs), tuple(rows.rejects)
    return QuestionSteps(of, tuple(solved), counted, pairs, rejects, len(rows.responses))


def joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*([row for part in parts for row in part[i]] for i in range(len(Rows._fields))))


def publish(root: Path, rows: Rows, seed: int = 7) -> tuple[Store, runs.RunRecord]:
    """A store with these rows, in two shards where the process stage has more than one question."""
    store = Store.open(root)
    record = runs.RunRecord("word-problems-0123456789", "word-problems")
    record.attempts.append({"started": runs.now()})
    first = rows.prompts[0].id if rows.prompts else ""

    def half(table: Sequence[Any], which: int) -> list[Any]:
        return [row for row in table if (getattr(row, "prompt_id", first) == first) == (which == 0)]

    tables: dict[str, list[dict[str, tuple[Any, list[Any]]]]] = {
        "ingest": [{"prompts": (Prompt, rows.prompts), "rejects": (Reject, [])}],
        "generate": [{"responses": (Response, rows.responses), "rejects": (Reject, [])}],
        "process": [
            {
                "trajectories": (Trajectory, half(rows.trajectories, which)),
                "rollouts": (Rollout, half(rows.rollouts, which)),
                "step_labels": (StepLabels, half(rows.labels, which)),
                "step_pairs": (StepPair, half(rows.pairs, which)),
                "rejects": (Reject, rows.rejects if which == 0 else []),
            }
            for which in (0, 1)
        ],
    }
    for stage, units in tables.items():
        with store.draft(Key(stage, 1, {"samples": 4}, {}, seed)) as draft:
            assert isinstance(draft, Draft)
            for unit, output in enumerate(units):
                made = {
                    name: (kind, kind.to_table(found)) for name, (kind, found) in output.items()
                }
                draft.write(unit, made, {})
            published = draft.publish(len(units))
        record.stages[stage] = {"stage": stage, "digest": published.manifest.digest}
    runs.save(store, record)
    return store, record
