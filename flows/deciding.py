"""The jobs from responses to decisions: what is compared, who votes, what is decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows import panel
from flows.material import Material, Votes
from flows.rubric_jobs import JUDGE, judge_by_rubrics
from flows.runner import Run, Step, digests, settings, stage, units
from pipelines import pairs
from pipelines.config import Advance
from pipelines.consistency import decide
from pipelines.judge import derived
from pipelines.judge.config import PanelJudge
from pipelines.store import Output, Published
from schemas.records import Decision, Pair, Reject, Vote


def pair_up(
    run: Run,
    prompts: Published,
    responses: Published,
    verdicts: Published,
    labels: Published | None,
) -> Published:
    """Choose what is compared."""
    config = run.plan.pairs
    step = Step(
        "pairs",
        pairs.NAME,
        pairs.VERSION,
        settings(config),
        digests(prompts=prompts, responses=responses, verdicts=verdicts, labels=labels),
    )

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        asked = prompts.shard("prompts", unit)
        made, bad = pairs.pair_up(
            asked,
            responses.shard("responses", unit),
            verdicts.shard("votes", unit),
            labels.shard("step_labels", unit) if labels else None,
            config,
            run.plan.seed,
        )
        advance(len(asked), 0)
        return {"pairs": (Pair, made), "rejects": (Reject, bad)}, {"rows": len(asked)}

    total = prompts.manifest.rows("prompts")
    return stage(run, step, units(run, step, prompts.shards(), work), lambda: total)


def gather_votes(run: Run, made: Material) -> Votes:
    """The votes of all judges that are not left out."""
    found: dict[str, Published] = {}
    if run.plan.judge.judges:
        found["judge"] = _derived(run, made)
    # Judges that are shown rubrics come after the rubrics, which the others' votes may rest on.
    judges = dict(run.plan.judge.panel)
    if run.plan.rounds is not None and run.plan.rounds.judge is not None:
        del judges[run.plan.rounds.judge]  # it is asked about few pairs, and later
    first = {n: c for n, c in judges.items() if not getattr(c, "rubric", False)}
    found |= _panel(run, first, made, None)
    if run.plan.rubrics is None:
        return Votes(found)
    proven, found[JUDGE] = judge_by_rubrics(run, made, Votes(dict(found)))
    rest = {n: c for n, c in judges.items() if n not in first}
    return Votes(found | _panel(run, rest, made, proven))


def _panel(
    run: Run, judges: Mapping[str, PanelJudge], made: Material, rubrics: Published | None
) -> dict[str, Published]:
    found = {}
    for name, config in judges.items():
        with panel.holding(config) as held:
            # Code is not led astray by words, and has no use for questions without its own checks.
            if run.plan.judge.probes is not None and config.kind != "code":
                why = panel.failing(panel.probe_judge(run, name, config, held))
                if why is not None:
                    if not run.dry:
                        run.reporter.say(f"judge {name} is left out: {why}")
                    continue
            found[f"{panel.NAME}.{name}"] = panel.ask_judge(
                run, name, config, made.prompts, made.responses, made.paired, rubrics, held
            )
    return found


def _derived(run: Run, made: Material) -> Published:
    """Votes by what the run knows already."""
    config = run.plan.judge
    paired, labels = made.paired, made.labels
    step = Step(
        "judge",
        derived.NAME,
        derived.VERSION,
        settings(config, "panel", "probes"),
        digests(pairs=paired, responses=made.responses, verdicts=made.verdicts, labels=labels),
    )

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        compared = paired.shard("pairs", unit)
        votes = derived.judge(
            compared,
            made.responses.shard("responses", unit),
            made.verdicts.shard("votes", unit),
            labels.shard("step_labels", unit) if labels else None,
            config,
        )
        advance(len(compared), 0)
        return {"votes": (Vote, votes)}, {"rows": len(compared)}

    total = paired.manifest.rows("pairs")
    return stage(run, step, units(run, step, paired.shards(), work), lambda: total)


def decide_pairs(run: Run, made: Material, votes: Votes) -> Published:
    """Turn votes into decisions."""
    config = run.plan.decide
    step = Step(
        "decide",
        decide.NAME,
        decide.VERSION,
        settings(config, "costs"),
        {**digests(pairs=made.paired), **votes.digests()},
    )

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        compared = made.paired.shard("pairs", unit)
        decisions = decide.decide(compared, votes.shard(unit), config)
        advance(len(compared), 0)
        return {"decisions": (Decision, decisions)}, {"rows": len(compared)}

    total = made.paired.manifest.rows("pairs")
    return stage(run, step, units(run, step, made.paired.shards(), work), lambda: total)
