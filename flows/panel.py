"""The jobs that ask a panel of judges, each judge a stage of its own.

One more judge, or another setting of one, has no other judge asked again. A judge with probes is
first asked about those; one that fails a limit of the plan is left out, and its card says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from flows.runner import Run, Step, ask, check_failures, digests, stage, units, whole
from pipelines.config import Advance, silent
from pipelines.journal import Journaled
from pipelines.judge import panel
from pipelines.judge.cases import Case
from pipelines.judge.config import PanelJudge
from pipelines.judge.panel import holding as holding
from pipelines.judge.panel import judge as judge
from pipelines.store import Draft, Output, Published
from schemas.records import Criterion, JudgeCard, Pair, Prompt, Reject, Response, Rubric, Vote

NAME = "panel"
PROBES = "probes"


def cases_of(
    prompts: pa.Table,
    responses: pa.Table,
    pairs: pa.Table,
    rubric: Mapping[str | None, Sequence[Criterion]] | None = None,
) -> list[Case]:
    """The pairs with what they are made of, in their order; criteria of `None` are for any prompt."""
    asked = {p.id: p for p in Prompt.from_table(prompts)}
    answers = {r.id: r for r in Response.from_table(responses)}
    rubric = rubric or {}
    general = tuple(rubric.get(None, ()))
    return [
        Case(
            asked[pair.prompt_id],
            pair,
            answers[pair.response_a],
            answers[pair.response_b],
            (*general, *rubric.get(pair.prompt_id, ())),
        )
        for pair in Pair.from_table(pairs)
    ]


def criteria_by_prompt(rubrics: Published) -> dict[str | None, list[Criterion]]:
    """What each prompt's responses are judged by: the criteria that the proof kept."""
    known = {c.id: c for c in Criterion.from_table(rubrics.table("criteria"))}
    found: dict[str | None, list[Criterion]] = {}
    for rubric in Rubric.from_table(rubrics.table("rubrics")):
        if rubric.status != "retired":
            own = found.setdefault(rubric.prompt_id, [])
            own += [known[c] for c in rubric.criteria if known[c] not in own]
    return found


def ask_judge(
    run: Run,
    name: str,
    config: PanelJudge,
    prompts: Published,
    responses: Published,
    paired: Published,
    rubrics: Published | None,
    held: panel.Held | None,
) -> Published:
    """A judge's votes on all pairs, shard by shard."""
    used = engines(run, config)
    rubric = criteria_by_prompt(rubrics) if rubrics is not None else None
    made = step(
        run, f"{NAME}.{name}", NAME, name, config, used, digests(
            prompts=prompts, responses=responses, pairs=paired, rubrics=rubrics
        )
    )  # fmt: skip

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        cases = cases_of(
            prompts.shard("prompts", unit),
            responses.shard("responses", unit),
            paired.shard("pairs", unit),
            rubric,
        )
        done = ask(
            list(used.values()),
            lambda: panel.judge(name, config, cases, used, run.plan.seed, advance, held),
        )
        check_failures(run, list(used.values()), made.name, done.rejects, len(done.votes))
        output: Output = {
            "votes": (Vote, Vote.to_table(done.votes)),
            "rejects": (Reject, Reject.to_table(done.rejects)),
        }
        return output, {"rows": len(cases)}

    total = paired.manifest.rows("pairs")
    return stage(run, made, units(run, made, paired.shards(), work), lambda: total)


def probe_judge(run: Run, name: str, config: PanelJudge, held: panel.Held | None) -> Published:
    """A judge's card from the probe set."""
    probing = run.plan.judge.probes
    assert probing is not None
    used = engines(run, config)
    made = step(run, f"{PROBES}.{name}", PROBES, name, config, used, {})
    made.config["probes"] = probing.model_dump(mode="json")

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        cards, rejects = ask(
            list(used.values()),
            lambda: panel.probe(name, config, probing, used, run.plan.seed, silent, held),
        )
        output: Output = {
            "cards": (JudgeCard, JudgeCard.to_table(cards)),
            "rejects": (Reject, Reject.to_table(rejects)),
        }
        return output, {"rows": len(cards)}

    return stage(run, made, whole(run, made, work), lambda: 0)


def failing(cards: Published) -> str | None:
    """Why a judge is left out, if a figure of its card breaks a limit."""
    for card in JudgeCard.from_table(cards.table("cards")):
        if card.passed is False:
            return f"{card.measure} {card.value:.2f}, the plan's limit is {card.limit:g}"
    return None


def engines(run: Run, config: PanelJudge) -> dict[str, Journaled]:
    """The engines that a judge asks."""
    return {name: run.engines[name] for name in panel.engines_of(config)}


def step(
    run: Run,
    name: str,
    kind: str,
    judge: str,
    config: PanelJudge,
    used: Mapping[str, Journaled],
    inputs: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
) -> Step:
    """A stage that asks a judge; `more` is what else of the config makes its output another."""
    asked = list(used.values())
    roles = {role: run.engines[name].identity.digest for role, name in panel.roles(config)}
    return Step(
        name,
        kind,
        panel.VERSION,
        {
            **config.model_dump(mode="json", exclude={role for role, _ in panel.roles(config)}),
            "judge": judge,
            "material": panel.material(config),
            **(more or {}),
        },
        {**inputs, **roles},
        asked[0] if asked else None,
        tuple(asked[1:]),
    )
