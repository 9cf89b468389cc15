"""The stage of step labels: split responses, run a labelling method against the engines, keep all of it.

The method is one of `methods/`; scheduler.py serves its requests. Truncated and unparsable rollouts
are counted as themselves, neither right nor wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines import prompting
from pipelines.config import Advance, silent
from pipelines.engines.base import Engine, Reply, Request, Sampling
from pipelines.grading import Grade, grade
from pipelines.pool import bounded
from pipelines.process.config import ProcessConfig
from pipelines.process.filtering import filtered
from pipelines.process.methods import (
    advantage,
    consensus,
    ensemble,
    epic,
    monte_carlo,
    omega,
    reference,
    scan,
    sorm,
    tree,
)
from pipelines.process.methods.changepoint import Changepoint
from pipelines.process.scheduler import Scheduler
from pipelines.process.search import (
    STAGE,
    Drawn,
    Finding,
    Found,
    Prefix,
    Query,
    Question,
    Search,
    Solution,
    Step,
    tally,
)
from pipelines.process.splitting import split
from pipelines.sampling import opening
from pipelines.structured import ask_json
from schemas.errors import BadReply
from schemas.record import digest
from schemas.records import (
    Prompt,
    Reject,
    Response,
    Rollout,
    StepLabels,
    StepPair,
    Trajectory,
)

NAME = STAGE
VERSION = 3

TEMPLATES = Path(__file__).parent / "templates"
JUDGE_TEMPERATURE = 0.3
"""Low, and not 0: a verdict that could not be read is asked for again, and is to come out another."""

_METHODS: dict[str, Callable[[Question, ProcessConfig], Search]] = {
    "monte_carlo": monte_carlo.search,
    "omega": omega.search,
    "omega_mm": omega.search,
    "advantage": advantage.search,
    "sorm": sorm.search,
    "reference": reference.search,
    "ensemble": ensemble.search,
    "tree": tree.search,
    "consensus": consensus.search,
    "epic": epic.search,
    "scan": scan.search,
}


class Engines(NamedTuple):
    """Who is asked: the policy always, the others where the method has them."""

    policy: Engine
    prover: Engine | None = None
    judge: Engine | None = None


class Labelled(NamedTuple):
    """What labelling gives: the splits, every rollout, the labels, and what was passed over."""

    trajectories: list[Trajectory]
    rollouts: list[Rollout]
    labels: list[StepLabels]
    pairs: list[StepPair]
    rejects: list[Reject]


def templates_digest() -> str:
    """Digest of the judge's prompt templates: other words are another stage."""
    names = sorted(path.stem for path in TEMPLATES.glob("*.md"))
    return digest("templates", [prompting.load(TEMPLATES, name).digest for name in names])


async def label_steps(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    engines: Engines,
    config: ProcessConfig,
    seed: int,
    advance: Advance = silent,
    system: str | None = None,
    share: float = 1.0,
) -> Labelled:
    """Label the steps of responses whose prompt has a reference answer and a verifier.

    `system` is the system message that the responses were written under; `share` the part of the
    run's token budget that these prompts have. Every response is labelled or is a Reject.
    """
    questions, rejects = await _questions(prompts, responses, engines.policy, config)
    advance(len(rejects), 0)
    sampling = config.sampling.with_seed(seed)

    async def draw(question: Question, prefix: Prefix, index: int, prover: bool) -> Drawn:
        engine = engines.prover if prover else engines.policy
        assert engine is not None, "the plan is checked to name a prover"
        messages = opening(question.prompt.messages, system)
        try:
            reply = await engine.complete(
                Request(messages, sampling, index, prefix.text, prefix_ids=prefix.ids)
            )
        except BadReply as error:
            if error.code != "empty_reply":
                raise
            # The policy ended at once: what it continued is the whole solution.
            reply = Reply("", "stop", 0, 0)
        cut = reply.finish_reason == "length"
        graded = await grade(question.prompt, prefix.text + reply.text, cut)
        return Drawn(graded.outcome, graded.answer, reply.text, reply.completion_tokens)

    async def judge(question: Question, query: Query) -> str:
        assert engines.judge is not None, "the plan is checked to name a judge"
        return await ask_json(
            engines.judge,
            prompting.load(TEMPLATES, query.template).fill(dict(query.values)),
            query.schema,
            Sampling(JUDGE_TEMPERATURE, max_tokens=config.judge_tokens, seed=seed),
            query.sample,
        )

    asked = engines.policy if config.method not in ("reference", "ensemble") else engines.judge
    assert asked is not None
    scheduler = Scheduler(draw, judge, asked.concurrency, advance)
    budget = None if config.budget_tokens is None else int(config.budget_tokens * share)
    findings = await _search(scheduler, questions, config, budget)

    result = Labelled([], [], [], [], rejects)
    for question, finding in zip(questions, findings, strict=True):
        result.rejects.extend(finding.rejects)
        result.pairs.extend(finding.pairs)
        result.rollouts.extend(_rollouts(question))
        for found in finding.found:
            result.trajectories.append(found.solution.trajectory)
            result.labels.append(_labels(question, found, config))
    return result


