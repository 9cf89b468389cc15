"""The bundled policy as a world: first errors by the checker, values by 1,024 rollouts.

Fresh word problems, eight responses each, of which up to two wrong ones a question are to be
labelled. Every prefix of theirs has a pool of rollouts, drawn once as the `local` engine does in
float32 (pool.py) and kept in `.cache/process_labels`. All methods take their rollouts from there, the i-th of a prefix
being the same for all of them; each seed begins elsewhere in the pool, which is a ring (and the
truth of values holds a method's own draws: at k = 128 the covered share is flattered by less than a
point). Prefixes that a search grows are drawn when they are first asked for, and kept too.

Figures, read as metrics.py says: `bundled_step_accuracy` (`forced`) and
`bundled_step_accuracy_labelled`, `bundled_first_error_accuracy`, `bundled_tokens_per_solution`,
`bundled_tokens_ratio_to_omega`, `bundled_tokens_ratio_to_math_shepherd` (policy tokens a solution of
`changepoint` over those of published OmegaPRM and of Math-Shepherd, k = 8), the same for tokens a
right label and for the difference in step accuracy, `bundled_brier`, `bundled_ece`,
`bundled_coverage_90`, `bundled_unresolved_share`. The bootstrap draws questions, each with what all
seeds made of it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from benchmarks.harness import REPO, Options, plot, say
from benchmarks.process_labels import ours, table
from benchmarks.process_labels.driving import World, fresh
from benchmarks.process_labels.frontier import frontier
from benchmarks.process_labels.grid import Measured, _spots, methods_table
from benchmarks.process_labels.judge import NoisyJudge
from benchmarks.process_labels.metrics import Bootstrap, sums
from benchmarks.process_labels.pool import Pool, text
from pipelines.process.config import ProcessConfig
from pipelines.process.label import _questions
from pipelines.process.search import Ask, Drawn, Finding, Prefix, Question, Search, tally
from schemas.records import Message, Prompt, Response

if TYPE_CHECKING:
    from data.word_problems import SolutionCheck

CACHE = REPO / ".cache" / "process_labels"
PROBLEMS = 3001
"""Seed of the problems."""
SOLUTIONS, QUICK_SOLUTIONS = 120, 6
ROLLOUTS, QUICK_ROLLOUTS = 1024, 64
RESPONSES, WRONG = 8, 2
RESPONSES_AT = 1_000_000
"""Responses are rollouts of the bare question from this number on: no method sees them."""
OURS = "changepoint"
OMEGA, MATH_SHEPHERD = "omega", "monte_carlo k=8"
PLACE = "bundled"


@cache
def _shown() -> frozenset[str]:
    from data.make_prompts import demo_problems, eval_problems

    return frozenset(p.text for p in (*demo_problems(), *eval_problems()))


def fresh_prompts(count: int, seed: int, exclude: Collection[str] = ()) -> list[Prompt]:
    """Word problems that neither prompts.jsonl, eval_prompts.jsonl nor `exclude` (texts) holds."""
    from data.word_problems import generate

    return [
        Prompt(
            messages=(Message(role="user", content=problem.text),),
            reference=str(problem.answer),
            task="math",
            verifier="numeric",
            source="prefinery/word_problems",
        )
        for problem in generate(count, seed, exclude=_shown() | set(exclude))
    ]


@lru_cache(maxsize=65536)
def checked(problem: str, solution: str) -> SolutionCheck:
    """What the checker says of a solution or of a prefix of one."""
    from data.word_problems import check

    return check(problem, solution)


@dataclass
class Words:
    """The pool as one seed sees it; a world as metrics.py and ours.py want one."""

    pool: Pool
    seed: int = 0
    rollouts: int = ROLLOUTS

    def place(self, index: int) -> int:
        """Where a prefix's draw `index` lies: five seeds begin a fifth of the ring apart."""
        return (self.seed * (self.rollouts // 5) + index) % self.rollouts

    def draw(self, question: Question, prefix: Prefix, index: int) -> Drawn:
        """Rollout `index` of a prefix: the same for all methods."""
        return self.pool.get(question, prefix, self.place(index))

    def value(self, question: Question, prefix: str) -> float:
        """Share of right ones among the pool's rollouts of a given solution's prefix."""
        lines = checked(text(question.prompt), prefix)
        if lines.complete:
            return float(lines.right)
        own = self.pool.drawn[text(question.prompt), prefix]
        outcomes = [own[number].outcome for number in range(self.rollouts)]
        right, wrong = outcomes.count("right"), outcomes.count("wrong")
        return right / max(1, right + wrong)

    def is_sound(self, question: Question, prefix: str) -> bool:
        """Whether the checker finds no error in a prefix."""
        return checked(text(question.prompt), prefix).first_error is None

    def label(
        self, questions: Sequence[Question], search: Callable[[Question], Search]
    ) -> list[tuple[Question, Finding, int]]:
        """A method on all questions at once: books, findings and judge tokens, in their order."""
        asked = [fresh(question) for question in questions]
        judges = [CheckerJudge(cast(World, self)) for _ in asked]
        live = {index: search(question) for index, question in enumerate(asked)}
        found: dict[int, Finding] = {}
        while live:
            asks: list[tuple[Question, Ask]] = []
            for index, own in list(live.items()):
                try:
                    wave = next(own)
                except StopIteration as stop:
                    found[index] = stop.value
                    del live[index]
                    continue
                for wanted in wave:
                    if isinstance(wanted, Ask):
                        asks.append((asked[index], wanted))
                    elif asked[index].book.lacks(wanted):
                        verdict = judges[index](asked[index], wanted)
                        asked[index].book.verdicts[wanted] = verdict
            self._serve(asks)
        return [(q, found[i], judges[i].tokens) for i, q in enumerate(asked)]

    def _serve(self, asks: Sequence[tuple[Question, Ask]]) -> None:
        """Put what a wave of all questions wants in their books."""

        def known(question: Question, ask: Ask) -> list[Drawn]:
            return question.book.draws.setdefault((ask.prover, ask.prefix.text), [])

        self.pool.supply(
            (question, ask.prefix, self.place(index))
            for question, ask in asks
            for index in range(len(known(question, ask)), ask.n)
        )
        for question, ask in asks:
            drawn = known(question, ask)
            question.book.positions[ask.prefix.text] = ask.prefix.position
            while len(drawn) < ask.n:
                drawn.append(self.draw(question, ask.prefix, len(drawn)))
                question.book.spent += drawn[-1].tokens


class CheckerJudge(NoisyJudge):
    """The scripted judge, over what the checker says of each line."""

    def _good(self, question: Question, solution: Any, template: str) -> list[bool]:
        lines = checked(text(question.prompt), solution.text)
        if len(lines.steps) != solution.steps:
            raise ValueError("the checker and the splitter disagree on what a step is")
        if template == "validity":
            return [line.valid for line in lines.steps]
        first = solution.steps if lines.first_error is None else lines.first_error
        return [t < first for t in range(solution.steps)]


def questions(pool: Pool, solutions: int) -> list[Question]:
    """Questions with wrong responses, up to two each, `solutions` together."""
    found: list[Question] = []
    missing = solutions
    prompts = fresh_prompts(4 * SOLUTIONS, PROBLEMS)
    while missing:
        if not prompts:
            raise ValueError("too few questions with a wrong response")
        batch, prompts = prompts[:solutions], prompts[solutions:]
        for question in asyncio.run(_answered(pool, batch)):
            wrong = [s for s in question.solutions if s.ended and s.final_right is False]
            kept = tuple(wrong[: min(WRONG, missing)])
            if kept:
                found.append(replace(question, solutions=kept))
                missing -= len(kept)
    return found


async def _answered(pool: Pool, prompts: Sequence[Prompt]) -> list[Question]:
    """Questions with all their responses, split and graded as the stage does."""
    numbers = range(RESPONSES_AT, RESPONSES_AT + RESPONSES)
    bare = [Question(prompt, (), tally(())) for prompt in prompts]
    wanted = [(question, Prefix("", 0), number) for question in bare for number in numbers]
    await asyncio.to_thread(pool.supply, wanted)
    who = pool.sampler.engine.identity
    responses = [
        Response(
            prompt_id=question.prompt.id,
            engine=who.digest,
            model=who.model,
            sample_index=number - RESPONSES_AT,
            text=drawn.text,
            prompt_tokens=0,
            completion_tokens=drawn.tokens,
            finish_reason="length" if drawn.outcome == "truncated" else "stop",
        )
        for question, prefix, number in wanted
        for drawn in [pool.get(question, prefix, number)]
    ]
    config = ProcessConfig(engine="policy", per_prompt=RESPONSES)
    return (await _questions(prompts, responses, pool.sampler.engine, config))[0]


def fill(pool: Pool, asked: Sequence[Question], rollouts: int) -> None:
    """Draw the pool of every prefix of the given solutions."""
    for done, question in enumerate(asked, 1):
        pool.supply(
            (question, solution.prefix(position), number)
            for solution in question.solutions
            for position in range(solution.last + 1)
            for number in range(rollouts)
        )
        if done % 10 == 0:
            say(f"pool: {done}/{len(asked)} questions")


def rows(world: Words, asked: Sequence[Question]) -> dict[str, np.ndarray]:
    """By method: one row a question, as one seed's rollouts have it."""
    place = cast(World, world)
    found: dict[str, np.ndarray] = {}
    for method in table.methods()[0]:
        done = world.label(asked, method.search)
        found[method.name] = np.array([sums(place, *one) for one in done])
        world.pool.save()
    for name, settings in variants().items():
        labelled, _ = ours.run(place, asked, settings)
        found[name] = np.array([sums(place, q, finding) for q, finding in labelled])
    return found


def variants() -> dict[str, ProcessConfig]:
    """Ours as it is, and where it stops earlier or reads no answers."""
    return {
        OURS: ours.config(),
        f"{OURS}, no answers": ours.config(answers=False),
        f"{OURS}, min_gain=3": ours.config(min_gain=3.0, wave=2),
    }


def measure(chosen: Options, seeds: Sequence[int], folder: Path = CACHE) -> Measured:
    """All methods on the bundled policy's wrong responses."""
    count = QUICK_SOLUTIONS if chosen.quick else SOLUTIONS
    rollouts = QUICK_ROLLOUTS if chosen.quick else ROLLOUTS
    pool = Pool(folder)
    pool.load()
    asked = questions(pool, count)
    fill(pool, asked, rollouts)
    pool.save()
    total: dict[str, np.ndarray] = {}
    for seed in seeds:
        for name, own in rows(Words(pool, seed, rollouts), asked).items():
            total[name] = total.get(name, 0) + own
        say(f"seed {seed}: {len(total)} methods")
    boots = Bootstrap(
        {name: {(PLACE, 0): own} for name, own in total.items()}, 200 if chosen.quick else 1000
    )
    figures, intervals = headline(boots)
    plot(str(frontier(_spots(boots, [PLACE]), "Frontier, bundled policy")), chosen, "frontier")
    tables = {
        "methods": methods_table(boots, [PLACE]),
        "left_out": list(table.methods()[1]),
        "questions": len(asked),
        "solutions": count,
        "rollouts_of_a_prefix": rollouts,
        "values": _values(Words(pool, 0, rollouts), asked),
    }
    return figures, intervals, tables


def headline(boots: Bootstrap) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The figures of `changepoint`, and beside the two published methods."""
    found = {
        reading: boots.read(reading, OURS, [PLACE])
        for reading in (
            *("step_accuracy", "step_accuracy_labelled", "first_error_accuracy"),
            *("tokens_per_solution", "brier", "ece", "coverage_90", "unresolved_share"),
        )
    }
    for other, called in ((OMEGA, "omega"), (MATH_SHEPHERD, "math_shepherd")):
        if other in boots.rows:
            pair = (OURS, other, [PLACE])
            found[f"tokens_ratio_to_{called}"] = boots.ratio("tokens_per_solution", *pair)
            found[f"right_label_tokens_ratio_to_{called}"] = boots.ratio(
                "tokens_per_right_label", *pair
            )
            found[f"step_accuracy_less_{called}"] = boots.difference("step_accuracy", *pair)
    figures = {f"bundled_{name}": interval.value for name, interval in found.items()}
    return figures, {f"bundled_{n}": (i.low, i.high) for n, i in found.items()}


def _values(world: Words, asked: Sequence[Question]) -> dict[str, Any]:
    """Mean value of prefixes by how far they are from the first error; 0: it has just been made."""
    by: dict[int, list[float]] = defaultdict(list)
    for question in asked:
        for solution in question.solutions:
            first = checked(text(question.prompt), solution.text).first_error
            assert first is not None, "the answer is wrong"
            for position in range(solution.last + 1):
                value = world.value(question, solution.prefix(position).text)
                by[position - first - 1].append(value)
    return {
        str(distance): {"mean": round(float(np.mean(own)), 4), "prefixes": len(own)}
        for distance, own in sorted(by.items())
    }
