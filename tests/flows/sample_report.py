"""A run of word problems, as the report sees it: made up, but every count adds up."""

from __future__ import annotations

from flows.charts import Bin, Curve, Histogram, Point
from flows.report import (
    Band,
    EngineUsed,
    Evaluation,
    Figure,
    Group,
    PairRow,
    Place,
    Reliability,
    ReportData,
    StageCount,
    StageDigest,
    StepPositions,
)
from schemas.record import digest
from schemas.records import (
    Asked,
    Decision,
    Message,
    Pair,
    Prompt,
    Reject,
    Response,
    StepLabels,
    Vote,
)
from tests.flows import sample_report_judging as judging

ENGINE = digest("engine", "word-problems")
RULE = "three-way 2"


def response(prompt: Prompt, sample: int, text: str) -> Response:
    return Response(
        prompt_id=prompt.id,
        engine=ENGINE,
        model="prefinery/word-problems-1.6m",
        sample_index=sample,
        text=text,
        prompt_tokens=52,
        completion_tokens=len(text),
        finish_reason="stop",
        logprob=-3.2,
    )


def step_labels(answer: Response, good: bool) -> StepLabels:
    """Labels from 16 rollouts a step; where the answer is not good, all but the first step fail."""
    steps = tuple(answer.text.splitlines(keepends=True))
    right = (15, *((16 if good else 1),) * (len(steps) - 1))
    value = tuple((k + 0.5) / 17 for k in right)
    zero, none = (0,) * len(steps), (None,) * len(steps)
    label = tuple("right" if v > 0.3 else "wrong" for v in value)
    return StepLabels(
        prompt_id=answer.prompt_id,
        response_id=answer.id,
        trajectory_id=digest("trajectory", answer.id),
        method="monte_carlo(k=16)",
        steps=steps,
        n=(16,) * len(steps),
        successes=right,
        truncated=zero,
        unparsed=zero,
        value=value,
        low=tuple(max(0.0, v - 0.14) for v in value),
        high=tuple(min(1.0, v + 0.12) for v in value),
        label=label,
        source=(*("rollouts",) * (len(steps) - 1), "answer"),
        **dict.fromkeys(("sound", "error", "advantage"), none),
        **dict.fromkeys(("judge_label", "judge_probability"), none),
        no_error=None,
        resolved=True,
        stopped="complete",
        asked=tuple(
            Asked(position=t + 1, count=16, of="policy", why="every step")
            for t in range(len(steps) - 1)
        ),
        first_error=label.index("wrong") if "wrong" in label else None,
        tokens=(220,) * len(steps),
        final_right=good,
    )


def pair_row(
    group: Group,
    question: str,
    a: str,
    b: str,
    action: str = "keep",
    votes: tuple[float, ...] = (0.9, 0.8, 0.7),
    sound: str = "a",
    steps: bool = True,
    why: str = "The second line of the other adds what should be taken away.",
) -> PairRow:
    prompt = Prompt(
        messages=(Message(role="user", content=question),),
        reference={ANA: "5", BEN: "13", MIA: "8"}.get(question, "5"),
        task="math",
        verifier="numeric",
        source="word_problems.jsonl",
        source_id="train-0117",
        licence="CC0-1.0",
    )
    left, right = response(prompt, 0, a), response(prompt, 3, b)
    pair = Pair(
        prompt_id=prompt.id,
        response_a=left.id,
        response_b=right.id,
        label="a",
        label_source="verifier",
    )
    judges = [("reward-0", "reward_model"), ("judge-strict", "llm"), ("arithmetic", "code")]
    cast = tuple(
        Vote(
            unit=pair.id,
            unit_kind="pair",
            judge=name,
            judge_kind=kind,
            order="ab" if kind == "llm" else None,
            value=value,
            reason=why if kind == "llm" else "",
        )
        for (name, kind), value in zip(judges, votes, strict=True)
    )
    margin = sum(votes) / len(votes)
    chance = min(0.98, 0.5 + abs(margin) / 2)
    decision = Decision(
        pair_id=pair.id,
        action=action,
        probability=chance,
        target=chance if margin > 0 else 1 - chance,
        margin=margin,
        reason={"keep": "judges_agree", "drop": "too_uncertain"}.get(
            action, "judges_outvote_label"
        ),
        rule=RULE,
    )
    return PairRow(
        group,
        prompt,
        pair,
        left,
        right,
        cast,
        decision,
        step_labels(left, good="a" in sound) if steps else None,
        step_labels(right, good="b" in sound) if steps else None,
    )