async def _questions(
    prompts: Sequence[Prompt], responses: Sequence[Response], policy: Engine, config: ProcessConfig
) -> tuple[list[Question], list[Reject]]:
    """Questions in the prompts' order, and the responses that are not to be labelled."""
    by_id = {prompt.id: prompt for prompt in prompts}

    async def graded(response: Response) -> Grade | None:
        prompt = by_id[response.prompt_id]
        if prompt.reference is None or prompt.verifier is None:
            return None
        return await grade(prompt, response.text, response.finish_reason == "length")

    rejects: list[Reject] = []
    samples: dict[str, list[Drawn]] = {}
    solutions: dict[str, list[Solution]] = {}
    texts: set[tuple[str, str]] = set()
    taken: Counter[str] = Counter()

    def pass_over(response: Response, code: str, detail: str) -> None:
        rejects.append(Reject(unit=response.id, stage=NAME, code=code, detail=detail))

    grades = await bounded(graded, responses, 64)
    for response, grade_of in zip(responses, grades, strict=True):
        prompt = response.prompt_id
        if grade_of is None:
            pass_over(response, "no_reference", "the prompt has no reference answer or verifier")
            continue
        outcome, answer = grade_of.outcome, grade_of.answer
        samples.setdefault(prompt, []).append(
            Drawn(outcome, answer, response.text, response.completion_tokens)
        )
        if not response.text.strip():
            pass_over(response, "no_steps", "the response holds no text")
        elif (prompt, response.text) in texts:
            pass_over(response, "same_text", "another sample of this prompt says the same")
        elif taken[prompt] >= config.per_prompt:
            pass_over(response, "over_limit", f"{config.per_prompt} of its prompt are labelled")
        else:
            tokens = policy.tokens(response.text)
            trajectory = split(response, config.splitter, tokens)
            assert trajectory is not None, "a text that is not blank has a step"
            texts.add((prompt, response.text))
            taken[prompt] += 1
            solutions.setdefault(prompt, []).append(
                Solution(
                    trajectory,
                    response.text,
                    ended=response.finish_reason == "stop",
                    final_right={"right": True, "wrong": False}.get(outcome),
                    answer=answer,
                    tokens=response.completion_tokens,
                    ids=tokens.ids if tokens else (),
                )
            )
    questions = [
        Question(prompt, tuple(solutions[prompt.id]), tally(samples[prompt.id]))
        for prompt in prompts
        if prompt.id in solutions
    ]
    return questions, rejects


async def _search(
    scheduler: Scheduler,
    questions: Sequence[Question],
    config: ProcessConfig,
    budget: int | None,
) -> list[Finding]:
    """What the method finds about each question."""
    if config.method != "changepoint":
        search = _METHODS[config.method]
        work = ((q, filtered(q, config, search(q, config))) for q in questions)
        return await scheduler.run(work, budget, config.question_tokens)
    method = Changepoint(config)
    pilot = method.pilot(questions)
    found: list[Finding] = []
    # What the pilot leaves of its part is for the rest.
    for part, upto in ((questions[:pilot], pilot / max(1, len(questions))), (questions[pilot:], 1)):
        spent = sum(question.book.spent for question in questions)
        own = None if budget is None else int(budget * upto) - spent
        search_all = ((q, filtered(q, config, method.search(q))) for q in part)
        found += await scheduler.run(search_all, own, config.question_tokens)
        method.fit(zip(questions, [f.found for f in found], strict=False))
    return [
        f._replace(found=tuple(method.relabel(q, one) for one in f.found))
        for q, f in zip(questions, found, strict=True)
    ]


def _rollouts(question: Question) -> list[Rollout]:
    book = question.book
    return [
        Rollout(
            prompt_id=question.prompt.id,
            prefix_id=question.prefix_id(text),
            position=book.positions[text],
            prover=prover,
            draw=index,
            text=drawn.text,
            outcome=drawn.outcome,
            answer=drawn.answer,
            completion_tokens=drawn.tokens,
        )
        for (prover, text), every in book.draws.items()
        for index, drawn in enumerate(every)
    ]


def _labels(question: Question, found: Found, config: ProcessConfig) -> StepLabels:
    trajectory = found.solution.trajectory
    columns = zip(Step._fields, zip(*found.steps, strict=True), strict=True)
    return StepLabels(
        prompt_id=question.prompt.id,
        response_id=trajectory.response_id,
        trajectory_id=trajectory.id,
        method=config.described(),
        steps=trajectory.steps,
        first_error=found.first_error,
        no_error=found.no_error,
        resolved=found.resolved,
        stopped=found.stopped,
        asked=found.asked,
        final_right=found.solution.final_right,
        **dict(columns),
    )