ANA = "Ana has 3 pens. Gets 4 more. Loses 2. How many pens?"
BEN = "Ben has 9 eggs. Sells 5. Buys 12. Gives away 3. How many eggs?"
MIA = "Mia has 2 bags of 6 nuts. Eats 4. How many nuts?"

VALUES = (812, 401, 223, 160, 131, 118, 109, 121, 127, 140)
VALUES += (161, 177, 203, 246, 311, 402, 561, 843, 1320, 2204)


def sample() -> ReportData:
    ns = (1, 2, 4, 8, 16, 32)
    heights = {
        "policy": (0.79,) * 6,
        "reward model": (0.79, 0.838, 0.872, 0.894, 0.905, 0.908),
        "step head": (0.79, 0.845, 0.884, 0.908, 0.921, 0.926),
        "combined": (0.79, 0.851, 0.893, 0.919, 0.934, 0.941),
        "oracle": (0.79, 0.891, 0.947, 0.973, 0.984, 0.989),
    }
    curves = tuple(
        Curve(
            name,
            tuple(
                Point(n, v, v - 0.014, min(1.0, v + 0.013)) for n, v in zip(ns, values, strict=True)
            ),
        )
        for name, values in heights.items()
    )
    calibration = ((0.05, 4, 96), (0.16, 11, 61), (0.27, 14, 48), (0.35, 19, 50), (0.46, 24, 52))
    calibration += (
        (0.55, 37, 64),
        (0.66, 58, 83),
        (0.75, 86, 121),
        (0.86, 160, 190),
        (0.96, 402, 421),
    )
    good, bad = "3+4=7\n7-2=5\n#5", "3+4=7\n7+2=9\n#9"
    rows = (
        pair_row("agreeing", ANA, good, bad),
        pair_row("agreeing", BEN, "9-5=4\n4+12=16\n16-3=13\n#13", "9-5=4\n4+12=15\n15-3=12\n#12"),
        pair_row("agreeing", MIA, "2*6=12\n12-4=8\n#8", "2+6=8\n8-4=4\n#4"),
        pair_row("narrow", ANA, good, "3+4=7\n7-2=5\n#7", "soften", (0.4, -0.1, 0.1)),
        pair_row(
            "disagreeing",
            MIA,
            "2*6=12\n12+4=16\n#16",
            "2*6=12\n12-4=8\n#8",
            "flip",
            (-0.9, -0.8, -0.6),
            "b",
        ),
        pair_row("disagreeing", ANA, good, bad, "route", (0.9, -0.8, 0.3)),
        pair_row("dropped", BEN, "#13", "#13", "drop", (0.0, 0.1, -0.1), "ab", False),
    )
    return ReportData(
        plan_name="word-problems-small",
        run_id="20261121-2f9c",
        plan_digest=digest("plan"),
        seed=7,
        engines=(
            EngineUsed("policy", "local", "prefinery/word-problems-1.6m", digest("weights")),
            EngineUsed(
                "judge strict",
                "openai",
                "Qwen/Qwen3-8B",
                "9c925d64d72725edaf899c6cb9c377fd0709d9c5",
            ),
        ),
        places=(
            Place("preferences", "dataset/preferences", "Parquet: train, validation and test"),
            Place("reward model", "models/reward/seed-0", "safetensors and config"),
            Place("store", "store", "every stage’s rows and manifests"),
        ),
        next_steps=(
            (
                "Read the pairs that were routed to people.",
                "prefinery review push plans/word-problems.toml",
            ),
            (
                "Look at any stage as a table.",
                'prefinery query "select action, count(*) from decisions group by 1"',
            ),
        ),
        stages=(
            StageCount(
                "ingest",
                "prompts",
                1224,
                1180,
                {"duplicate": 31, "no_reference": 9, "not_json": 4},
                "exact and near duplicates",
            ),
            StageCount(
                "decontaminate",
                "prompts",
                1180,
                1161,
                {"benchmark_overlap": 19},
                "13-gram overlap with the test sets",
                after="ingest",
            ),
            StageCount(
                "generate",
                "prompts",
                1161,
                9260,
                {"empty_reply": 3, "too_long": 25},
                "temperature 1",
                made="responses",
                each=8,
                after="decontaminate",
            ),
            StageCount(
                "verify",
                "responses",
                9260,
                9260,
                note="final answer against the reference",
                after="generate",
                outcomes={"right": 7291, "wrong": 1803, "unparsed": 104, "truncated": 62},
            ),
            StageCount(
                "pair",
                "responses",
                9260,
                1640,
                note="one right and one wrong response of a prompt",
                made="pairs",
                each=None,
                after="verify",
            ),
            StageCount(
                "decide",
                "pairs",
                1640,
                1640,
                note="three judges, split-conformal thresholds",
                after="pair",
                outcomes={"keep": 1192, "flip": 41, "soften": 173, "drop": 126, "route": 108},
            ),
            StageCount(
                "emit",
                "pairs",
                1640,
                1406,
                {"dropped": 126, "waiting_for_people": 108},
                "split by prompt",
                after="decide",
                outcomes={"train": 1123, "validation": 142, "test": 141},
            ),
            StageCount(
                "segment", "responses", 9260, 2400, made="trajectories", each=None, after="verify"
            ),
            StageCount(
                "label steps", "trajectories", 2400, 2371, {"one_step": 29}, after="segment"
            ),
            StageCount(
                "emit steps",
                "trajectories",
                2371,
                2371,
                note="split by prompt",
                after="label steps",
                outcomes={"train": 1897, "validation": 240, "test": 234},
            ),
        ),
        step_values=Histogram(0, 1, VALUES),
        interval_widths=Histogram(
            0, 1, (120, 980, 2210, 2460, 1600, 802, 411, 150, 37, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        ),
        decision_probabilities=Histogram(0.5, 1, (61, 48, 52, 60, 71, 90, 118, 170, 301, 669)),
        label_sources={
            "pairs": {"verifier": 1598, "people": 42},
            "steps": {"rollouts": 6390, "answer": 2371, "none": 9},
        },
        positions=StepPositions(
            2371,
            1288,
            (2371, 2371, 2260, 1502, 700, 211),
            (188, 402, 611, 480, 251, 94),
            (188, 260, 305, 201, 98, 31),
        ),
        evaluation=Evaluation(
            about="500 held-out prompts, 32 responses each, never seen by any stage above.",
            command="prefinery evaluate plans/word-problems.toml --seeds 3",
            interval="95% bootstrap intervals over prompts",
            seeds=(0, 1, 2),
            figures=(
                Figure(
                    "accuracy",
                    "held-out pairs ranked as verified",
                    0.912,
                    0.894,
                    0.928,
                    (0.909, 0.917, 0.910),
                ),
                Figure(
                    "step AUROC",
                    "wrong steps told from right ones by the step head",
                    0.941,
                    0.93,
                    0.952,
                    (0.939, 0.945, 0.939),
                ),
                Figure(
                    "first-error F1",
                    "trajectories whose first wrong step was found",
                    0.803,
                    0.776,
                    0.829,
                    (0.79, 0.815, 0.804),
                ),
            ),
            best_of_n=curves,
            reliability=(Reliability("reward model", tuple(Bin(*b) for b in calibration)),),
        ),
        judges=judging.judges(),
        rubrics=judging.rubrics(),
        decisions=judging.decisions(),
        rows=rows[:-1],
        bands=(Band(0, 0.5, 0), Band(0.5, 0.9, 310, rows[-1:]), Band(0.9, 1, 1330)),
        rejects=(
            Reject(
                unit="word_problems.jsonl:88",
                stage="ingest",
                code="not_json",
                detail="Expecting ',' delimiter: column 41",
            ),
            Reject(unit=digest("p1"), stage="ingest", code="duplicate", detail=digest("p0")),
            Reject(
                unit=digest("p3"),
                stage="decontaminate",
                code="benchmark_overlap",
                detail="13 words shared with gsm8k test 214",
            ),
        ),
        plan_text='name = "word-problems-small"\nseed = 7\n\n[generate]\nengine = "policy"\nsamples = 8\n',
        digests=tuple(
            StageDigest(name, "1", record, rows_, digest(name))
            for name, record, rows_ in (
                ("ingest", "Prompt", 1180),
                ("generate", "Response", 9260),
                ("decide", "Decision", 1640),
            )
        ),
    )
